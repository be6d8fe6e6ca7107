use std::time::Duration;

use keylane_core::{
    ArenaSlot, Change, Duplicates, GateConfig as CoreGate, Newest, NoValue, OwnershipId, RememberedId,
    SettleNumber,
};

use super::*;
use crate::admit::{Arena, Header};
use crate::config::{EventField, OrderBy, OrderFormat};

const P0: Partition = Partition { topic: 0, number: 0 };

/// A handler with a gate by the header `v`, and with the detection of duplicates by the header `id`.
struct Handler {
    gates: Box<Gates>,
    identities: KeyIdentities,
    arena: Arena,
    /// The hash of every lane key: they collide.
    hash: u64,
}

impl Handler {
    fn new(key: Option<EventField>) -> Handler {
        Handler::with_memory(key, false)
    }

    fn with_memory(key: Option<EventField>, durable: bool) -> Handler {
        let rule = GateRule::Newest(Newest { equal_runs: false, tolerance: 0, latest_first: false });
        let rule = CoreGate { rule, no_value: NoValue::Reject, max_ahead: None, ends_at_tombstone: false };
        let by = OrderBy::Field(EventField::Header("v".to_owned()), OrderFormat::Integer);
        let id = EventField::Header("id".to_owned());
        let limits = Duplicates { keep: 4, window: Duration::from_secs(60) };
        let config = OrderConfig {
            gate: Some(GateConfig { rule, by, key, durable }),
            duplicates: Some(DuplicatesConfig { id, limits }),
            marks_memory: 1 << 20,
        };
        let gates = Gates::new(&config, false).expect("the handler has a gate");
        Handler { gates, identities: KeyIdentities::default(), arena: Arena::default(), hash: 7 }
    }

    /// Reads an event with this lane key. Returns its slot and its order.
    fn read(&mut self, lane_key: &[u8], headers: &[Header<'_>]) -> (ArenaSlot, EventOrder) {
        let Handler { gates, identities, arena, hash } = self;
        let (slot, _) = arena.store(Some(lane_key), Some(b"{}"), headers.iter().copied(), false);
        gates.begin_read();
        let order = gates.read(&arena.get(slot), lane_key, 1_000);
        let lane = identities.enter(P0, *hash, lane_key, slot);
        gates.enter((P0, slot), order, (lane, lane_key), identities, false);
        let [order] = gates.orders() else { panic!("one order per row") };
        (slot, *order)
    }

    fn remember(&mut self, key: GateKey, change: Change) {
        let (ownership, number) = (OwnershipId(1), SettleNumber(0));
        let change = MemoryChange { partition: P0, ownership, key, number, change };
        self.gates.remember(&[change], &self.identities);
    }

    fn release(&mut self, slot: ArenaSlot) {
        let Handler { gates, identities, arena, .. } = self;
        identities.leave(slot, |key| gates.key_ended(key));
        arena.release(slot);
    }
}

#[test]
fn keys_with_one_hash_share_no_mark() {
    let mut handler = Handler::new(None);
    let (a, of_a) = handler.read(b"\x01a", &[(b"v", Some(b"5"))]);
    let (b, of_b) = handler.read(b"\x01b", &[(b"v", Some(b"3"))]);
    assert_ne!(of_a.key, of_b.key);
    assert_eq!(
        (of_a.value, of_a.key, of_a.id, of_a.known),
        (Some(5), of_a.id_key, EventId::NONE, Known::Mark(None))
    );
    handler.remember(of_a.key, Change::Mark(5));
    handler.release(a);
    let (_, again) = handler.read(b"\x01a", &[]);
    assert_eq!((again.value, again.known), (None, Known::Mark(Some(5))));
    let (_, other) = handler.read(b"\x01b", &[(b"v", Some(b"4"))]);
    assert_eq!((other.key, other.known), (of_b.key, Known::Mark(None)));
    handler.release(b);
    assert_eq!(handler.gates.view().without_id, 4);
}

#[test]
fn a_gate_key_is_of_its_lane() {
    let mut handler = Handler::new(Some(EventField::Header("row".to_owned())));
    let row: Header<'_> = (b"row", Some(b"1"));
    let (_, one) = handler.read(b"\x01a", &[row, (b"v", Some(b"5"))]);
    let (_, same) = handler.read(b"\x01a", &[row, (b"v", Some(b"6"))]);
    let (_, other_lane) = handler.read(b"\x01b", &[row, (b"v", Some(b"7"))]);
    let (_, other_row) = handler.read(b"\x01a", &[(b"row", Some(b"2")), (b"v", Some(b"8"))]);
    assert_eq!((one.key, one.id_key), (same.key, same.id_key));
    assert!(one.key != one.id_key && one.key != other_lane.key && one.key != other_row.key);
    assert_eq!(one.id_key, other_row.id_key, "ids are those of the lane");
    let (_, none) = handler.read(b"\x01a", &[(b"v", Some(b"9"))]);
    assert_eq!((none.value, none.key), (None, none.id_key), "without its gate key, an event has no place");
    // Lane key and gate key are not mixed up.
    let (_, shifted) = handler.read(b"\x01a\x011", &[(b"row", Some(b"")), (b"v", Some(b"5"))]);
    assert_ne!(shifted.key, one.key);
}

#[test]
fn equal_ids_have_equal_hashes() {
    let mut handler = Handler::new(None);
    let id = |id: &'static [u8]| -> [Header<'static>; 1] { [(b"id", Some(id))] };
    let (_, one) = handler.read(b"\x01a", &id(b"1"));
    let (_, same) = handler.read(b"\x01b", &id(b"1"));
    let (_, other) = handler.read(b"\x01a", &id(b"2"));
    assert!(one.id == same.id && one.id != other.id && one.id != EventId::NONE);
    let mut process = Handler::new(None);
    assert_ne!(process.read(b"\x01a", &id(b"1")).1.id, one.id, "every process has its own secret");
}

