//! The handle and its thread.

use std::sync::mpsc::{Receiver, channel};

use super::super::StateStore;
use super::*;

const SESSION: SessionId = SessionId(1);

fn started(spec: StoreSpec) -> (StateStore, Receiver<StoreEvent>) {
    let (sender, events) = channel();
    let on_event = Box::new(move |event| sender.send(event).expect("the test receives"));
    (StateStore::start(spec, on_event).expect("a thread"), events)
}

fn next(events: &Receiver<StoreEvent>) -> StoreEvent {
    events.recv_timeout(Duration::from_secs(60)).expect("an event")
}

#[test]
fn dropping_the_store_writes_everything() {
    let dir = TempDir::new("drop");
    let (store, events) = started(spec(Some(&dir), 1 << 20));
    store.open(3, SESSION, IDENTITY, START_MS);
    store.apply(3, SESSION, vec![entry("ada", Some("1"))], Some(7));
    store.load(3, SESSION, 4, vec![b"ada".as_slice().into(), b"bob".as_slice().into()]);
    store.at_log_end(3, SESSION, START_MS);
    drop(store);
    let opened = StoreEvent::Opened { partition: 3, session: SESSION, resume: None, note: None };
    assert_eq!(next(&events), opened);
    let bytes = entry("ada", Some("1")).bytes();
    let applied = StoreEvent::Applied { partition: 3, session: SESSION, through: Some(7), bytes };
    assert_eq!(next(&events), applied);
    let values = vec![Some(b"1".as_slice().into()), None];
    assert_eq!(next(&events), StoreEvent::Loaded { partition: 3, session: SESSION, token: 4, values });

    let (store, events) = started(spec(Some(&dir), 1 << 20));
    store.open(3, SESSION, IDENTITY, START_MS);
    let opened = StoreEvent::Opened { partition: 3, session: SESSION, resume: Some(7), note: None };
    assert_eq!(next(&events), opened);
    store.close(3, SESSION);
    assert_eq!(next(&events), StoreEvent::Closed { partition: 3, session: SESSION });
    drop(store);
}
