//! Promise: a rebalance in which everybody lives repeats nothing, whatever the assignor, and a partition that
//! stays where it is does not notice.

use std::collections::VecDeque;

use keylane_tests::check::{self, claims};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Committed, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::progress::Progress;
use keylane_tests::skip::say;
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

/// A second instance joins and leaves under load, with calls of 50 ms and a completed set at every hand-over.
fn joins_and_leaves_repeat_nothing(assignor: &str) {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut load = Load::new(&flow);
    let mut staying = Keylane::run(&settings(&flow, "staying", assignor), &[]);
    flow.wait_for_members(&["staying"]);
    let mut hand_overs = 0;
    for _ in 0..ROUNDS {
        load.until_busy();
        let mut guest = Keylane::run(&settings(&flow, "visiting", assignor), &[]);
        hand_overs += load.until_settled(&flow, &["staying", "visiting"]);
        load.until_busy();
        guest.terminate();
        guest.expect_exit(0);
        hand_overs += load.until_settled(&flow, &["staying"]);
    }
    load.finish();
    flow.wait_until_committed();
    staying.terminate();
    staying.expect_exit(0);

    let report = check::check(&flow.history());
    say(&format!("{assignor}: {} events, {hand_overs} hand-overs with a completed set: {report}", load.fed));
    report.assert_clean();
    let ownerships = report.ownerships.len();
    assert!(
        ownerships > usize::try_from(PARTITIONS).expect("few"),
        "no partition changed hands: {ownerships} ownerships"
    );
    assert!(hand_overs > 0, "no hand-over found a completed set: this run shows less than it should");
    assert_eq!(report.repeats, [].into(), "a rebalance in which everybody lives repeats nothing");
}

/// A partition without traffic is kept through twenty rebalances; what arrives in it meanwhile is handled once.
#[test]
fn an_idle_kept_partition_misses_nothing() {
    const REBALANCES: usize = 20;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let producer = flow.producer();
    let mut progress = Progress::of(&flow);
    let mut fed = 0;
    let mut feed = |count: usize| {
        let records = (fed..fed + count).map(|number| quick(number).to(i32::from(number % 2 == 0)));
        producer.send_all(&flow.input, records).expect("acknowledged");
        fed += count;
        fed
    };
    let staying = Keylane::run(&settings(&flow, "staying", "cooperative-sticky"), &[]);
    flow.wait_for_members(&["staying"]);
    for round in 0..REBALANCES / 2 {
        let mut visiting = Keylane::run(&settings(&flow, "visiting", "cooperative-sticky"), &[]);
        // One record while the rebalance may be under way, and one after it.
        feed(2 * (round % 2));
        flow.wait_for_members(&["staying", "visiting"]);
        let kept = flow.members.state().partitions_of("staying");
        assert_eq!(kept.len(), 1, "one of two partitions stays: {kept:?}");
        feed(2);
        visiting.terminate();
        visiting.expect_exit(0);
        flow.wait_for_members(&["staying"]);
        let fed = feed(2);
        wait::until("what was fed to come out", wait::PATIENCE, || {
            progress.advance();
            progress.done() == fed
        });
    }
    flow.wait_until_committed();
    drop(staying);
    let report = check::check(&flow.history());
    say(&format!("{REBALANCES} rebalances: {report}"));
    report.assert_clean();
    assert_eq!(report.repeats, [].into());
}

/// Processes are replaced one by one: those with the new assignor wait for the last one with the old, and do not end.
#[test]
fn a_rolling_change_of_the_assignor_waits_for_the_old_members() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let mut old = Keylane::run(&settings(&flow, "old", "range"), &[]);
    flow.wait_for_members(&["old"]);
    let mut new = Keylane::run(&settings(&flow, "new", "cooperative-sticky"), &[]);
    new.wait_for("that it waits", |line| {
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

/// Restarts that do not wait for each other: processes stop while the group divides its partitions anew. A member
/// that is left behind holds its partitions for a session timeout, and every rebalance meanwhile.
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
        // It waits for the others then, until their next heartbeat.
        wait::until("the newest member to join", wait::PATIENCE, || {
            flow.members.state().members.iter().any(|member| member.client == name)
        });
        running.push_back((keylane, name));
        // The newest one waits for its first answer now; the oldest one for its next, if it has noticed.
        let next = if number % 2 == 0 { running.pop_back() } else { running.pop_front() };
        let (mut keylane, name) = next.expect("four are running");
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
    say(&format!(
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
        // Nobody dies here, so a long session hides nothing and a slow machine evicts nobody.
        .set("kafka.client", "session.timeout.ms", 30_000)
        // One event a call: a call of 50 ms ends within the time that a revoked partition is given.
        .set("handlers.t", "max_batch", 1)
        .set("handlers.t.commit", "interval", "5s")
}

/// Calls of 50 ms, always a backlog of them.
struct Load<'f> {
    flow: &'f Flow<'f>,
    producer: kafka::Producer,
    progress: Progress,
    fed: usize,
}

impl<'f> Load<'f> {
    fn new(flow: &'f Flow<'f>) -> Self {
        Self { flow, producer: flow.producer(), progress: Progress::of(flow), fed: 0 }
    }

    fn keep_up(&mut self) {
        self.progress.advance();
        if self.fed - self.progress.done() < BACKLOG {
            self.producer
                .send_all(&self.flow.input, (self.fed..self.fed + BACKLOG).map(slow))
                .expect("acknowledged");
            self.fed += BACKLOG;
        }
    }

    /// Events are done, and events before them are not.
    fn until_busy(&mut self) {
        let before = self.progress.done();
        wait::until("the load to be under way", wait::PATIENCE, || {
            self.keep_up();
            let open = (0..PARTITIONS).filter(|partition| self.progress.open(*partition) > 0).count();
            self.progress.done() > before + 500 && open > 2
        });
    }

    /// The group stands still with exactly these clients. Returns how many partitions have a completed set then.
    fn until_settled(&mut self, flow: &Flow<'_>, clients: &[&str]) -> usize {
        wait::until("the group to settle", wait::PATIENCE, || {
            self.keep_up();
            flow.members.state().is_settled(clients, usize::try_from(PARTITIONS).expect("few"))
        });
        flow.committed().iter().filter(|committed| claims_some(committed)).count()
    }

    fn finish(&mut self) {
        wait::until("everything to have an output", wait::PATIENCE, || {
            self.progress.advance();
            self.progress.done() == self.fed
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
