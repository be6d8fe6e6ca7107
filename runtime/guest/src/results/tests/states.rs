//! States in results of a `batch-handler`.

use super::*;

const LIMITS: StateLimits = StateLimits { max_bytes: 8 };

/// The result of [`valid`] for a handler with state. Only the second lane changes its state.
fn with_states(states: &[(u32, Option<&str>)]) -> wit::Results {
    let values = column(&states.iter().map(|(_, state)| *state).collect::<Vec<_>>());
    let lanes = states.iter().map(|(lane, _)| *lane).collect();
    wit::Results { states: Some(wit::StateChanges { lanes, values }), ..valid() }
}

fn accept(result: wit::Results) -> Results {
    let mut results = Results::new(OUTPUT_BYTES);
    results.accept(&LANES, &known(), Some(&LIMITS), result).unwrap();
    results
}

fn change(lane: u32, row: u32, state: Option<&str>) -> StateChange<'_> {
    StateChange { lane, row, state: state.map(str::as_bytes) }
}

fn changes(results: &Results) -> Vec<StateChange<'_>> {
    results.state_changes().collect()
}

#[test]
fn an_empty_state_is_not_a_deleted_one_and_the_row_is_the_last_done_one() {
    let results = accept(with_states(&[(0, Some("")), (1, None), (2, Some("three"))]));
    assert_eq!(changes(&results), [change(0, 1, Some("")), change(1, 2, None), change(2, 5, Some("three"))]);
    // Rows 0, 2 and 5 have outputs.
    assert_eq!(results.rows_with_effects(), [0, 1, 2, 5]);
}

#[test]
fn a_result_may_change_no_state() {
    for result in [valid(), with_states(&[])] {
        let results = accept(result);
        assert_eq!(changes(&results), []);
        assert_eq!(results.rows_with_effects(), [0, 2, 5]);
    }
}

#[test]
fn a_state_counts_without_any_output() {
    let results = accept(wit::Results { outputs: None, ..with_states(&[(0, Some("a")), (2, None)]) });
    assert_eq!(results.rows_with_effects(), [1, 5]);
    assert_eq!(changes(&results), [change(0, 1, Some("a")), change(2, 5, None)]);
}

#[test]
fn states_that_violate_the_contract_are_refused_with_the_name_of_the_field() {
    type Corrupt = fn(&mut wit::StateChanges);
    let cases: [(Corrupt, &str); 9] = [
        (|s| s.values.lengths.truncate(1), "result `states.values.lengths`: 1 entries, expected 2"),
        (|s| s.lanes.push(2), "result `states.values.lengths`: 2 entries, expected 3"),
        (|s| s.values.lengths[0] = -2, "result `states.values.lengths`: -2 is not a valid length"),
        (|s| s.values.data.push(0), "result `states.values.data`: 5 bytes, the lengths add up to 4"),
        (
            |s| s.values.lengths[1] = i32::MAX,
            "result `states.values.data`: 4 bytes, the lengths add up to 2147483649",
        ),
        (|s| s.lanes[1] = 3, "result `states.lanes`: lane 3 does not exist, there are 3 lanes"),
        (
            |s| s.lanes[1] = u32::MAX,
            "result `states.lanes`: lane 4294967295 does not exist, there are 3 lanes",
        ),
        (|s| s.lanes[1] = 0, "result `states.lanes`: lane 0 is out of order"),
        (|s| s.lanes = vec![2, 1], "result `states.lanes`: lane 1 is out of order"),
    ];
    for (corrupt, message) in cases {
        let mut result = with_states(&[(0, Some("s0")), (1, Some("s1"))]);
        corrupt(result.states.as_mut().unwrap());
        let refused = Results::new(OUTPUT_BYTES).accept(&LANES, &known(), Some(&LIMITS), result);
        assert_eq!(refused, Err(InvalidResult { fault: Fault::Contract, message: message.to_owned() }));
    }
}

