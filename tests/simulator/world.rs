//! The world: a clock, a heap of scheduled events, and the loop that feeds the cores.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use keylane_core::{CallId, CommitId, Core, Input, Now};
use keylane_state::KeyBytes;

use super::commits::{Answer, Request, Stored};
use super::gates::{self, Gates};
use super::group::Group;
use super::in_step::{self, RecordTimes};
use super::keyed::{self, Keyed};
use super::log::Log;
use super::ownership::{LookUpAnswer, LookUpId};
use super::plan::{Class, MS, Micros, Plan, SECOND};
use super::planted::Planted;
use super::process::Process;
use super::rng::Rng;
use super::trace::{Coverage, Line, Seen, Trace, Violation};
use super::transactions::{self, Brokers, Step};
use super::views::ReadBefore;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) stage: Stage,
    pub(crate) logs: Vec<Log>,
    pub(crate) group: Group,
    /// The offset and metadata that the coordinator stores, per partition.
    pub(crate) stored: Vec<Option<Stored>>,
    /// Transactional delivery: open transactions, and what was published.
    pub(crate) brokers: Brokers,
    /// Keyed state: changelogs, and the disks of instances.
    pub(crate) keyed: Keyed,
    /// Gates: the order values of the records, and what transactions have left of them.
    pub(crate) gates: Gates,
    /// `read_in_step`: the times of the records.
    pub(crate) record_times: RecordTimes,
    /// Every process since the start; most are dead.
    pub(crate) processes: Vec<Process>,
    pub(crate) trace: Trace,
    pub(crate) seen: Coverage,
    pub(crate) planted: Option<Planted>,
    /// Whether the views of the cores are read after every input.
    pub(crate) reads_views: bool,
    pub(crate) violation: Option<Violation>,
    /// The fault classes that were enabled until faults stopped.
    pub(crate) classes: Vec<Class>,
    /// The time since which everything is committed.
    pub(crate) all_committed_since: Option<Micros>,
    /// When everything must be committed, or every process drained.
    pub(crate) deadline_at: Micros,
    heap: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Faults,
    /// No more faults are injected. Everything must be handled and committed.
    Healing,
    /// Every process drains.
    Leaving,
    Over,
}

/// A scheduled event. The first number is the process.
#[derive(Debug)]
pub(crate) enum Event {
    Tick(usize),
    Control(usize),
    Join(usize),
    Lookup(usize, usize, LookUpId),
    LookedUp(usize, usize, LookUpId, LookUpAnswer),
    /// The changelog of a partition is read, for the opening of its store with this number.
    Restore(usize, usize, u64),
    /// A process searches for old states, in this session of the store.
    Search(usize, usize, u64),
    /// The store has found these.
    Scanned(usize, usize, u64, Vec<KeyBytes>),
    /// The store of a process has work to do.
    Store(usize, keyed::Task),
    Poll(usize, usize),
    /// The answer to a request of a gate.
    GateAnswer(usize, gates::Answer),
    SeekFailed(usize, usize, u32),
    CheckTopic(usize, usize),
    CallSuspended(usize, CallId),
    CallEnd(usize, CallId),
    CallTerminated(usize, CallId),
    /// A planted bug reports that a call has terminated.
    CallReportedTerminated(usize, CallId),
    /// A planted bug takes an old result for the result of this call.
    StaleResult(usize, CallId),
    OutputStored(usize, CallId, u32),
    Ack(usize, CallId, u32),
    /// The producer has capacity again.
    BacklogCleared(usize),
    Reject(usize, CallId, u32),
    DeadLetterStored(usize, CallId, u32),
    DeadLetterAck(usize, CallId, u32),
    CommitArrives(Request, bool),
    CommitAnswered(usize, CommitId, Vec<Answer>),
    CommitTimeout(usize, CommitId),
    /// A planted bug reports that a commit was applied.
    RoundsReportedCommitted(usize, CommitId),
    /// A step of a transactional producer.
    Producer(usize, Step),
    TransactionRequest(transactions::Request),
    /// The transactional id, and the number of its transaction.
    TransactionTimeout(usize, u64),
    TransactionMarkers(usize, u64),
    Drain(usize),
    DrainDeadlineNow(usize),
    Rebalance,
    RebalanceTimeout(u64),
    Expire(usize),
    ProcessStart(usize),
    Operator,
    Resume(usize),
    Grow,
    Fault,
    Heal,
    Check,
    Deadline,
}

