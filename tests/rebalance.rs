//! Promise: a rebalance without a failure repeats nothing, whatever the assignor, and a partition that keeps its owner
//! is not affected.

use std::collections::VecDeque;

use keylane_tests::check::{self, claims};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Committed, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::progress::Progress;
use keylane_tests::skip::print_line;
use keylane_tests::wait;

const PARTITIONS: i32 = 6;
const ROUNDS: usize = 3;
const BACKLOG: usize = 3_000;

#[test]
fn cooperative_repeats_nothing() {
    joins_and_leaves_repeat_nothing("cooperative-sticky");
}

#[test]
fn range_repeats_nothing() {
    joins_and_leaves_repeat_nothing("range");
}

/// A second instance joins and leaves under load, with calls of 50 ms and a completed set at every transfer.
fn joins_and_leaves_repeat_nothing(assignor: &str) {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut load = Load::new(&flow);
    let mut staying = Keylane::run(&settings(&flow, "staying", assignor), &[]);
    flow.wait_for_members(&["staying"]);
    let mut transfers = 0;
    for _ in 0..ROUNDS {
        load.until_busy();
        let mut visiting = Keylane::run(&settings(&flow, "visiting", assignor), &[]);
        transfers += load.until_settled(&flow, &["staying", "visiting"]);
        load.until_busy();
        visiting.terminate();
        visiting.expect_exit(0);
        transfers += load.until_settled(&flow, &["staying"]);
    }
    load.finish();
    flow.wait_until_committed();
    staying.terminate();
    staying.expect_exit(0);

    let report = check::check(&flow.history());
    print_line(&format!(
        "{assignor}: {} events, {transfers} partitions transferred with a completed set: {report}",
        load.produced
    ));
    report.assert_clean();
    let ownerships = report.ownerships.len();
    assert!(
        ownerships > usize::try_from(PARTITIONS).expect("few partitions"),
        "no partition changed its owner: {ownerships} ownerships"
    );
    assert!(transfers > 0, "no transfer found a completed set: the run proves too little");
    assert_eq!(report.repeats, [].into(), "a rebalance without a failure repeats nothing");
}

/// A partition without traffic keeps its owner through twenty rebalances. Events that arrive
/// meanwhile are handled once.
#[test]
fn an_idle_kept_partition_misses_nothing() {
    const REBALANCES: usize = 20;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let producer = flow.producer();
    let mut progress = Progress::of(&flow);
    let mut produced = 0;
    let mut produce = |count: usize| {
        let records = (produced..produced + count).map(|number| quick(number).to(i32::from(number % 2 == 0)));
        producer.send_all(&flow.input, records).expect("acknowledged");
        produced += count;
        produced
    };
    let staying = Keylane::run(&settings(&flow, "staying", "cooperative-sticky"), &[]);
    flow.wait_for_members(&["staying"]);
    for round in 0..REBALANCES / 2 {
        let mut visiting = Keylane::run(&settings(&flow, "visiting", "cooperative-sticky"), &[]);
        // One record while the rebalance may be in progress, and one after it.
        produce(2 * (round % 2));
        flow.wait_for_members(&["staying", "visiting"]);
        let kept = flow.members.state().partitions_of("staying");
        assert_eq!(kept.len(), 1, "one of two partitions must keep its owner: {kept:?}");
        produce(2);
        visiting.terminate();
        visiting.expect_exit(0);
        flow.wait_for_members(&["staying"]);
        let produced = produce(2);
        wait::until("all produced events to have an output", wait::STATE_TIMEOUT, || {
            progress.advance();
            progress.done() == produced
        });
    }
    flow.wait_until_committed();
    drop(staying);
    let report = check::check(&flow.history());
    print_line(&format!("{REBALANCES} rebalances: {report}"));
    report.assert_clean();
    assert_eq!(report.repeats, [].into());
}

/// Processes are replaced one by one. Those with the new assignor do not end, but wait for the last
/// process with the old one.
#[test]
fn a_rolling_change_of_the_assignor_waits_for_the_old_members() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let mut old = Keylane::run(&settings(&flow, "old", "range"), &[]);
    flow.wait_for_members(&["old"]);
    let mut new = Keylane::run(&settings(&flow, "new", "cooperative-sticky"), &[]);
    new.wait_for("the wait to be reported", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("members with another assignor"))
    });
    let event =
        |number| Record::new(format!("key-{}", number % 40), "").with("sleep-ms", "0").with("emit", "");
    let events = || (0..400).map(event);
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    flow.wait_until_committed();
    old.terminate();
    old.expect_exit(0);
    flow.wait_for_members(&["new"]);
    flow.producer().send_all(&flow.input, events()).expect("acknowledged");
    flow.wait_until_committed();
    new.terminate();
    new.expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.repeats, [].into(), "{report}");
}

