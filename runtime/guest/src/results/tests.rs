mod keyed;
mod states;

use keylane_core::{Fault, LaneEnd, Verdict};

use super::limits::OUTPUTS_MAX;
use super::*;
use crate::testing;

const KNOWN: [&str; 2] = ["other", "totals"];

fn known() -> Vec<String> {
    KNOWN.map(str::to_owned).to_vec()
}

fn column(entries: &[Option<&str>]) -> wit::BytesColumn {
    let mut column = wit::BytesColumn { lengths: Vec::new(), data: Vec::new() };
    for entry in entries {
        batch::push(&mut column, entry.map(str::as_bytes));
    }
    column
}

/// Lanes of two, three and one rows; the second stops at its second row. Outputs of rows 0, 2, 3 (not done)
/// and 5.
const LANES: [u32; 3] = [2, 3, 1];

fn valid() -> wit::Results {
    wit::Results {
        done: vec![2, 1, 1],
        failures: vec![wit::LaneFailure { lane: 1, failure: wit::Failure::Reject("no key".to_owned()) }],
        outputs: Some(wit::OutputColumns {
            target_names: vec!["totals".to_owned(), "other".to_owned()],
            causes: vec![0, 2, 2, 3, 5],
            targets: vec![0, 0, 1, 0, 0],
            keys: column(&[Some("k0"), None, Some(""), Some("k3"), Some("k5")]),
            values: column(&[Some("v0"), Some("v2"), None, Some("v3"), Some("v5")]),
            headers: Some(wit::HeaderColumns {
                counts: vec![1, 0, 2, 0, 0],
                names: column(&[Some("a"), Some("keylane-origin"), Some("b")]),
                values: column(&[None, Some("forged"), Some("2")]),
            }),
        }),
        states: None,
    }
}

type Seen = (u32, u32, Option<String>, Option<String>, Vec<(String, Option<String>)>);

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn seen(results: &Results) -> Vec<Seen> {
    let headers = |output: GuestOutput<'_>| {
        output.headers().map(|(name, value)| (name.to_owned(), text(value))).collect::<Vec<_>>()
    };
    let row = |output: GuestOutput<'_>| {
        (output.row, output.target, text(output.key), text(output.value), headers(output))
    };
    results.outputs().map(row).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_valid_result_is_taken_and_outputs_of_rows_that_are_not_done_are_dropped() {
    let mut results = Results::new(OUTPUT_BYTES);
    results.accept(&LANES, &known(), None, valid()).unwrap();
    let done = |done| LaneEnd { done, verdict: None };
    assert_eq!(results.lane_ends(), [done(2), LaneEnd { done: 1, verdict: Some(Verdict::Reject) }, done(1)]);
    assert_eq!(
        results.stopped_lanes(),
        [StoppedLane { lane: 1, verdict: Verdict::Reject, reason: "no key".to_owned() }]
    );
    assert_eq!(results.rows_with_effects(), [0, 2, 5]);
    assert_eq!(results.reserved_headers(), 1);
    assert_eq!(
        seen(&results),
        [
            (0, 1, some("k0"), some("v0"), vec![("a".to_owned(), None)]),
            (2, 1, None, some("v2"), vec![]),
            (2, 0, some(""), None, vec![("b".to_owned(), some("2"))]),
            (5, 1, some("k5"), some("v5"), vec![]),
        ]
    );
}