impl Event {
    /// The process in which the event happens; `None`: outside of all processes.
    fn process(&self) -> Option<usize> {
        match *self {
            Event::Tick(p)
            | Event::Control(p)
            | Event::Join(p)
            | Event::LookedUp(p, ..)
            | Event::Restore(p, ..)
            | Event::Search(p, ..)
            | Event::Scanned(p, ..)
            | Event::Store(p, _)
            | Event::Poll(p, _)
            | Event::GateAnswer(p, _)
            | Event::SeekFailed(p, ..)
            | Event::CheckTopic(p, _)
            | Event::CallSuspended(p, _)
            | Event::CallEnd(p, _)
            | Event::CallTerminated(p, _)
            | Event::CallReportedTerminated(p, _)
            | Event::StaleResult(p, _)
            | Event::Ack(p, ..)
            | Event::BacklogCleared(p)
            | Event::Reject(p, ..)
            | Event::DeadLetterAck(p, ..)
            | Event::CommitAnswered(p, ..)
            | Event::CommitTimeout(p, _)
            | Event::RoundsReportedCommitted(p, _)
            | Event::Producer(p, _)
            | Event::Drain(p)
            | Event::DrainDeadlineNow(p) => Some(p),
            Event::Lookup(..)
            | Event::OutputStored(..)
            | Event::DeadLetterStored(..)
            | Event::CommitArrives(..)
            | Event::TransactionRequest(_)
            | Event::TransactionTimeout(..)
            | Event::TransactionMarkers(..)
            | Event::Rebalance
            | Event::RebalanceTimeout(_)
            | Event::Expire(_)
            | Event::ProcessStart(_)
            | Event::Operator
            | Event::Resume(_)
            | Event::Grow
            | Event::Fault
            | Event::Heal
            | Event::Check
            | Event::Deadline => None,
        }
    }
}

