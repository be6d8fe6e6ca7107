//! States in results of a `keyed-handler`.

use super::*;
use crate::batch::Batch;
use crate::call::GuestFailure;
use crate::testing::{call_here, fill, handler_with, with_state};

/// Runs the lanes, each with the state before it.
fn run(max_bytes: usize, lanes: &[(Option<&str>, &[&str])]) -> (Result<(), GuestFailure>, Results) {
    let handler = handler_with(&testing::engine(), &testing::keyed(), with_state(max_bytes));
    let mut batch = Batch::new();
    fill(&mut batch, &lanes.iter().map(|(_, values)| *values).collect::<Vec<_>>());
    lanes.iter().for_each(|(state, _)| batch.push_state(state.map(str::as_bytes)));
    call_here(&handler, &batch)
}

/// Returns each changed state with its lane and row.
fn changes(results: &Results) -> Vec<(u32, u32, Option<String>)> {
    results.state_changes().map(|change| (change.lane, change.row, text(change.state))).collect()
}

/// Returns the state that each row with an output was called with.
fn states_seen(results: &Results) -> Vec<(u32, Option<String>)> {
    results.outputs().map(|output| (output.row, text(output.value))).collect()
}

fn unpublishable(results: &mut Results, lane: u32, done: u32) -> Result<(), UnknownState> {
    results.retract(lane, done, Verdict::Unpublishable, "too large".to_owned())
}

#[test]
fn a_row_gets_the_state_of_the_row_before_and_a_lane_its_own() {
    let (result, results) =
        run(100, &[(None, &["a1", "k", "a2"]), (Some("old"), &["k", "x", "e", "k"]), (Some(""), &["k"])]);
    result.unwrap();
    assert_eq!(
        states_seen(&results),
        [
            (0, None),
            (1, some("a1")),
            (2, some("a1")),
            (3, some("old")),
            (4, some("old")),
            (5, None),
            (6, some("")),
            (7, some("")),
        ]
    );
    assert_eq!(changes(&results), [(0, 2, some("a1a2")), (1, 6, some(""))]);
}

#[test]
fn the_last_done_row_of_a_changed_lane_has_effects() {
    let (result, results) = run(
        100,
        &[(None, &["pq1", "kq", "kq"]), (Some("b"), &["kq", "kq"]), (Some("c"), &["xq", "kq", "r"])],
    );
    result.unwrap();
    assert_eq!(results.rows_with_effects(), [2, 6], "no row has an output");
    assert_eq!(changes(&results), [(0, 2, some("pq1")), (2, 6, None)]);

    let (result, results) = run(100, &[(None, &["p1", "k", "kq"])]);
    result.unwrap();
    assert_eq!(results.rows_with_effects(), [0, 1, 2]);
}

#[test]
fn a_failed_row_changes_no_state() {
    let (result, results) = run(100, &[(Some("old"), &["r", "p"]), (None, &["p1", "pd", "p"])]);
    result.unwrap();
    let stopped: Vec<_> = results.lane_ends().iter().map(|end| (end.done, end.verdict.is_some())).collect();
    assert_eq!(stopped, [(0, true), (1, true)]);
    assert_eq!(results.lane_ends()[1].verdict, Some(Verdict::Unpublishable), "`pd` has no such output");
    assert_eq!(changes(&results), [(1, 2, some("p1"))]);
}

#[test]
fn a_trap_keeps_the_states_of_the_rows_before_it() {
    let (result, results) = run(100, &[(None, &["p0"]), (None, &["p1", "kq", "t", "p2"]), (None, &["p3"])]);
    let failure = result.unwrap_err();
    assert_eq!((failure.fault, failure.row), (Fault::Trap, Some(3)));
    let done: Vec<_> = results.lane_ends().iter().map(|end| end.done).collect();
    assert_eq!(done, [1, 2, 0]);
    assert_eq!(changes(&results), [(0, 0, some("p0")), (1, 2, some("p1"))]);
    assert_eq!(results.rows_with_effects(), [0, 1, 2]);
}

#[test]
fn a_state_that_is_too_large_fails_its_row_and_keeps_the_rows_before_it() {
    let (result, results) = run(4, &[(None, &["p123", "a1", "k"]), (None, &["p"])]);
    let failure = result.unwrap_err();
    let message = "the new state of lane 0 has 6 bytes, the limit is 4: keep less, or set `state.max_value`";
    assert_eq!(failure, GuestFailure { fault: Fault::Limit, message: message.to_owned(), row: Some(1) });
    assert_eq!(changes(&results), [(0, 0, some("p123"))]);
    assert_eq!(states_seen(&results), [(0, None)], "its outputs are not taken");
    let done: Vec<_> = results.lane_ends().iter().map(|end| end.done).collect();
    assert_eq!(done, [1, 0]);
}

#[test]
fn a_lane_can_be_cut_after_any_row() {
    let (result, mut results) =
        run(100, &[(Some("old"), &["k", "p1", "kq", "x", "p2"]), (Some("b"), &["k", "k", "p3"])]);
    result.unwrap();
    assert_eq!(changes(&results), [(0, 4, some("p2")), (1, 7, some("p3"))]);
    for (done, wanted) in
        [(4, Some((0, 3, None))), (3, Some((0, 2, some("p1")))), (2, Some((0, 1, some("p1")))), (1, None)]
    {
        unpublishable(&mut results, 0, done).unwrap();
        let found: Vec<_> = changes(&results).into_iter().filter(|change| change.0 == 0).collect();
        assert_eq!(found.first(), wanted.as_ref(), "{done} done");
        if let Some((_, row, _)) = wanted {
            assert!(results.rows_with_effects().contains(&row), "{done} done");
        }
    }
    assert!(results.rows_with_effects().is_sorted());
    unpublishable(&mut results, 1, 2).unwrap();
    assert_eq!(changes(&results), [], "the second row of the lane had not changed its state");
    unpublishable(&mut results, 0, 0).unwrap();
    assert_eq!(changes(&results), []);
}

/// The states of one lane take more memory than a call may keep, so only the newest is known.
#[test]
fn the_memory_of_earlier_states_is_limited() {
    let large = format!("pq{}", "v".repeat(3 << 20));
    let (result, mut results) =
        run(4 << 20, &[(None, &["pq0"]), (None, &[&large, &large, &large, "pq1", "pq2", "pq3"])]);
    result.unwrap();
    assert!(results.states.capacity() < 16 << 20, "{} bytes", results.states.capacity());
    assert_eq!(changes(&results), [(0, 0, some("pq0")), (1, 6, some("pq3"))]);
    unpublishable(&mut results, 1, 4).unwrap();
    assert_eq!(changes(&results)[1], (1, 4, some("pq1")), "states after the limit was reached are kept");
    let unknown = unpublishable(&mut results, 1, 3).unwrap_err();
    assert_eq!((unknown.lane, unknown.done), (1, 3));
    assert_eq!(changes(&results)[1], (1, 4, some("pq1")), "nothing was retracted");
    unpublishable(&mut results, 1, 0).unwrap();
    assert_eq!(changes(&results), [(0, 0, some("pq0"))]);
}