#[test]
fn a_lane_without_a_done_row_can_have_no_new_state() {
    for state in [Some("s1"), Some(""), None] {
        let mut result = with_states(&[(1, state)]);
        result.done[1] = 0;
        let refused = Results::new(OUTPUT_BYTES).accept(&LANES, &known(), Some(&LIMITS), result);
        let message = "result `states.lanes`: lane 1 has a new state but no done row".to_owned();
        assert_eq!(refused, Err(InvalidResult { fault: Fault::Contract, message }));
    }
}

#[test]
fn a_state_up_to_the_limit_is_taken_and_a_larger_one_exceeds_a_limit() {
    let results = accept(with_states(&[(2, Some("12345678"))]));
    assert_eq!(changes(&results), [change(2, 5, Some("12345678"))]);

    let result = with_states(&[(0, Some("a")), (2, Some("123456789"))]);
    let refused = Results::new(OUTPUT_BYTES).accept(&LANES, &known(), Some(&LIMITS), result);
    let message = "the new state of lane 2 has 9 bytes, the limit is 8: keep less, or set `state.max_value`";
    assert_eq!(refused, Err(InvalidResult { fault: Fault::Limit, message: message.to_owned() }));
}

#[test]
fn a_lane_that_is_retracted_from_its_first_row_on_has_no_new_state() {
    let mut results = accept(with_states(&[(0, Some("s0")), (1, Some("s1")), (2, Some("s2"))]));
    for lane in [1, 0] {
        results.retract(lane, 0, Verdict::Unpublishable, "too large".to_owned()).unwrap();
    }
    assert_eq!(changes(&results), [change(2, 5, Some("s2"))]);
    // Nothing is retracted if as many rows are done.
    results.retract(2, 1, Verdict::Unpublishable, "too large".to_owned()).unwrap();
    assert_eq!(changes(&results), [change(2, 5, Some("s2"))]);
}

/// Even a lane whose state is the same at its end may have had another one in between.
#[test]
fn a_lane_can_not_be_cut_between_done_rows() {
    for states in [&[(0, Some("s0"))][..], &[(2, None)], &[]] {
        let mut results = accept(with_states(states));
        let before = changes(&results).len();
        let unknown = results.retract(0, 1, Verdict::Unpublishable, "too large".to_owned()).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "row 1 of lane 0 is not done, and the state before it is unknown: too large"
        );
        assert_eq!(results.lane_ends()[0].done, 2, "nothing was retracted");
        assert_eq!(changes(&results).len(), before);
    }
}

#[test]
fn a_call_fails_if_its_own_check_would_cut_a_lane_between_done_rows() {
    let with = |states: Option<wit::StateChanges>, limits: Option<&StateLimits>| {
        let mut results = Results::new(OUTPUT_BYTES);
        let result = wit::Results { states, ..with_outputs(&[0, 3], &[0, 1], &[None, None]) };
        let accepted = results.accept(&LANES, &known(), limits, result);
        accepted.map(|()| results)
    };
    let cut = with(None, None).unwrap();
    assert_eq!(cut.lane_ends()[1].done, 1, "without state, the lane ends before the row");
    let refused = with(with_states(&[(2, None)]).states, Some(&LIMITS)).unwrap_err();
    let message = "row 1 of lane 1 is not done, and the state before it is unknown: the output `nowhere` is not \
                   configured: the handler has `other`, `totals`";
    assert_eq!(refused, InvalidResult { fault: Fault::Limit, message: message.to_owned() });
}

#[test]
fn a_first_row_that_is_retracted_by_its_own_check_drops_the_new_state() {
    let states = with_states(&[(1, Some("s1")), (2, Some("s2"))]).states;
    let result = wit::Results { states, ..with_outputs(&[2, 5], &[1, 0], &[None, None]) };
    let results = accept(result);
    assert_eq!(results.lane_ends()[1], LaneEnd { done: 0, verdict: Some(Verdict::Unpublishable) });
    assert_eq!(changes(&results), [change(2, 5, Some("s2"))]);
}