#[derive(Debug)]
struct Scheduled {
    at: Micros,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The number of events after which a seed counts as an endless loop: a hundred times the usual
/// number.
const EVENTS_MAX: u64 = 400_000;

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng);
        transactions::draw(&mut plan, seed);
        keyed::draw(&mut plan, seed);
        // Bugs of other parts are looked for where they were planted.
        if planted.is_none_or(Planted::is_of_gates) {
            gates::draw(&mut plan, seed);
        }
        if planted.is_none_or(Planted::is_of_steps) {
            in_step::draw(&mut plan, seed);
        }
        let partitions = plan.partitions();
        let mut world = World {
            now: 0,
            stage: Stage::Faults,
            logs: (0..partitions).map(|index| Log::new(index, &plan, &mut rng)).collect(),
            group: Group::new(partitions),
            stored: vec![None; partitions],
            brokers: Brokers::new(partitions),
            keyed: Keyed::new(partitions),
            gates: Gates::new(partitions, seed),
            record_times: RecordTimes::new(partitions, seed),
            processes: Vec::new(),
            trace: Trace::default(),
            seen: Coverage::new(),
            planted,
            reads_views: true,
            violation: None,
            classes: plan.classes().to_vec(),
            all_committed_since: None,
            deadline_at: 0,
            heap: BinaryHeap::new(),
            scheduled: 0,
            rng,
            plan,
        };
        world.after(world.plan.faults_until, Event::Heal);
        world.after(0, Event::Grow);
        world.after(world.plan.fault_every, Event::Fault);
        for instance in 0..world.plan.instances {
            let delay = world.rng.below(2 * SECOND);
            world.after(delay, Event::ProcessStart(instance));
        }
        world
    }

    pub(crate) fn run(&mut self) {
        let mut events = 0;
        while self.violation.is_none() && self.stage != Stage::Over {
            let Some(Reverse(next)) = self.heap.pop() else {
                self.report_violation("I11 drained", "no event is scheduled".into(), None, -1);
                return;
            };
            self.now = self.now.max(next.at);
            self.take(next.event);
            events += 1;
            if events > EVENTS_MAX {
                self.report_violation("I-idle", format!("{events} events: endless loop"), None, -1);
            }
        }
    }

    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse(Scheduled { at: self.now + delay, number: self.scheduled, event }));
    }

    fn take(&mut self, event: Event) {
        if let Some(process) = event.process() {
            let process = &mut self.processes[process];
            if !process.alive {
                return;
            }
            if process.paused {
                process.deferred.push(event);
                return;
            }
        }
        match event {
            Event::Tick(p) => self.tick(p),
            Event::Control(p) => self.deliver_control(p),
            Event::Join(p) => self.join(p),
            Event::Lookup(p, partition, id) => self.look_up(p, partition, id),
            Event::LookedUp(p, partition, id, answer) => self.looked_up(p, partition, id, answer),
            Event::Restore(p, partition, session) => self.restore(p, partition, session),
            Event::Search(p, partition, session) => self.search(p, partition, session),
            Event::Scanned(p, partition, session, found) => self.scanned(p, partition, session, found),
            Event::Store(p, task) => self.do_task(p, task),
            Event::Poll(p, partition) => self.poll_reader(p, partition),
            Event::GateAnswer(p, answer) => self.gate_answer(p, answer),
            Event::SeekFailed(p, partition, epoch) => self.report_seek_failed(p, partition, epoch),
            Event::CheckTopic(p, partition) => self.check_topic(p, partition),
            Event::CallSuspended(p, call) => self.call_suspended(p, call),
            Event::CallEnd(p, call) => self.call_ends(p, call),
            Event::CallTerminated(p, call) => self.call_terminated(p, call),
            Event::CallReportedTerminated(p, call) => self.report_terminated_early(p, call),
            Event::StaleResult(p, call) => self.stale_result(p, call),
            Event::OutputStored(p, call, row) => self.store_output(p, call, row),
            Event::Ack(p, call, row) => self.ack(p, call, row),
            Event::BacklogCleared(p) => self.set_backlog(p, false),
            Event::Reject(p, call, row) => self.reject(p, call, row),
            Event::DeadLetterStored(p, call, row) => self.store_dead_letter(p, call, row),
            Event::DeadLetterAck(p, call, row) => self.dead_letter_acked(p, call, row),
            Event::CommitArrives(request, past_fences) => self.commit_arrives(request, past_fences),
            Event::CommitAnswered(p, id, answers) => self.commit_answered(p, id, &answers),
            Event::CommitTimeout(p, id) => self.commit_timeout(p, id),
            Event::RoundsReportedCommitted(p, id) => self.report_rounds_committed(p, id),
            Event::Producer(p, step) => self.step(p, step),
            Event::TransactionRequest(request) => self.transaction_request_arrives(request),
            Event::TransactionTimeout(name, serial) => self.transaction_timeout_reached(name, serial),
            Event::TransactionMarkers(name, serial) => self.write_markers(name, serial),
            Event::Drain(p) => self.drain(p),
            Event::DrainDeadlineNow(p) => self.drain_deadline_now(p),
            Event::Rebalance => self.rebalance(),
            Event::RebalanceTimeout(round) => self.rebalance_timeout(round),
            Event::Expire(p) => self.expire(p),
            Event::ProcessStart(instance) => self.start(instance),
            Event::Operator => self.operate(),
            Event::Resume(p) => self.resume(p),
            Event::Grow => self.grow(),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
            Event::Check => self.check_drained(),
            Event::Deadline => self.deadline(),
        }
    }

    /// Passes an input to a core and carries out its actions.
    pub(crate) fn feed(&mut self, p: usize, input: Input<'_>) {
        let Some(mut core) = self.processes[p].core.take() else { return };
        let uptime = self.uptime(p);
        self.processes[p].shell.inputs += 1;
        let before = if self.reads_views { self.read_before(&core) } else { ReadBefore::default() };
        core.handle(Now { uptime, wall_ms: (self.now / MS) as i64 }, input);
        while let Some(action) = core.poll() {
            self.act(p, action);
            if self.kill_if_due(p) || !self.processes[p].alive || self.violation.is_some() {
                return;
            }
        }
        self.end_gate_step(p, &core);
        self.check_kept(p);
        if self.reads_views {
            self.check_view(p, &core, before);
        }
        if let Some(next) = core.next_timeout() {
            self.schedule_tick(p, next);
        }
        self.processes[p].core = Some(core);
    }

    pub(crate) fn uptime(&self, p: usize) -> Duration {
        Duration::from_micros(self.now - self.processes[p].started)
    }

    fn schedule_tick(&mut self, p: usize, uptime: Duration) {
        let at = self.processes[p].started + uptime.as_micros() as Micros;
        // A shell is never early, usually a little late, and occasionally very late.
        let late = if self.rng.percent(3) { 300 * MS } else { 2 * MS };
        let at = at.max(self.now) + self.rng.range(1, late);
        if self.processes[p].tick_at.is_none_or(|known| known > at || known <= self.now) {
            self.processes[p].tick_at = Some(at);
            self.after(at - self.now, Event::Tick(p));
        }
    }

    fn tick(&mut self, p: usize) {
        let due = self.processes[p].tick_at.is_some_and(|at| at <= self.now);
        if due {
            self.processes[p].tick_at = None;
            self.feed(p, Input::Tick);
        }
    }

    fn start(&mut self, instance: usize) {
        if self.stage == Stage::Leaving || self.stage == Stage::Over {
            return;
        }
        if self.is_operated() {
            // The operator starts again what ran before.
            let ran = self.processes.iter().any(|process| process.instance == instance);
            if ran || instance < self.plan.instances {
                self.after(500 * MS, Event::ProcessStart(instance));
            }
            return;
        }
        let core = Core::new(self.planted_config());
        let p = self.processes.len();
        self.processes.push(Process::new(core, instance, self.now, &self.plan));
        self.note(p, "start", None, -1, instance as i64);
        self.feed(p, Input::CapacityAdded { calls: self.plan.workers });
        let delay = self.rng.range(10, 500) * MS;
        self.after(delay, Event::Join(p));
    }

    fn grow(&mut self) {
        if self.stage != Stage::Faults {
            return;
        }
        let partition = self.rng.index(self.logs.len());
        for _ in 0..self.rng.range(1, 6) {
            self.logs[partition].grow(&self.plan, &mut self.rng);
            self.order_last_record(partition);
            self.time_last_record(partition);
        }
        for p in 0..self.processes.len() {
            self.wake_reader(p, partition);
        }
        let total = self.plan.records * self.logs.len() as u64 / 3;
        let interval = self.plan.faults_until / total.max(1);
        let delay = self.rng.range(1, 2 * interval);
        self.after(delay, Event::Grow);
    }

    pub(crate) fn has(&self, class: Class) -> bool {
        self.plan.has(class)
    }

    /// Whether a fault of this class happens now.
    pub(crate) fn occurs(&mut self, class: Class, percent: u64) -> bool {
        self.plan.has(class) && self.rng.percent(percent)
    }

    pub(crate) fn saw(&mut self, seen: Seen) {
        self.seen.saw(seen);
    }

    pub(crate) fn note(
        &mut self,
        p: usize,
        what: &'static str,
        partition: Option<usize>,
        offset: i64,
        detail: i64,
    ) {
        let partition = partition.map_or(-1, |partition| partition as i32);
        self.trace.lines.push(Line { at: self.now, process: p as i32, what, partition, offset, detail });
    }

    pub(crate) fn report_violation(
        &mut self,
        rule: &'static str,
        text: String,
        partition: Option<usize>,
        offset: i64,
    ) {
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, text, partition, offset });
        }
    }

    /// Reports a violation of `rule` unless `holds`.
    pub(crate) fn require(
        &mut self,
        holds: bool,
        rule: &'static str,
        partition: usize,
        offset: i64,
        text: impl FnOnce() -> String,
    ) {
        if !holds {
            self.report_violation(rule, text(), Some(partition), offset);
        }
    }

    /// The index of a partition that an action names.
    pub(crate) fn index(&self, partition: keylane_core::Partition) -> usize {
        usize::from(partition.topic * self.plan.partitions_per_topic) + partition.number as usize
    }
}
