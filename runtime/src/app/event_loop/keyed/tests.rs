use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use keylane_core::{EffectClaim, Now, OwnershipId, SettleNumber};
use keylane_state::{Entry, KeyBytes, StoreSpec};

use super::super::transacting::CommittedClaims;
use super::*;
use crate::changelog::RestoreRequest;
use crate::librdkafka::Wake;

const P0: Partition = Partition { topic: 0, number: 0 };
const OWNERSHIP: OwnershipId = OwnershipId(1);
const KEY: &[u8] = b"\x01ada";
/// The token of a load that belongs to no call.
const TOKEN: u64 = 77;

/// Keyed state whose store is in memory and without a changelog, and the events of the store.
fn keyed() -> (Keyed, Receiver<StoreEvent>) {
    keyed_with(1 << 20, None)
}

fn keyed_with(cache_bytes: usize, forget_after: Option<Duration>) -> (Keyed, Receiver<StoreEvent>) {
    let (sender, events) = channel();
    let spec = StoreSpec { dir: None, cache_bytes, trusted_for: Duration::from_secs(60) };
    let store = LocalStore::start(spec, move |event| sender.send(event).expect("the test receives events"));
    let settings = KeyedSettings {
        handler: "t".to_owned(),
        group: "g".to_owned(),
        topics: vec!["orders".to_owned()],
        lane_key: "key".to_owned(),
        version: 1,
        cache_bytes: 0,
        forget_after,
        has_states: true,
        has_marks: false,
    };
    let topics = vec![TopicStates { store: Arc::new(store.expect("a thread")), changelog: None }];
    let mailbox = Arc::new(Mailbox::new(Wake::new().expect("a file descriptor")));
    (Keyed::new(settings, topics, None, mailbox), events)
}

/// Opens the partition and begins its ownership.
fn begin(keyed: &mut Keyed, events: &Receiver<StoreEvent>) {
    let found = StartPosition {
        partition: P0,
        committed: None,
        fallback: 0,
        log_start: 0,
        log_end: Some(0),
        stable_end: None,
        topic_id: [7; 16],
    };
    keyed.restore(found, 0).expect("the partition has a store");
    let resolved = opened(keyed, events);
    assert!(matches!(resolved, Some(Resolved::Start(_))), "without a changelog, nothing is restored");
    keyed.began(P0, OWNERSHIP);
}

fn opened(keyed: &mut Keyed, events: &Receiver<StoreEvent>) -> Option<Resolved> {
    let event = events.recv().expect("the store lives");
    let StoreEvent::Opened { session, resume, .. } = event else { panic!("{event:?}") };
    keyed.opened(P0, session, resume)
}

fn request(keyed: &Keyed) -> RestoreRequest {
    RestoreRequest { topic: 0, partition: 0, session: keyed.owned[&P0].session, resume: None }
}

#[test]
fn what_is_committed_while_a_lost_file_is_restored_is_newer_than_what_is_restored() {
    let (mut keyed, events) = keyed();
    begin(&mut keyed, &events);
    let session = keyed.owned[&P0].session;
    keyed.store_lost(P0, session, 0);
    let states = &mut keyed.owned.get_mut(&P0).expect("an owned partition").states;
    states.changed(1, &KEY.into(), Some(b"new".as_slice().into()));
    let claims = vec![EffectClaim { ownership: OWNERSHIP, through: SettleNumber(1) }];
    keyed.committed(&CommittedClaims { claims, written: Vec::new(), began_ms: 0 });
    // The reader of the changelog is behind: it finds the former state of the key.
    let request = request(&keyed);
    let former = Entry::new(KEY, Some(b"former"), None);
    keyed.topics[0].1.store.apply(0, request.session, vec![former], None);
    keyed.restored(request, true, false);
    assert_eq!(stored(&keyed, &events).as_deref(), Some(&b"new"[..]));
}

/// The restored records contain a transaction whose outcome the loop does not know yet.
#[test]
fn what_was_committed_before_an_undecided_transaction_is_stored_together_with_it() {
    let (mut keyed, events) = keyed();
    begin(&mut keyed, &events);
    let session = keyed.owned[&P0].session;
    keyed.store_lost(P0, session, 0);
    for (number, value) in [(1, b"older"), (2, b"newer")] {
        let states = &mut keyed.owned.get_mut(&P0).expect("an owned partition").states;
        states.changed(number, &KEY.into(), Some(value.as_slice().into()));
    }
    commit(&mut keyed, 1, 0);
    let request = request(&keyed);
    keyed.topics[0].1.store.apply(0, request.session, vec![Entry::new(KEY, Some(b"newer"), None)], Some(9));
    keyed.restored(request, true, true);
    assert_eq!(stored(&keyed, &events).as_deref(), Some(&b"newer"[..]), "the offset of the store is past it");
    commit(&mut keyed, 2, 0);
    keyed.decided();
    assert_eq!(keyed.owned[&P0].step, partitions::Step::Ready);
    assert_eq!(stored(&keyed, &events).as_deref(), Some(&b"newer"[..]));
}

