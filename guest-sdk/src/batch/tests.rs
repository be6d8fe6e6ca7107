//! The rules that every SDK for `batch-handler` must follow, with batches built by hand.

use std::time::Duration;

use super::{run, run_keyed};
use crate::bindings::{Batch, BytesColumn, Failure, HeaderColumns, Results, Retry};
use crate::columns::{ColumnReader, EMPTY, push};
use crate::{Bytes, Effects, Event, Header, Result, reject, retry_after};

type Row<'a> = (Option<&'a str>, Option<&'a str>);

/// Lanes of two, three and one rows. The second row of the second lane has no key. The only row of the third lane has
/// an empty key and no value.
const LANES: [&[Row<'static>]; 3] = [
    &[(Some("a"), Some("a0")), (Some("a"), Some("a1"))],
    &[(Some("b"), Some("b0")), (None, Some("b1")), (Some("b"), Some("b2"))],
    &[(Some(""), None)],
];

#[test]
fn a_lane_stops_at_its_first_failure_and_others_continue() {
    let mut seen = Vec::new();
    let results = run(&batch(&LANES), |event, effects| {
        seen.push(event.offset());
        effects.emit("before").value("rolled back unless done");
        let Some(key) = event.key() else { return reject("no key") };
        if let Some(value) = event.value() {
            effects.emit("copies").key(key).value(value);
        }
        Ok(())
    });

    assert_eq!(seen, [100, 101, 102, 103, 105], "row 4 follows the failed row");
    assert_eq!(results.done, [2, 1, 1]);
    assert_eq!(failures(&results), [(1, "reject: no key".to_owned())]);
    let outputs = results.outputs.expect("there are outputs");
    assert_eq!(outputs.causes, [0, 0, 1, 1, 2, 2, 5]);
    assert_eq!(outputs.target_names, ["before", "copies"]);
    assert_eq!(outputs.targets, [0, 1, 0, 1, 0, 1, 0]);
    assert_eq!(
        texts(&outputs.keys),
        [None, Some("a"), None, Some("a"), None, Some("b"), None],
        "no output of the failed row remains"
    );
}

/// The test case shared by all SDKs of the contract: one output per value.
#[test]
fn conformance() {
    let results = run(&batch(&LANES), |event, effects| {
        let Some(key) = event.key() else { return reject("no key") };
        let Some(value) = event.value() else { return Ok(()) };
        effects.emit("totals").key(key).value(value);
        Ok(())
    });
    assert_eq!(results.done, [2, 1, 1]);
    assert_eq!(failures(&results), [(1, "reject: no key".to_owned())]);
    let outputs = results.outputs.expect("there are outputs");
    assert_eq!(outputs.causes, [0, 1, 2]);
    assert_eq!(texts(&outputs.keys), [Some("a"), Some("a"), Some("b")]);
    assert_eq!(texts(&outputs.values), [Some("a0"), Some("a1"), Some("b0")]);
    assert!(outputs.headers.is_none());
    assert!(results.states.is_none());
}

/// The same case with states: each lane's state is the concatenation of its values. The first lane has none before, the
/// second has one, and that of the third is empty.
#[test]
fn conformance_with_states() {
    let mut batch = batch(&LANES);
    let mut states = EMPTY;
    for state in [None, Some(&b"old"[..]), Some(b"")] {
        push(&mut states, state);
    }
    batch.states = Some(states);
    let results = run_keyed(&batch, |event, state: &mut Option<Bytes>, effects| {
        let value = event.value().unwrap_or_default();
        state.get_or_insert_default().0.extend_from_slice(value);
        let Some(key) = event.key() else { return reject("no key") };
        if event.value().is_some() {
            effects.emit("totals").key(key).value(state.as_ref().map_or(&[][..], |state| &state.0));
        }
        Ok(())
    });
    assert_eq!(results.done, [2, 1, 1]);
    assert_eq!(failures(&results), [(1, "reject: no key".to_owned())]);
    let outputs = results.outputs.expect("there are outputs");
    assert_eq!(outputs.causes, [0, 1, 2]);
    assert_eq!(texts(&outputs.values), [Some("a0"), Some("a0a1"), Some("oldb0")]);
    let changes = results.states.expect("two states changed");
    assert_eq!(changes.lanes, [0, 1], "the empty state of the third lane is the same as before");
    assert_eq!(texts(&changes.values), [Some("a0a1"), Some("oldb0")]);
}

/// An event of each kind of change: from absent to empty, deleted, changed and changed back.
#[test]
fn only_states_whose_bytes_differ_are_returned() {
    let row = |value| (Some("k"), Some(value));
    let mut batch = batch(&[
        &[row("")],
        &[row("delete")],
        &[row("x"), row("old")],
        &[row("x"), row("y"), row("delete")],
        &[row("delete")],
    ]);
    let mut states = EMPTY;
    for state in [None, Some(&b"old"[..]), Some(b"old"), Some(b"old"), None] {
        push(&mut states, state);
    }
    batch.states = Some(states);
    let results = run_keyed(&batch, |event, state, _| {
        let value = event.text()?;
        *state = (value != "delete").then(|| Bytes(value.into()));
        Ok(())
    });
    let changes = results.states.expect("states changed");
    assert_eq!(changes.lanes, [0, 1, 3]);
    assert_eq!(texts(&changes.values), [Some(""), None, None]);
    assert!(changes.values.data.is_empty());
}

/// A handler with state must not run as if every state was absent.
#[test]
fn without_a_configured_state_every_lane_is_retried() {
    let results = run_keyed(&batch(&LANES), |_, _: &mut Option<Bytes>, _| reject("it must not be called"));
    assert_eq!(results.done, [0, 0, 0]);
    let reasons = failures(&results);
    assert_eq!(reasons.len(), 3);
    let reason = "retry after None: the handler needs a state: add `delivery = \"transactional\"`";
    assert!(reasons[0].1.starts_with(reason), "{reasons:?}");
}

#[test]
fn a_result_without_outputs_has_no_columns() {
    let results = run(&batch(&LANES), |_, _| Ok(()));
    assert_eq!(results.done, [2, 3, 1]);
    assert!(results.failures.is_empty());
    assert!(results.outputs.is_none());
}

#[test]
fn every_lane_may_fail_with_its_own_reason() {
    let results = run(&batch(&LANES), |event, effects| {
        effects.emit("never").value("x");
        match event.offset() {
            100 => retry_after(Duration::from_millis(250), "busy"),
            102 => reject("wrong"),
            _ => event.json::<u32>().map(drop),
        }
    });
    assert_eq!(results.done, [0, 0, 0]);
    let reasons = failures(&results);
    assert_eq!(reasons[0], (0, "retry after Some(250): busy".to_owned()));
    assert_eq!(reasons[1], (1, "reject: wrong".to_owned()));
    assert_eq!(reasons[2], (2, "reject: the event has no value (it is a tombstone)".to_owned()));
    assert!(results.outputs.is_none(), "target names of failed rows are dropped, too");
}

#[test]
fn rows_keep_their_own_columns_past_a_stopped_lane() {
    let mut batch = batch(&[
        &[(Some("a"), Some("wrong")), (Some("long key"), Some("skipped"))],
        &[(None, Some("")), (Some("z"), Some("last"))],
    ]);
    let mut names = EMPTY;
    let mut values = EMPTY;
    for (name, value) in [
        ("h", Some("0")),
        ("skipped", Some("1")),
        ("skipped", None),
        ("h", None),
        ("x", Some("")),
        ("x", None),
    ] {
        push(&mut names, Some(name.as_bytes()));
        push(&mut values, value.map(str::as_bytes));
    }
    batch.headers = Some(HeaderColumns { counts: vec![1, 2, 0, 3], names, values });

    let mut seen = Vec::new();
    let results = run(&batch, |event, _| {
        if event.text()? == "wrong" {
            return reject("wrong");
        }
        let headers: Vec<_> =
            event.headers().map(|Header { name, value }| (name.to_owned(), value.is_some())).collect();
        seen.push((event.offset(), event.key().map(<[u8]>::len), headers));
        assert_eq!(event.header("skipped"), None);
        assert_eq!(event.header("x"), None, "the last header with the name is used");
        Ok(())
    });
    assert_eq!(results.done, [0, 2]);
    let last = vec![("h".to_owned(), false), ("x".to_owned(), true), ("x".to_owned(), false)];
    assert_eq!(seen, [(102, None, vec![]), (103, Some(1), last)]);
}

#[test]
fn an_event_returns_the_values_of_its_row() {
    fn check(event: &Event<'_>, _: &mut Effects) -> Result {
        assert_eq!((event.topic(), event.partition(), event.attempt()), ("orders", 7, 3));
        assert!(event.last_attempt());
        match event.offset() {
            100 => assert_eq!(event.timestamp_ms(), None),
            _ => assert_eq!(event.timestamp_ms(), Some(0)),
        }
        Ok(())
    }
    let mut batch = batch(&[&[(None, None)], &[(None, None)]]);
    batch.attempt = 3;
    batch.last_attempt = true;
    batch.timestamps = vec![-1, 0];
    assert_eq!(run(&batch, check).done, [1, 1]);
}

#[test]
fn an_empty_batch_has_an_empty_result() {
    let results = run(&batch(&[]), |_, _| reject("there is nothing to reject"));
    assert!(results.done.is_empty() && results.failures.is_empty() && results.outputs.is_none());
}

fn batch(lanes: &[&[Row<'_>]]) -> Batch {
    let (mut keys, mut values) = (EMPTY, EMPTY);
    let rows: Vec<_> = lanes.iter().copied().flatten().collect();
    for &&(key, value) in &rows {
        push(&mut keys, key.map(str::as_bytes));
        push(&mut values, value.map(str::as_bytes));
    }
    Batch {
        topic: "orders".to_owned(),
        attempt: 1,
        last_attempt: false,
        lanes: lanes.iter().map(|lane| u32::try_from(lane.len()).expect("the lane is short")).collect(),
        partitions: vec![7; rows.len()],
        offsets: (100..).take(rows.len()).collect(),
        timestamps: vec![-1; rows.len()],
        keys,
        values,
        headers: None,
        states: None,
    }
}

fn failures(results: &Results) -> Vec<(u32, String)> {
    let text = |failure: &Failure| match failure {
        Failure::Retry(Retry { reason, after_ms }) => format!("retry after {after_ms:?}: {reason}"),
        Failure::Reject(reason) => format!("reject: {reason}"),
    };
    results.failures.iter().map(|failed| (failed.lane, text(&failed.failure))).collect()
}

fn texts(column: &BytesColumn) -> Vec<Option<&str>> {
    let text = |bytes| str::from_utf8(bytes).expect("the tests use UTF-8");
    ColumnReader::new(column).map(|bytes| bytes.map(text)).collect()
}
