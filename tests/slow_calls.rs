//! Promise: a call may take longer than `max.poll.interval.ms`. Neither a suspended nor a computing call costs the
//! membership: no partition changes its owner, and nothing is repeated.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::wait;

/// The shortest interval that the session timeout of the tests allows.
const POLL_INTERVAL_MS: usize = 3_000;

#[test]
fn a_call_that_waits_longer_than_the_poll_interval_costs_no_membership() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let millis = (POLL_INTERVAL_MS * 5 / 2).to_string();
    let slow = |partition: i32| {
        let record = Record::new(format!("slow-{partition}"), "v").with("sleep-ms", millis.as_str());
        record.with("emit", "").to(partition)
    };
    let quick = |number: i32| {
        let record = Record::new(format!("quick-{}", number % 10), "v").with("sleep-ms", "0");
        record.with("emit", "").to(number % 2)
    };
    let records: Vec<Record> = (0..2).map(slow).chain((0..100).map(quick)).collect();
    let report = run(&flow, "sleepy", records, |settings| settings);
    assert_eq!((report.outcomes, report.repeats), (102, [].into()));
}

/// Every worker thread computes. The CPU budget, which is longer than the interval, ends the call.
#[test]
fn a_call_that_computes_longer_than_the_poll_interval_costs_no_membership() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let spin = |partition: i32| Record::new(format!("spin-{partition}"), "spin").to(partition);
    let quick = |number: i32| Record::new(format!("quick-{}", number % 10), "done").to(number % 2);
    let records: Vec<Record> = (0..2).map(spin).chain((0..100).map(quick)).collect();
    let budget = format!("{}ms", POLL_INTERVAL_MS * 2);
    let report = run(&flow, "failing", records, |settings| {
        settings
            .set("runtime", "workers", 1)
            .set("handlers.t", "cpu_budget", budget.as_str())
            .set("handlers.t.retry", "max_attempts", 1)
            .set("handlers.t.retry", "on_exhausted", "dlq")
    });
    assert_eq!((report.outcomes, report.repeats), (100, [].into()));
    let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters);
    let reasons: Vec<&str> =
        dead_letters.iter().map(|dead_letter| dead_letter.text("keylane-reason")).collect();
    assert_eq!(reasons, ["cpu", "cpu"], "both computed until their budget was used");
}

/// Two instances with a partition each handle the records; the duration of the calls must not affect the group.
fn run(
    flow: &Flow<'_>,
    component: &str,
    records: Vec<Record>,
    change: impl Fn(Settings) -> Settings,
) -> check::Report {
    let settings = |client: &str| {
        change(
            flow.settings(&guest(component), client)
                .set("kafka.consumer", "max.poll.interval.ms", POLL_INTERVAL_MS)
                .set("handlers.t", "timeout", "60s"),
        )
    };
    let mut instances = ["one", "two"].map(|client| Keylane::run(&settings(client), &[]));
    flow.wait_for_members(&["one", "two"]);
    let released = |keylane: &Keylane| {
        keylane.lines().iter().filter(|line| line["message"] == "ownership ended").count()
    };
    let before = instances.each_ref().map(released);
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    flow.wait_until_committed();
    wait::until("the group to settle", wait::STATE_TIMEOUT, || {
        flow.members.state().is_settled(&["one", "two"], 2)
    });
    assert_eq!(instances.each_ref().map(released), before, "no partition is released");
    for keylane in &mut instances {
        let complains = |line: &serde_json::Value| line.to_string().contains("max.poll.interval.ms");
        assert!(!keylane.lines().iter().any(complains), "{}", keylane.tail());
        keylane.terminate();
        keylane.expect_exit(0);
    }
    let mut history = flow.history();
    let dead_letters = kafka::read_all(&flow.cluster.bootstrap(), &flow.dead_letters);
    history.inputs.retain(|input| {
        let position = (Some(i64::from(input.partition)), Some(input.offset));
        let of = |dead_letter: &kafka::Received| {
            (dead_letter.number("keylane-origin-partition"), dead_letter.number("keylane-origin-offset"))
        };
        !dead_letters.iter().any(|dead_letter| of(dead_letter) == position)
    });
    let report = check::check(&history);
    report.assert_clean();
    assert_eq!(report.ownerships.len(), 2, "one ownership of each partition: {report}");
    report
}