/// Returns what the store has for the key.
fn stored(keyed: &Keyed, events: &Receiver<StoreEvent>) -> Option<Vec<u8>> {
    keyed.topics[0].1.store.load(0, keyed.owned[&P0].session, TOKEN, vec![KEY.into()]);
    let loaded = events.iter().find_map(|event| {
        if let StoreEvent::Loaded { token: TOKEN, values, .. } = event { Some(values) } else { None }
    });
    loaded.expect("an answer").swap_remove(0).map(|value| value.to_vec())
}

/// A transaction that claims the changes up to this number was committed.
fn commit(keyed: &mut Keyed, through: u64, began_ms: i64) {
    let claims = vec![EffectClaim { ownership: OWNERSHIP, through: SettleNumber(through) }];
    keyed.committed(&CommittedClaims { claims, written: Vec::new(), began_ms });
}

fn change(keyed: &mut Keyed, number: u64, key: &[u8]) {
    let states = &mut keyed.owned.get_mut(&P0).expect("an owned partition").states;
    states.changed(number, &key.into(), Some(b"state".as_slice().into()));
}

/// Handles the answer to the step of a search that has begun. `busy`: a key with an event. Returns what the core is given.
fn scanned(
    keyed: &mut Keyed,
    events: &Receiver<StoreEvent>,
    busy: &[u8],
    now: Now,
) -> Option<(OwnershipId, u64)> {
    let event = events.iter().find(|event| matches!(event, StoreEvent::Scanned { .. }));
    let Some(StoreEvent::Scanned { session, expired, next, .. }) = event else { panic!("{event:?}") };
    let found = Found { expired, next };
    let unused = |mut keys: Vec<KeyBytes>| {
        keys.retain(|key| **key != *busy);
        keys
    };
    keyed.scanned((P0, session), found, unused, now)
}

#[test]
fn only_a_state_that_is_old_and_unused_is_forgotten() {
    const AGE: Duration = Duration::from_mins(10);
    // Without memory, the store writes everything to its file at once.
    let (mut keyed, events) = keyed_with(0, Some(AGE));
    begin(&mut keyed, &events);
    let keys = [b"\x01old", b"\x01bsy", b"\x01new", b"\x01now"];
    (1..).zip(keys).for_each(|(number, key)| change(&mut keyed, number, key));
    commit(&mut keyed, 2, 1_000);
    commit(&mut keyed, 4, 2_000);
    let at = |seconds: u64, wall_ms: i64| Now { uptime: Duration::from_secs(seconds), wall_ms };
    keyed.search(at(1, 601_001));
    keyed.search(at(60, 601_001));
    assert_eq!(keyed.next_search(), Some(Duration::from_secs(61)), "the first search begins a minute later");
    let now = at(62, 602_001);
    keyed.search(now);
    change(&mut keyed, 5, b"\x01new");
    commit(&mut keyed, 5, 700_000);
    change(&mut keyed, 6, b"\x01now");
    let found = scanned(&mut keyed, &events, b"\x01bsy", now).expect("an old state");
    assert!(found.0 == OWNERSHIP && found.1 > 100, "{found:?}");
    keyed.forget_states(P0, SettleNumber(7));
    let owned = keyed.owned.get_mut(&P0).expect("an owned partition");
    assert_eq!(owned.states.get(b"\x01old"), Some(None));
    let mut records = Vec::new();
    owned.states.claimed(7, |key, value| records.push((key.to_vec(), value.is_some())));
    assert_eq!(records, [(b"\x01now".to_vec(), true), (b"\x01old".to_vec(), false)]);
    keyed.search(at(63, 603_000));
    assert_eq!(
        (keyed.forgotten, keyed.next_search()),
        (0, Some(Duration::from_secs(64))),
        "not committed yet"
    );
    commit(&mut keyed, 7, 700_000);
    assert_eq!((keyed.forgotten, keyed.next_search()), (1, Some(Duration::ZERO)));
    keyed.search(at(122, 603_001));
    assert!(scanned(&mut keyed, &events, b"", at(122, 603_001)).is_some(), "the key without events now");
    keyed.expired = None; // the core refuses: the states stay
    keyed.search(at(182, 603_001));
    assert!(scanned(&mut keyed, &events, b"", at(182, 603_001)).is_some());
}

#[test]
fn a_damaged_changelog_refuses_a_start_and_stops_an_owner() {
    let (mut keyed, events) = keyed();
    begin(&mut keyed, &events);
    let owner = keyed.damaged(request(&keyed), "offset 3: no key").map(|_| ()).expect_err("an owner");
    assert!(owner.contains("topic orders, partition 0") && owner.contains("offset 3: no key"), "{owner}");
    let found = StartPosition {
        partition: P0,
        committed: Some((4, Vec::new())),
        fallback: 0,
        log_start: 0,
        log_end: Some(9),
        stable_end: None,
        topic_id: [7; 16],
    };
    keyed.restore(found, 0).expect("the partition has a store");
    let refused = keyed.damaged(request(&keyed), "offset 3: no key").expect("it is not owned yet");
    assert!(matches!(refused, Some(Resolved::Refused { offset: 4, .. })));
    let stale = RestoreRequest { session: keylane_state::SessionId(0), ..request(&keyed) };
    assert!(keyed.damaged(stale, "old").expect("an older session").is_none());
}
