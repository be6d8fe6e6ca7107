use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;
use crate::testing::{self, States, Verdict};
use crate::{Effects, Event, reject, retry};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    count: u32,
    last: String,
}

/// Counts events; the value is a command.
fn handle(event: &Event<'_>, state: &mut Option<Seen>, effects: &mut Effects) -> Result {
    let text = event.text()?;
    let seen = state.get_or_insert_default();
    seen.count += 1;
    text.clone_into(&mut seen.last);
    effects.emit("counts").json(&seen.count)?;
    match text {
        "delete" => *state = None,
        "reject" => return reject("the value requests it"),
        "retry" => return retry("the value requests it"),
        _ => {}
    }
    Ok(())
}

fn run(states: &mut States, key: &str, value: &str) -> Verdict {
    testing::event().key(key).value(value).run_keyed(states, handle)
}

#[test]
fn a_state_is_passed_on_from_event_to_event_of_its_key() {
    let mut states = States::new();
    for (key, value, count) in [("a", "x", "1"), ("b", "x", "1"), ("a", "y", "2")] {
        assert_eq!(run(&mut states, key, value).outputs()[0].text(), count);
    }
    assert_eq!(states.get("a"), Some(Seen { count: 2, last: "y".to_owned() }));
    assert_eq!(states.bytes("a"), Some(&br#"{"count":2,"last":"y"}"#[..]), "compact JSON and nothing else");
    assert_eq!(states.len(), 2);
}

#[test]
fn a_failed_event_changes_no_state_and_none_deletes_it() {
    let mut states = States::new();
    run(&mut states, "a", "x").outputs();
    let before = states.clone();
    assert!(matches!(run(&mut states, "a", "reject"), Verdict::Reject { .. }));
    assert!(matches!(run(&mut states, "a", "retry"), Verdict::Retry { .. }));
    assert_eq!(states, before);
    assert_eq!(run(&mut states, "a", "delete").outputs().len(), 1);
    assert!(states.is_empty());
}

#[test]
fn a_state_that_can_not_be_decoded_is_not_an_absent_one() {
    let mut states = States::new();
    for bytes in [&b""[..], b"null", b"{\"count\":1}"] {
        states.set_bytes("a", Some(bytes));
        let Verdict::Reject { reason } = run(&mut states, "a", "x") else { panic!("it should be rejected") };
        assert!(reason.starts_with("the stored state can't be decoded: JSON: "), "{reason}");
        assert_eq!(states.bytes("a"), Some(bytes));
    }
}

#[test]
fn a_state_that_can_not_be_encoded_rejects_its_event() {
    #[derive(Deserialize)]
    struct Unencodable;
    impl Serialize for Unencodable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let mut states = States::new();
    let verdict = testing::event().key("a").run_keyed(&mut states, |_, state, effects| {
        effects.emit("out");
        *state = Some(Unencodable);
        Ok(())
    });
    let reason = "the new state can't be encoded: JSON: no".to_owned();
    assert_eq!(verdict, Verdict::Reject { reason });
    assert!(states.is_empty());
}

#[test]
fn bytes_are_stored_as_they_are() {
    let mut states = States::new();
    for _ in 0..2 {
        let append = |_: &Event<'_>, state: &mut Option<Bytes>, _: &mut Effects| {
            state.get_or_insert_default().0.push(0xff);
            Ok(())
        };
        testing::event().run_keyed(&mut states, append).outputs();
    }
    assert_eq!(states.bytes(None::<&str>), Some(&[0xff, 0xff][..]));
    states.set("empty", &Bytes::default());
    assert_eq!(states.get("empty"), Some(Bytes(Vec::new())), "an empty state is present");
}

#[test]
fn any_serde_type_is_a_state() {
    let mut bytes = Vec::new();
    let state = BTreeMap::from([("b".to_owned(), 2), ("a".to_owned(), 1)]);
    state.encode(&mut bytes).expect("a map with text keys is JSON");
    assert_eq!(bytes, br#"{"a":1,"b":2}"#);
    assert_eq!(BTreeMap::decode(&bytes), Ok(state));
}