/// Restarts do not wait for each other, so processes stop during a rebalance. A member that does
/// not leave holds its partitions for a session timeout, and delays every rebalance meanwhile.
#[test]
fn a_stop_during_a_rebalance_leaves_no_member_behind() {
    const STOPS: usize = 10;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let start = |number: usize| {
        let name = format!("member-{number}");
        let settings = settings(&flow, &name, "cooperative-sticky")
            .set("kafka.client", "session.timeout.ms", 45_000)
            .set("kafka.client", "heartbeat.interval.ms", 3_000)
            .set("runtime", "drain_timeout", "60s");
        (Keylane::run(&settings, &[]), name)
    };
    let mut running: VecDeque<_> = (0..3).map(start).collect();
    flow.wait_for_members(&["member-0", "member-1", "member-2"]);
    let mut stopped = Vec::new();
    for number in 0..STOPS {
        let (keylane, name) = start(3 + number);
        // The coordinator then waits for the other members, until their next heartbeat.
        wait::until("the newest member to join", wait::STATE_TIMEOUT, || {
            flow.members.state().members.iter().any(|member| member.client == name)
        });
        running.push_back((keylane, name));
        // The newest member now waits for its first response. The oldest member waits for its next
        // one, if it has noticed the rebalance.
        let next = if number % 2 == 0 { running.pop_back() } else { running.pop_front() };
        let (mut keylane, name) = next.expect("four instances are running");
        keylane.terminate();
        stopped.push((keylane, name));
    }
    let is_left_behind = |(mut keylane, name): (Keylane, String)| {
        keylane.expect_exit(0);
        let is_member = flow.members.state().members.iter().any(|member| member.client == name);
        is_member.then_some(name)
    };
    let (left_behind, ended) =
        wait::timed(|| stopped.into_iter().filter_map(is_left_behind).collect::<Vec<_>>());
    let live: Vec<&str> = running.iter().map(|(_, name)| name.as_str()).collect();
    let ((), settled) = wait::timed(|| flow.wait_for_members(&live));
    print_line(&format!(
        "all ended after {ended:?}, all partitions owned {settled:?} later, left behind: {left_behind:?}"
    ));
    assert!(left_behind.is_empty(), "{left_behind:?}");
    for (mut keylane, _) in running {
        keylane.terminate();
        keylane.expect_exit(0);
    }
}

fn settings(flow: &Flow<'_>, client: &str, assignor: &str) -> Settings {
    flow.settings(&guest("sleepy"), client)
        .set("kafka", "assignor", assignor)
        // No process fails here. A long session timeout hides no failure, and prevents the eviction
        // of members on a slow machine.
        .set("kafka.client", "session.timeout.ms", 30_000)
        // One event per call: a call of 50 ms ends within the `revoke_timeout`.
        .set("handlers.t", "max_batch", 1)
        .set("handlers.t.commit", "interval", "5s")
}

/// Calls of 50 ms, with a permanent backlog.
struct Load<'f> {
    flow: &'f Flow<'f>,
    producer: kafka::Producer,
    progress: Progress,
    produced: usize,
}

impl<'f> Load<'f> {
    fn new(flow: &'f Flow<'f>) -> Self {
        Self { flow, producer: flow.producer(), progress: Progress::of(flow), produced: 0 }
    }

    fn keep_up(&mut self) {
        self.progress.advance();
        if self.produced - self.progress.done() < BACKLOG {
            self.producer
                .send_all(&self.flow.input, (self.produced..self.produced + BACKLOG).map(slow))
                .expect("acknowledged");
            self.produced += BACKLOG;
        }
    }

    /// Waits until events are done and events before them are not.
    fn until_busy(&mut self) {
        let before = self.progress.done();
        wait::until("the load to be handled", wait::STATE_TIMEOUT, || {
            self.keep_up();
            let open = (0..PARTITIONS).filter(|partition| self.progress.open(*partition) > 0).count();
            self.progress.done() > before + 500 && open > 2
        });
    }

    /// Waits until the group is stable with exactly these clients. Returns the number of partitions with a completed set.
    fn until_settled(&mut self, flow: &Flow<'_>, clients: &[&str]) -> usize {
        wait::until("the group to settle", wait::STATE_TIMEOUT, || {
            self.keep_up();
            flow.members.state().is_settled(clients, usize::try_from(PARTITIONS).expect("few partitions"))
        });
        flow.committed().iter().filter(|committed| claims_some(committed)).count()
    }

    fn finish(&mut self) {
        wait::until("everything to have an output", wait::STATE_TIMEOUT, || {
            self.progress.advance();
            self.progress.done() == self.produced
        });
    }
}

fn claims_some(committed: &Committed) -> bool {
    let claimed = claims(&committed.metadata, committed.offset.unwrap_or(0)).expect("Keylane's own metadata");
    !claimed.is_empty()
}

fn slow(number: usize) -> Record {
    quick(number).with("sleep-ms", "50")
}

fn quick(number: usize) -> Record {
    Record::new(format!("key-{}", number * 31 % 1_499), "0").with("emit", "")
}