#[test]
fn a_row_can_be_retracted_with_the_rows_behind_it() {
    let mut results = Results::new(OUTPUT_BYTES);
    results.accept(&LANES, &known(), None, valid()).unwrap();
    for (lane, done) in [(0, 1), (1, 0), (2, 1)] {
        let reason = format!("row {done} is too large");
        results.retract(lane, done, Verdict::Unpublishable, reason).unwrap();
    }
    let unpublishable = |done| LaneEnd { done, verdict: Some(Verdict::Unpublishable) };
    let done = LaneEnd { done: 1, verdict: None };
    assert_eq!(
        results.lane_ends(),
        [unpublishable(1), unpublishable(0), done],
        "of the last lane only one is done"
    );
    let reasons: Vec<_> =
        results.stopped_lanes().iter().map(|stopped| (stopped.lane, stopped.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [(0, "row 1 is too large"), (1, "row 0 is too large")],
        "the guest's own reason is replaced"
    );
}

fn outputs(result: &mut wit::Results) -> &mut wit::OutputColumns {
    result.outputs.as_mut().unwrap()
}

fn headers(result: &mut wit::Results) -> &mut wit::HeaderColumns {
    outputs(result).headers.as_mut().unwrap()
}

fn failure(lane: u32) -> wit::LaneFailure {
    wit::LaneFailure { lane, failure: wit::Failure::Reject(String::new()) }
}

fn big(outputs_of_one_row: usize, bytes: usize) -> wit::OutputColumns {
    let value = "v".repeat(bytes);
    wit::OutputColumns {
        target_names: vec!["totals".to_owned()],
        causes: vec![0; outputs_of_one_row],
        targets: vec![0; outputs_of_one_row],
        keys: column(&vec![None; outputs_of_one_row]),
        values: column(&vec![Some(value.as_str()); outputs_of_one_row]),
        headers: None,
    }
}

#[test]
fn a_result_that_violates_the_contract_is_refused_with_the_name_of_the_field() {
    type Corrupt = fn(&mut wit::Results);
    let cases: [(Corrupt, &str); 21] = [
        (|r| r.done.truncate(2), "result `done`: 2 entries for 3 lanes"),
        (|r| r.done[0] = 3, "result `done`: lane 0 has 2 rows, 3 are done"),
        (|r| r.failures.clear(), "result `failures`: lane 1 is done up to row 1 of 3 but has no failure"),
        (|r| r.done[1] = 3, "result `failures`: all rows of lane 1 are done but it has a failure"),
        (|r| r.failures.push(failure(3)), "result `failures`: lane 3 does not exist or is out of order"),
        (
            |r| {
                r.done[2] = 0;
                r.failures.insert(0, failure(2));
            },
            "result `failures`: lane 1 is done up to row 1 of 3 but has no failure",
        ),
        (|r| r.failures.push(failure(1)), "result `failures`: lane 1 does not exist or is out of order"),
        (|r| outputs(r).targets.truncate(4), "result `outputs.targets`: 4 entries, expected 5"),
        (|r| outputs(r).keys.lengths.push(0), "result `outputs.keys.lengths`: 6 entries, expected 5"),
        (|r| outputs(r).keys.lengths[0] = -2, "result `outputs.keys.lengths`: -2 is not a valid length"),
        (|r| outputs(r).keys.data.push(0), "result `outputs.keys.data`: 7 bytes, the lengths add up to 6"),
        (
            |r| outputs(r).values.lengths[0] = i32::MAX,
            "result `outputs.values.data`: 8 bytes, the lengths add up to 2147483653",
        ),
        (
            |r| outputs(r).values.lengths[4] = -1,
            "result `outputs.values.data`: 8 bytes, the lengths add up to 6",
        ),
        (|r| outputs(r).causes[1] = 3, "result `outputs.causes`: row 2 comes after a higher row"),
        (|r| outputs(r).causes[4] = 6, "result `outputs.causes`: row 6 does not exist, there are 6 rows"),
        (
            |r| outputs(r).targets[4] = 2,
            "result `outputs.targets`: index 2 is out of range, there are 2 target names",
        ),
        (|r| headers(r).counts.truncate(4), "result `outputs.headers.counts`: 4 entries, expected 5"),
        (
            |r| headers(r).counts[0] = u32::MAX,
            "result `outputs.headers.counts`: the counts add up to 4294967297, but there are 3 names",
        ),
        (
            |r| headers(r).names = column(&[Some("a"), None, Some("b")]),
            "result `outputs.headers.names`: a header without a name",
        ),
        (|r| headers(r).names.data[0] = 0xff, "result `outputs.headers.names`: `\u{fffd}` is not UTF-8"),
        (
            |r| {
                r.states = Some(wit::StateChanges { lanes: vec![], values: column(&[]) });
            },
            "result `states`: no state is configured for this handler",
        ),
    ];
    for (corrupt, message) in cases {
        let mut result = valid();
        corrupt(&mut result);
        let refused = Results::new(OUTPUT_BYTES).accept(&LANES, &known(), None, result);
        assert_eq!(refused, Err(InvalidResult { fault: Fault::Contract, message: message.to_owned() }));
    }
}

#[test]
fn outputs_up_to_the_limits_are_taken() {
    for (outputs, bytes) in [(OUTPUTS_MAX, 0), (4, OUTPUT_BYTES)] {
        let mut result = valid();
        result.outputs = Some(big(outputs, bytes));
        let mut results = Results::new(OUTPUT_BYTES);
        results.accept(&LANES, &known(), None, result).unwrap();
        assert_eq!(results.outputs().count(), outputs);
        assert_eq!(results.rows_with_effects(), [0]);
    }
}

/// Returns a result for lanes of two, three and one rows, all done.
fn with_outputs(causes: &[u32], targets: &[u32], values: &[Option<&str>]) -> wit::Results {
    let names = ["totals", "nowhere"].map(str::to_owned);
    wit::Results {
        done: LANES.to_vec(),
        failures: vec![],
        outputs: Some(wit::OutputColumns {
            target_names: names.into(),
            causes: causes.to_vec(),
            targets: targets.to_vec(),
            keys: column(&vec![None; causes.len()]),
            values: column(values),
            headers: None,
        }),
        states: None,
    }
}

/// Returns each stopped lane with its number of done rows and the reason.
fn retracted(results: &Results) -> Vec<(u32, u32, &str)> {
    let stopped_lanes = results.stopped_lanes().iter();
    stopped_lanes
        .map(|stopped| {
            let end = results.lane_ends()[stopped.lane as usize];
            assert_eq!(end.verdict, Some(Verdict::Unpublishable));
            (stopped.lane, end.done, stopped.reason.as_str())
        })
        .collect()
}

#[test]
fn a_row_with_an_unknown_target_is_retracted_and_the_others_stay() {
    let mut results = Results::new(OUTPUT_BYTES);
    // The second output of row 3 has an unknown target, and so has the output of row 5, the first of its lane.
    let (causes, targets) = ([0, 2, 3, 3, 4, 5], [0, 0, 0, 1, 0, 1]);
    let values = ["v0", "v2", "v3", "v3", "v4", "v5"].map(Some);
    results.accept(&LANES, &known(), None, with_outputs(&causes, &targets, &values)).unwrap();
    let reason = "the output `nowhere` is not configured: the handler has `other`, `totals`";
    assert_eq!(retracted(&results), [(1, 1, reason), (2, 0, reason)]);
    assert_eq!(results.rows_with_effects(), [0, 2]);
    let values: Vec<_> = seen(&results).into_iter().map(|output| output.3).collect();
    assert_eq!(values, [some("v0"), some("v2")]);

    results.clear();
    results.accept(&LANES, &[], None, with_outputs(&[4], &[0], &[Some("v")])).unwrap();
    let reason = "the output `totals` is not configured: the handler has no outputs";
    assert_eq!(retracted(&results), [(1, 2, reason)]);
}

#[test]
fn a_row_that_is_not_done_may_name_an_unknown_target() {
    let mut results = Results::new(OUTPUT_BYTES);
    let result = wit::Results {
        done: vec![2, 0, 1],
        failures: vec![failure(1)],
        ..with_outputs(&[2, 5], &[1, 0], &[Some("v2"), Some("v5")])
    };
    results.accept(&LANES, &known(), None, result).unwrap();
    assert_eq!(results.stopped_lanes().len(), 1, "the guest's own");
    assert_eq!(results.stopped_lanes()[0].verdict, Verdict::Reject);
    assert_eq!(results.rows_with_effects(), [5]);
}

#[test]
fn a_row_that_exceeds_a_limit_is_retracted_with_the_limit() {
    let rows = |outputs| with_outputs(&vec![3; outputs], &vec![0; outputs], &vec![None; outputs]);
    let sized = |count: usize, bytes: usize| {
        let mut result = rows(count);
        let value = "v".repeat(bytes);
        outputs(&mut result).values = column(&vec![Some(value.as_str()); count]);
        result
    };
    for (result, max_output_bytes, reason) in [
        (rows(OUTPUTS_MAX + 1), OUTPUT_BYTES, "the event has more than 1000 outputs"),
        (
            sized(1, OUTPUT_BYTES + 1),
            OUTPUT_BYTES,
            "the output to `totals` has 2097153 bytes, the limit is 2097152: emit less, or set \
             `max_output_bytes`",
        ),
        (
            sized(1, 11),
            10,
            "the output to `totals` has 11 bytes, the limit is 10: emit less, or set `max_output_bytes`",
        ),
        (
            sized(9, OUTPUT_BYTES),
            OUTPUT_BYTES,
            "the outputs of the event have more than 8388608 bytes: emit less",
        ),
    ] {
        let mut results = Results::new(max_output_bytes);
        results.accept(&LANES, &known(), None, result).unwrap();
        assert_eq!(retracted(&results), [(1, 1, reason)]);
        assert_eq!(results.outputs().count(), 0);
    }
}

/// Neither a very long name nor the outputs that refer to it are copied.
#[test]
fn unknown_target_names_cost_no_memory() {
    let lanes = vec![1; 2_000];
    let name = "x".repeat(1 << 20);
    let result = wit::Results {
        done: lanes.clone(),
        failures: vec![],
        outputs: Some(wit::OutputColumns {
            target_names: vec![name, "totals".to_owned()],
            causes: (0..2_000).flat_map(|row| [row; 500]).collect(),
            targets: (0..2_000).flat_map(|row| [u32::from(row % 2 == 0); 500]).collect(),
            keys: column(&vec![None; 1_000_000]),
            values: column(&vec![None; 1_000_000]),
            headers: None,
        }),
        states: None,
    };
    let mut results = Results::new(OUTPUT_BYTES);
    results.accept(&lanes, &known(), None, result).unwrap();
    assert_eq!(results.stopped_lanes().len(), 1_000);
    let reason_bytes: usize = results.stopped_lanes().iter().map(|stopped| stopped.reason.capacity()).sum();
    assert!(reason_bytes < 1_000 * 1_024, "{reason_bytes} bytes");
    assert_eq!(results.outputs().count(), 500_000);
    assert_eq!(results.outputs.causes.len(), 500_000, "the outputs of other rows are dropped");
    let stopped = &results.stopped_lanes()[0];
    assert_eq!(stopped.lane, 1);
    assert!(stopped.reason.starts_with("the output `xxxx"), "{}", stopped.reason);
}

#[test]
fn one_output_may_be_larger_than_the_default_limit_of_an_event() {
    let mut results = Results::new(9 << 20);
    let value = "v".repeat(9 << 20);
    results.accept(&LANES, &known(), None, with_outputs(&[0], &[0], &[Some(&value)])).unwrap();
    assert_eq!(results.rows_with_effects(), [0]);
}

#[test]
fn a_reason_is_truncated_between_characters() {
    let mut result = valid();
    let retry = wit::Failure::Retry(super::super::bindings::batch::keylane::handler::types::Retry {
        reason: "ä".repeat(600),
        after_ms: Some(5),
    });
    result.failures = vec![wit::LaneFailure { lane: 1, failure: retry }];
    let mut results = Results::new(OUTPUT_BYTES);
    results.accept(&LANES, &known(), None, result).unwrap();
    let stopped = &results.stopped_lanes()[0];
    assert_eq!(stopped.verdict, Verdict::Retry { after: Some(Duration::from_millis(5)) });
    assert_eq!(stopped.reason, "ä".repeat(512));
}

#[test]
fn rows_of_a_handler_get_the_same_form() {
    let header = |name: &str| single::HeaderResult { name: name.to_owned(), value: None };
    let output = |value: &str, headers: &[&str]| single::Output {
        target: "totals".to_owned(),
        key: None,
        value: Some(value.into()),
        headers: headers.iter().map(|name| header(name)).collect(),
    };
    let mut results = Results::new(OUTPUT_BYTES);
    results.push_row(0, &known(), &[output("a", &[])]).unwrap();
    results.push_row(1, &known(), &[]).unwrap();
    results.push_row(2, &known(), &[output("b", &["x", "keylane-y"]), output("c", &[])]).unwrap();
    results.end_lane(0, 3, None);
    assert_eq!(results.rows_with_effects(), [0, 2]);
    assert_eq!(results.reserved_headers(), 1);
    assert_eq!(
        seen(&results),
        [
            (0, 1, None, some("a"), vec![]),
            (2, 1, None, some("b"), vec![("x".to_owned(), None)]),
            (2, 1, None, some("c"), vec![]),
        ]
    );
}

#[test]
fn an_unreadable_result_is_a_contract_fault() {
    let engine = testing::engine();
    let cases = [
        ("(i32.const -4)", "the result can't be read: pointer out of bounds of memory"),
        ("(i32.const 1025)", "the result can't be read: return pointer not aligned"),
        (
            "(i32.store (i32.const 1024) (i32.const 65532)) (i32.store (i32.const 1028) (i32.const 100))
             (i32.const 1024)",
            "the result can't be read: list pointer/length out of bounds of memory",
        ),
        ("(i32.const 1024)", "result `done`: 0 entries for 1 lanes"),
    ];
    for (body, message) in cases {
        let handler = testing::handler(&engine, &testing::batch_handler(body), 5_000);
        let mut batch = super::super::Batch::new();
        testing::fill(&mut batch, &[&["v"]]);
        let (result, results) = testing::call_here(&handler, &batch);
        let failure = result.unwrap_err();
        assert_eq!((failure.fault, failure.message.as_str()), (Fault::Contract, message));
        assert!(results.lane_ends().is_empty());
    }
}
