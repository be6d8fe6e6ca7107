//! Promise: an offset that is no longer in the log is never skipped silently. With
//! `out_of_range = "fail"`, its partition stops and is reported, and the others continue. With
//! `"earliest"` and `"latest"`, the partition continues from that position, and the skipped offsets
//! are counted.

use std::collections::BTreeSet;
use std::ops::Range;

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;
use serde_json::Value;

/// Partition 0 has no records below this offset. The group has committed [`COMMITTED`].
const LOG_START: i64 = 50;
const COMMITTED: i64 = 20;
const END: i64 = 100;

#[test]
fn fail_stops_the_partition_by_name_and_the_others_continue() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = retained(cluster);
    let mut keylane = Keylane::run(&settings(&flow, "fail"), &[]);
    keylane.wait_for("the partition to be named", |line| names_the_stop(line, &flow, COMMITTED));
    send(&flow, 1, 100);
    wait::until("the other partition to be committed", wait::STATE_TIMEOUT, || {
        offset(&flow, 1) == Some(2 * END)
    });
    assert_eq!(offset(&flow, 0), Some(COMMITTED), "nothing is skipped");
    assert!(!keylane.has_ended(), "one of two partitions must continue{}", keylane.tail());
    keylane.terminate();
    keylane.expect_exit(1);
    assert_eq!(handled(&flow), positions(1, COMMITTED..2 * END));
}

/// A run with `--until-end` can't finish: every partition of the handler has stopped.
#[test]
fn fail_ends_a_run_that_has_nothing_else_to_read() {
    let Some(cluster) = kafka::shared() else { return };
    for arguments in [&[][..], &["--until-end"]] {
        let flow = Flow::new(cluster, 1, &[]);
        send(&flow, 0, END);
        cluster.admin().delete_records(&flow.input, 0, LOG_START);
        flow.members.commit(&flow.input, 0, COMMITTED, b"");
        let mut keylane = Keylane::run(&settings(&flow, "fail"), arguments);
        keylane.expect_exit(1);
        assert!(
            keylane.lines().iter().any(|line| names_the_stop(line, &flow, COMMITTED)),
            "{}",
            keylane.tail()
        );
        assert_eq!((handled(&flow), offset(&flow, 0)), ([].into(), Some(COMMITTED)));
    }
}

#[test]
fn earliest_and_latest_continue_and_count_the_skipped_offsets() {
    let Some(cluster) = kafka::shared() else { return };
    for (policy, resumes_at) in [("earliest", LOG_START), ("latest", END)] {
        let flow = retained(cluster);
        let mut keylane = Keylane::run(&settings(&flow, policy), &[]);
        let counted =
            keylane.wait_for("the skipped offsets to be counted", |line| reports_skipped_offsets(line, 0));
        assert_eq!(counted["count"], resumes_at - COMMITTED, "{policy}");
        wait::until("its start to be committed", wait::STATE_TIMEOUT, || {
            offset(&flow, 0) >= Some(resumes_at)
        });
        send(&flow, 0, 100);
        flow.wait_until_committed();
        keylane.terminate();
        keylane.expect_exit(0);
        let expected = &positions(0, resumes_at..2 * END) | &positions(1, COMMITTED..END);
        assert_eq!(handled(&flow), expected, "{policy}");
        assert!(
            !keylane.lines().iter().any(|line| reports_skipped_offsets(line, 1)),
            "{policy}: {}",
            keylane.tail()
        );
    }
}