#[test]
fn more_than_a_mark_is_answered_on_request() {
    let mut handler = Handler::new(None);
    let (slot, order) = handler.read(b"\x01a", &[(b"v", Some(b"5")), (b"id", Some(b"1"))]);
    handler.remember(order.key, Change::Mark(5));
    handler.remember(order.key, Change::Id(RememberedId { id: order.id, settled_ms: 9 }));
    handler.release(slot);
    let (_, again) = handler.read(b"\x01a", &[(b"v", Some(b"5")), (b"id", Some(b"1"))]);
    assert_eq!(again.known, Known::No);
    handler.gates.look_up(LookUpId(3), P0, again.key);
    handler.gates.look_up(LookUpId(4), P0, GateKey(99));
    let (request, memory) = handler.gates.next_answer(&handler.identities).expect("a request");
    assert_eq!((request, memory.mark, memory.ids.len()), (LookUpId(3), Some(5), 1));
    let (request, memory) = handler.gates.next_answer(&handler.identities).expect("a request");
    assert_eq!((request, memory), (LookUpId(4), &KeyMemory::default()));
    assert!(handler.gates.next_answer(&handler.identities).is_none());
}

#[test]
fn ids_are_in_memory_although_marks_are_durable() {
    let mut handler = Handler::with_memory(None, true);
    let event: [Header<'_>; 2] = [(b"v", Some(b"5")), (b"id", Some(b"1"))];
    let (slot, order) = handler.read(b"\x01a", &event);
    assert_eq!(order.known, Known::No);
    let Handler { gates, identities, .. } = &mut handler;
    let record_key = gates.load(LookUpId(1), (P0, order.key), identities).expect("a key with events");
    gates.loaded(LookUpId(1), None).expect("no record");
    let (ownership, number) = (OwnershipId(1), SettleNumber(3));
    let id = RememberedId { id: order.id, settled_ms: 9 };
    let changes = [Change::Mark(5), Change::Id(id)].map(|change| MemoryChange {
        partition: P0,
        ownership,
        key: order.key,
        number,
        change,
    });
    let mut kept = Vec::new();
    gates.change(&changes, identities, |_, key, value| kept.push((key.clone(), value.map(<[u8]>::to_vec))));
    let [(key, Some(value))] = kept.as_slice() else { panic!("only the mark has a record: {kept:?}") };
    assert_eq!(*key, record_key);
    assert_eq!(gates.expected(identities.gate_key(slot).expect("an event")), Some(6));
    handler.release(slot);
    let (_, again) = handler.read(b"\x01a", &event);
    let Handler { gates, identities, .. } = &mut handler;
    gates.load(LookUpId(2), (P0, again.key), identities).expect("a key with events");
    gates.loaded(LookUpId(2), Some(value)).expect("the record can be read");
    let answers: Vec<KeyMemory> =
        std::iter::from_fn(|| gates.next_answer(identities).map(|(_, memory)| memory.clone())).collect();
    let [first, second] = answers.as_slice() else { panic!("two requests: {answers:?}") };
    assert_eq!(*first, KeyMemory::default());
    assert_eq!((second.mark, second.ids.as_slice()), (Some(5), &[id][..]));
}

/// A call may still hold an event of a key when the partition is lost and assigned again. Meanwhile, another owner may have
/// changed the mark, so that it is looked up again.
#[test]
fn a_mark_in_memory_is_given_with_the_first_event_of_its_key_only() {
    let mut handler = Handler::with_memory(None, true);
    handler.gates.ids = None;
    let record = |mark| {
        let mut value = Vec::new();
        keylane_state::MarkRecord { mark: Some(mark), ..Default::default() }.encode(&mut value);
        Some(value.as_slice().into())
    };
    let known = |handler: &mut Handler, mark| {
        let (slot, _) = handler.read(b"\x01a", &[(b"v", Some(b"5"))]);
        handler.gates.complete(&handler.identities, |_| Some(record(mark)));
        (slot, handler.gates.orders()[0].known)
    };
    let (first, of_first) = known(&mut handler, 3);
    assert_eq!(of_first, Known::Mark(Some(3)));
    let (second, of_second) = known(&mut handler, 7);
    assert_eq!(of_second, Known::No);
    handler.release(first);
    handler.release(second);
    assert_eq!(known(&mut handler, 7).1, Known::Mark(Some(7)));
}

#[test]
fn marks_end_with_the_ownership_unless_nobody_was_in_between() {
    let commit = [CommitEntry { partition: P0, offset: 6, metadata: (0, 2), unclaimed: 0 }];
    for (committed, kept) in
        [(Some((6, &b"ab"[..])), true), (Some((7, b"ab")), false), (Some((6, b"a")), false), (None, false)]
    {
        let mut handler = Handler::new(None);
        let (slot, order) = handler.read(b"\x01a", &[(b"v", Some(b"5"))]);
        handler.remember(order.key, Change::Mark(5));
        handler.release(slot);
        handler.gates.commit_sent(CommitId(1), &commit, "ab");
        handler.gates.commit_answered(CommitId(1), P0, true);
        handler.gates.starts(P0, committed);
        let (_, again) = handler.read(b"\x01a", &[(b"v", Some(b"5"))]);
        assert_eq!(again.known, Known::Mark(kept.then_some(5)), "{committed:?}");
    }
}
