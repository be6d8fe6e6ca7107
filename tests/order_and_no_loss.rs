//! Promise: after any kill, nothing is lost, and no key moves back or skips an event.
//!
//! Three instances share a topic; one of them is killed (-9) twenty times, each time only when it has calls in flight and
//! uncommitted work. Repeated outputs must be in order, too, and their events must have been open at the
//! kill.

use keylane_tests::check::{self, Kill};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Committed, Producer, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::progress::Progress;
use keylane_tests::skip::print_line;
use keylane_tests::wait;

const KEYS: usize = 3_000;
/// Large enough to keep three instances busy, and small enough for the input to last until the last
/// kill.
const BACKLOG: usize = 20_000;

#[test]
fn nothing_is_lost_and_keys_stay_in_order_through_twenty_kills() {
    through_kills(12, 20, 200_000, 1_000);
}

/// Few events in each of many partitions: their commits and claims determine the repeats.
#[test]
fn repeats_in_many_partitions_were_open_at_a_kill() {
    through_kills(120, 4, 80_000, 100);
}

/// `unclaimed`: events that a victim has settled and neither committed nor claimed when it is killed.
fn through_kills(partitions: i32, kills: usize, events: usize, unclaimed: usize) {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, partitions, &[]);
    let mut backlog = BacklogProducer::new(&flow);
    let mut instances: Vec<Instance> = (0..3).map(|number| Instance::start(&flow, number)).collect();
    flow.wait_for_members(&names(&instances));

    let mut recorded_kills: Vec<Kill> = Vec::new();
    for kill in 0..kills {
        let number = kill % instances.len();
        let name = instances.get(number).expect("there are three instances").name.clone();
        wait::until(&format!("a good moment for kill {}", kill + 1), wait::STATE_TIMEOUT, || {
            backlog.keep_up(usize::MAX);
            is_worth_killing(&flow, &mut backlog.progress, &names(&instances), &name, unclaimed)
        });
        let owned = flow.members.state().partitions_of(&name);
        let victim = instances.get_mut(number).expect("there are three instances");
        victim.kill();
        recorded_kills.push(Kill::of(&flow, owned));
        victim.replace(&flow);
    }
    wait::until("all events to be produced and to have an output", wait::STATE_TIMEOUT * 5, || {
        backlog.keep_up(events);
        backlog.produced >= events && backlog.progress.done() == backlog.produced
    });
    flow.wait_until_committed();
    for instance in &mut instances {
        instance.process.terminate();
    }
    for instance in &mut instances {
        instance.process.expect_exit(0);
    }

    let report = check::check(&flow.history());
    print_line(&format!("{} events, {kills} kills: {report}", backlog.produced));
    report.assert_clean();
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    let (repeats, unexplained) = check::repeats(&outputs, &flow.input, &recorded_kills);
    assert_eq!(repeats, report.repeated());
    assert_eq!(unexplained, [], "these of {repeats} repeats were not open at a kill");
    assert!(report.outcomes >= backlog.produced);
    assert!(report.repeated() > 0, "no kill caused a repeat: the run proves nothing");
}

/// The worst moment: the group is stable, the victim has calls in flight, and much of its finished work is neither
/// committed nor claimed yet.
fn is_worth_killing(
    flow: &Flow<'_>,
    progress: &mut Progress,
    present: &[&str],
    victim: &str,
    at_least: usize,
) -> bool {
    let group = flow.members.state();
    if !group.is_settled(present, usize::try_from(flow.partitions).expect("few partitions")) {
        return false;
    }
    let owned = group.partitions_of(victim);
    let committed: Vec<Committed> = flow.committed();
    // The progress is read after the commits: on a slow machine, the commits cover all earlier
    // work.
    progress.advance();
    let of_victim = committed.iter().filter(|committed| owned.contains(&committed.partition));
    let unclaimed: usize = of_victim.map(|committed| progress.unclaimed(committed)).sum();
    let open: usize = owned.iter().map(|partition| progress.open(*partition)).sum();
    open > 0 && unclaimed >= at_least
}

fn names(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| instance.name.as_str()).collect()
}

struct Instance {
    number: usize,
    incarnation: usize,
    name: String,
    process: Keylane,
}

impl Instance {
    fn start(flow: &Flow<'_>, number: usize) -> Self {
        Self::incarnate(flow, number, 0)
    }

    fn incarnate(flow: &Flow<'_>, number: usize, incarnation: usize) -> Self {
        let name = format!("instance-{number}-{incarnation}");
        let settings = flow.settings(&guest("sleepy"), &name).set("handlers.t.commit", "interval", "3s").set(
            "handlers.t.commit",
            "every",
            1_000_000,
        );
        Self { number, incarnation, process: Keylane::run(&settings, &[]), name }
    }

    /// Kills the process with SIGKILL.
    fn kill(&mut self) {
        assert!(!self.process.has_ended(), "{} ended by itself{}", self.name, self.process.tail());
        self.process.kill();
    }

    /// Replaces the killed process by a new one.
    fn replace(&mut self, flow: &Flow<'_>) {
        *self = Self::incarnate(flow, self.number, self.incarnation + 1);
    }
}

/// Keeps a backlog in the input for every kill, and counts the events that it produced.
struct BacklogProducer {
    producer: Producer,
    topic: String,
    progress: Progress,
    produced: usize,
}

impl BacklogProducer {
    fn new(flow: &Flow<'_>) -> Self {
        let (producer, topic) = (flow.producer(), flow.input.clone());
        Self { producer, topic, progress: Progress::of(flow), produced: 0 }
    }

    fn keep_up(&mut self, limit: usize) {
        self.progress.advance();
        let unhandled = self.produced - self.progress.done();
        if self.produced < limit && unhandled < BACKLOG / 2 {
            let records = (self.produced..self.produced + BACKLOG / 2).map(event);
            self.producer.send_all(&self.topic, records).expect("every event is acknowledged");
            self.produced += BACKLOG / 2;
        }
    }
}

/// One event in fifty takes 20 ms, so that calls are in flight at any moment.
fn event(number: usize) -> Record {
    let millis = if number.is_multiple_of(50) { "20" } else { "0" };
    let key = format!("key-{}", number * 7 % KEYS);
    Record::new(key, format!("event {number}")).with("sleep-ms", millis).with("emit", "")
}