#[test]
fn the_states_of_a_call_are_discarded_before_the_next() {
    let mut results = accept(with_states(&[(0, Some("s0")), (2, None)]));
    results.clear();
    assert_eq!(changes(&results), []);
    results.accept(&LANES, &known(), None, valid()).unwrap();
    assert_eq!(changes(&results), []);
    results.retract(0, 1, Verdict::Unpublishable, "too large".to_owned()).unwrap();
    assert_eq!(results.lane_ends()[0].done, 1, "without state, a lane can be cut anywhere");
}

#[test]
fn the_buffers_of_states_are_reused_unless_they_are_large() {
    let limits = StateLimits { max_bytes: usize::MAX };
    let mut results = Results::new(OUTPUT_BYTES);
    let mut bytes = |state: &str| {
        results.clear();
        results.accept(&LANES, &known(), Some(&limits), with_states(&[(0, Some(state))])).unwrap();
        changes(&results)[0].state.map(|state| (state.as_ptr(), state.len())).unwrap()
    };
    let first = bytes(&"a".repeat(1_000));
    assert_eq!(bytes(&"b".repeat(1_000)), first);
    bytes(&"c".repeat(4 << 20));
    results.clear();
    assert!(results.states.capacity() <= KEPT_BYTES, "{} bytes", results.states.capacity());
}

/// A call through the engine: the guest returns the states that it gets.
#[test]
fn states_reach_a_batch_handler_and_come_back() {
    let echo = "
        (i32.store (i32.const 1024) (i32.load offset=16 (local.get $batch)))
        (i32.store (i32.const 1028) (i32.load offset=20 (local.get $batch)))
        (i32.store8 (i32.const 1144) (i32.load8_u offset=124 (local.get $batch)))
        (i32.store (i32.const 1148) (i32.const 3072)) ;; the number of the only lane, 0
        (i32.store (i32.const 1152) (i32.const 1))
        (i64.store (i32.const 1156) (i64.load offset=128 (local.get $batch)))
        (i64.store (i32.const 1164) (i64.load offset=136 (local.get $batch)))
        (i32.const 1024)";
    let engine = testing::engine();
    let wasm = testing::batch_handler(echo);
    let handler = testing::handler_with(&engine, &wasm, testing::with_state(8));
    for state in [None, Some(""), Some("old")] {
        let mut batch = batch::Batch::new();
        testing::fill(&mut batch, &[&["a", "b"]]);
        batch.push_state(state.map(str::as_bytes));
        let (result, results) = testing::call_here(&handler, &batch);
        result.unwrap();
        assert_eq!(changes(&results), [change(0, 1, state)]);
    }
    let mut batch = batch::Batch::new();
    testing::fill(&mut batch, &[&["a", "b"]]);
    batch.push_state(Some(b"123456789"));
    let (result, results) = testing::call_here(&handler, &batch);
    assert_eq!(result.unwrap_err().fault, Fault::Limit);
    assert!(results.lane_ends().is_empty(), "nothing stays");

    let stateless = testing::handler(&engine, &testing::batch_handler(testing::ALL_DONE), 5_000);
    testing::fill(&mut batch, &[&["a", "b"]]);
    testing::call_here(&stateless, &batch).0.unwrap();
}

#[test]
#[should_panic(expected = "a call of 2 lanes has 1 states, expected 2")]
fn a_call_without_the_state_of_every_lane_is_a_bug() {
    let handler = testing::handler_with(&testing::engine(), &testing::keyed(), testing::with_state(8));
    let mut batch = batch::Batch::new();
    testing::fill(&mut batch, &[&["a"], &["b"]]);
    batch.push_state(None);
    let (_, _) = testing::call_here(&handler, &batch);
}