/// The log is truncated while an instance reads it. The instance is frozen, and its next records
/// are deleted.
#[test]
fn a_log_that_is_truncated_while_it_is_read_is_treated_the_same() {
    let Some(cluster) = kafka::shared() else { return };
    for policy in ["fail", "earliest", "latest"] {
        let flow = Flow::new(cluster, 2, &[]);
        send(&flow, 0, END);
        send(&flow, 1, END);
        // The instance must still be a member when it is resumed.
        let settings = settings(&flow, policy).set("kafka.client", "session.timeout.ms", 30_000);
        let mut keylane = Keylane::run(&settings, &[]);
        flow.wait_until_committed();
        keylane.freeze();
        // The pending fetch returns the first record; the records after it are not fetched yet.
        send(&flow, 0, 1);
        send(&flow, 0, END - 1);
        cluster.admin().delete_records(&flow.input, 0, 2 * END - 10);
        send(&flow, 1, END);
        keylane.thaw();
        let read_up_to = wait_for_truncation_report(&mut keylane, &flow, policy);
        send(&flow, 0, 10);
        let resumes_at = match policy {
            "fail" => 2 * END + 10,
            "earliest" => 2 * END - 10,
            _ => 2 * END,
        };
        let late = positions(0, resumes_at..2 * END + 10);
        let expected = &(&positions(0, 0..read_up_to) | &late) | &positions(1, 0..2 * END);
        wait::until("everything else to be done", wait::STATE_TIMEOUT, || {
            expected.is_subset(&handled(&flow))
        });
        keylane.terminate();
        keylane.expect_exit(i32::from(policy == "fail"));
        assert_eq!(handled(&flow), expected, "{policy}");
        if policy == "fail" {
            assert_eq!(offset(&flow, 0), Some(read_up_to), "nothing is skipped");
        }
    }
}

/// Waits until the truncation of partition 0 is reported. Returns the offset up to which it was read.
fn wait_for_truncation_report(keylane: &mut Keylane, flow: &Flow<'_>, policy: &str) -> i64 {
    if policy == "fail" {
        // One record may have been fetched when the instance was frozen.
        let stop = |line: &Value| [END, END + 1].iter().any(|at| names_the_stop(line, flow, *at));
        let line = keylane.wait_for("the partition to be named", stop);
        return if names_the_stop(&line, flow, END) { END } else { END + 1 };
    }
    let counted =
        keylane.wait_for("the skipped offsets to be counted", |line| reports_skipped_offsets(line, 0));
    let count = counted.get("count").and_then(Value::as_i64).expect("a number");
    let log_start = if policy == "earliest" { 2 * END - 10 } else { 2 * END };
    let read_up_to = log_start - count;
    assert!([END, END + 1].contains(&read_up_to), "{policy}: {count} skipped");
    read_up_to
}

/// Two partitions with [`END`] events each, of which the group has committed [`COMMITTED`]; the records of partition 0
/// below [`LOG_START`] are deleted.
fn retained(cluster: &kafka::Cluster) -> Flow<'_> {
    let flow = Flow::new(cluster, 2, &[]);
    for partition in 0..2 {
        send(&flow, partition, END);
        flow.members.commit(&flow.input, partition, COMMITTED, b"");
    }
    cluster.admin().delete_records(&flow.input, 0, LOG_START);
    flow
}

fn settings(flow: &Flow<'_>, policy: &str) -> Settings {
    flow.settings(&guest("echo"), "reader").set("handlers.t", "out_of_range", policy)
}

fn send(flow: &Flow<'_>, partition: i32, events: i64) {
    let event = |number: i64| Record::new(format!("key-{}", number % 7), "v").to(partition);
    flow.producer().send_all(&flow.input, (0..events).map(event)).expect("acknowledged");
}

fn names_the_stop(line: &Value, flow: &Flow<'_>, offset: i64) -> bool {
    let text = line.to_string();
    let stopped = format!("topic {} partition 0 stopped: offset {offset} ", flow.input);
    text.contains(&stopped) && text.contains("`out_of_range`")
}

fn reports_skipped_offsets(line: &Value, partition: i32) -> bool {
    line["level"] == "WARN" && line["partition"] == partition && line["count"].is_number()
}

fn offset(flow: &Flow<'_>, partition: usize) -> Option<i64> {
    flow.committed().get(partition).and_then(|committed| committed.offset)
}

fn positions(partition: i32, offsets: Range<i64>) -> BTreeSet<(i32, i64)> {
    offsets.map(|offset| (partition, offset)).collect()
}

/// Partition and offset of every event with an output; none has two.
fn handled(flow: &Flow<'_>) -> BTreeSet<(i32, i64)> {
    let outputs = kafka::read_all(&flow.cluster.bootstrap(), &flow.output);
    let origin =
        |record| check::AttributedOutput::of(record, &flow.input).expect("every output names its origin");
    let positions: BTreeSet<(i32, i64)> =
        outputs.iter().map(origin).map(|outcome| (outcome.partition, outcome.offset)).collect();
    assert_eq!(positions.len(), outputs.len(), "no event is done twice");
    positions
}
