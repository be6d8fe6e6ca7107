//! The configuration of one seed: the shape of the simulation and the enabled fault classes.

use std::time::Duration;

use keylane_core::{Config, GateRule, OnExhausted, OnGap, OutOfRange, RetryPolicy, RetryScope};

use super::gates::GatesPlan;
use super::keyed::KeyedPlan;
use super::rng::Rng;

/// Microseconds of simulated time.
pub(crate) type Micros = u64;

pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// A class of faults. A seed enables each with some probability (swarm testing): bugs depend on combinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `kill -9`, also in the middle of a step.
    Kill,
    /// SIGSTOP, for less or more than the session timeout.
    Pause,
    /// The coordinator expels a running member, which is notified later.
    Expelled,
    /// Instances drain and leave, new ones join.
    Scale,
    /// A second signal during a drain.
    SecondSignal,
    /// Calls that outlast a revoke.
    SlowCalls,
    /// Acks that outlast a revoke.
    SlowAcks,
    /// Commits or their responses are lost or delayed.
    CommitLoss,
    /// The coordinator answers with a retriable error during a rebalance.
    TryAgain,
    /// Commits are overtaken by the next generation.
    Stale,
    /// A commit is applied long after its timeout, and no fence rejects it.
    LateCommit,
    /// The broker accepts less metadata than configured.
    TooLarge,
    /// Metadata has little capacity, so claims are truncated.
    TinyMetadata,
    /// Another program writes its own metadata to our offsets.
    ForeignMetadata,
    /// Look-ups of starts fail.
    LookUpFails,
    /// Look-ups of starts outlast the answer to the assign.
    LookUpSlow,
    /// The look-up does not return the end of the log.
    LogEndUnknown,
    /// A rebalance changes the position of readers.
    ReaderSkips,
    /// Reads fail, once or permanently.
    Damage,
    /// Connections break, and readers continue at another position.
    Interrupted,
    /// Seeks fail.
    SeekFails,
    /// Retention deletes records that the group has not read.
    Retention,
    /// Topics are recreated.
    Replaced,
    /// Some events can't be handled, sometimes or always.
    Poison,
    /// Guests occasionally request a retry.
    Flaky,
    /// Guests fail during events that are not the cause.
    UnrelatedFaults,
    /// The dead-letter topic is unavailable for a while.
    DeadLettersBlocked,
    /// Brokers reject outputs.
    OutputsRejected,
    /// The output backlog grows until no call may begin.
    Backlog,
    /// The limits of queue, window and memory are small.
    SmallLimits,
    /// Guests wait for an external response.
    Suspends,
    /// Requests of a transaction or their answers are lost. This and the following classes are of transactional seeds.
    AnswersLost,
    /// Requests of a transaction arrive after their producer has stopped waiting for the answer.
    LateRequests,
    /// Outputs are stored so slowly that a transaction takes too long.
    SlowProduce,
    /// The transaction coordinator does not respond for a while.
    CoordinatorAway,
    /// A commit ends in an error that can't be retried, applied or not.
    ProducerFails,
    /// An operator resets offsets, or they expire.
    OffsetsReset,
    /// A successor with the same name starts while a process is paused.
    Superseded,
    /// A topic can't be written for a while.
    TopicsBlocked,
    /// A topic refuses a single output.
    EffectsRefused,
    /// The store is slow. This and the following class are of seeds with keyed state.
    StoreSlow,
    /// Files of stores are deleted, or replaced by old copies.
    StoreFiles,
}

const CLASSES: [Class; 31] = [
    Class::Kill,
    Class::Pause,
    Class::Expelled,
    Class::Scale,
    Class::SecondSignal,
    Class::SlowCalls,
    Class::SlowAcks,
    Class::CommitLoss,
    Class::TryAgain,
    Class::Stale,
    Class::LateCommit,
    Class::TooLarge,
    Class::TinyMetadata,
    Class::ForeignMetadata,
    Class::LookUpFails,
    Class::LookUpSlow,
    Class::LogEndUnknown,
    Class::ReaderSkips,
    Class::Damage,
    Class::Interrupted,
    Class::SeekFails,
    Class::Retention,
    Class::Replaced,
    Class::Poison,
    Class::Flaky,
    Class::UnrelatedFaults,
    Class::DeadLettersBlocked,
    Class::OutputsRejected,
    Class::Backlog,
    Class::SmallLimits,
    Class::Suspends,
];

/// Classes under which no event may run twice.
const REPEAT_FREE: [Class; 13] = [
    Class::Scale,
    Class::LookUpFails,
    Class::LookUpSlow,
    Class::ReaderSkips,
    Class::Damage,
    Class::Interrupted,
    Class::SeekFails,
    Class::Poison,
    Class::Flaky,
    Class::UnrelatedFaults,
    Class::Backlog,
    Class::SmallLimits,
    Class::Suspends,
];

#[derive(Debug)]
pub(crate) struct Plan {
    on: Vec<Class>,
    /// Whether an event may have more than one outcome.
    pub(crate) may_repeat: bool,
    /// The eager protocol, which revokes all partitions at each rebalance.
    pub(crate) eager: bool,
    /// Every process reads up to the ends that it found, drains, and is restarted.
    pub(crate) until_end: bool,
    pub(crate) topics: u16,
    pub(crate) partitions_per_topic: u16,
    pub(crate) keys: u64,
    /// Keys that share a lane hash.
    pub(crate) keys_per_hash: u64,
    /// Percentage of events without a lane key.
    pub(crate) keyless: u64,
    /// Events without a lane key are rejected.
    pub(crate) rejects_unkeyed: bool,
    /// Percentage of events that the filter excludes.
    pub(crate) filtered: u64,
    /// The guest is called once per event, so the failing row is known.
    pub(crate) loops: bool,
    /// Percentage of events with outputs.
    pub(crate) outputs: u64,
    /// Percentage of offsets that do not exist.
    pub(crate) gaps: u64,
    pub(crate) instances: usize,
    pub(crate) workers: u32,
    /// Records per partition until faults stop.
    pub(crate) records: u64,
    /// When faults stop.
    pub(crate) faults_until: Micros,
    pub(crate) fault_every: Micros,
    pub(crate) session_timeout: Micros,
    pub(crate) broker_metadata_limit: usize,
    /// Transactional delivery: characters of metadata that one request may carry.
    pub(crate) request_metadata_limit: usize,
    /// Transactional delivery: a process has the transactional id of its predecessor.
    pub(crate) named_producers: bool,
    /// Keyed state, if there is one.
    pub(crate) keyed: Option<KeyedPlan>,
    /// Gates, if there are any.
    pub(crate) gates: Option<GatesPlan>,
    pub(crate) topic_ids: bool,
    /// The guest's work per row, as reported to the core.
    pub(crate) row_cost: Micros,
    pub(crate) config: Config,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Plan {
        let on = draw_classes(rng);
        let has = |class| on.contains(&class);
        let metadata_limit = if has(Class::TinyMetadata) { rng.range(18, 70) as usize } else { 4096 };
        let broker_metadata_limit =
            if has(Class::TooLarge) { metadata_limit / rng.range(2, 200) as usize } else { metadata_limit };
        let topics = rng.range(1, 2) as u16;
        let config = Config { topics, ..draw_config(rng, &on, metadata_limit) };
        Plan {
            may_repeat: on.iter().any(|class| !REPEAT_FREE.contains(class)),
            eager: rng.percent(40),
            until_end: rng.percent(20),
            topics,
            partitions_per_topic: rng.range(1, 3) as u16,
            keys: rng.range(1, 8),
            keys_per_hash: rng.pick(&[1, 1, 1, 2]),
            keyless: rng.pick(&[0, 10, 50]),
            rejects_unkeyed: rng.percent(15),
            filtered: rng.pick(&[0, 0, 20]),
            loops: rng.percent(40),
            outputs: rng.pick(&[0, 50, 90, 100]),
            gaps: rng.pick(&[0, 5, 40]),
            instances: rng.range(1, 3) as usize,
            workers: rng.range(1, 6) as u32,
            records: rng.range(20, 70),
            faults_until: rng.range(5, 20) * SECOND,
            fault_every: rng.range(200, 3000) * MS,
            session_timeout: rng.range(3, 8) * SECOND,
            broker_metadata_limit,
            request_metadata_limit: usize::MAX,
            named_producers: false,
            keyed: None,
            gates: None,
            topic_ids: rng.percent(70),
            row_cost: rng.range(1, 80),
            config,
            on,
        }
    }

    pub(crate) fn has(&self, class: Class) -> bool {
        self.on.contains(&class)
    }

    pub(crate) fn classes(&self) -> &[Class] {
        &self.on
    }

    pub(crate) fn enable(&mut self, classes: Vec<Class>) {
        self.on.extend(classes);
    }

    pub(crate) fn disable(&mut self, classes: &[Class]) {
        self.on.retain(|class| !classes.contains(class));
    }

    /// Disables all faults. The rest of the configuration is unchanged.
    pub(crate) fn heal(&mut self) {
        self.on.clear();
        self.config.out_of_range = OutOfRange::Earliest;
        // An operator reads the reason why the handler stops, and changes the configuration.
        if self.config.retry.on_exhausted == OnExhausted::Stop {
            self.config.retry.on_exhausted = OnExhausted::DeadLetter;
        }
        if let Some(gate) = &mut self.config.gate
            && let GateRule::Consecutive(rule) = &mut gate.rule
            && rule.on_gap == OnGap::Stop
        {
            rule.on_gap = OnGap::DeadLetter;
        }
    }

    pub(crate) fn partitions(&self) -> usize {
        usize::from(self.topics * self.partitions_per_topic)
    }
}

fn draw_classes(rng: &mut Rng) -> Vec<Class> {
    match rng.below(100) {
        // A simulation without faults must have no repeats.
        0..10 => Vec::new(),
        10..35 => {
            let chance = rng.range(30, 60);
            REPEAT_FREE.into_iter().filter(|_| rng.percent(chance)).collect()
        }
        _ => {
            let chance = rng.range(30, 60);
            CLASSES.into_iter().filter(|_| rng.percent(chance)).collect()
        }
    }
}

fn draw_config(rng: &mut Rng, on: &[Class], metadata_limit: usize) -> Config {
    let small = on.contains(&Class::SmallLimits);
    let policies = [OutOfRange::Fail, OutOfRange::Earliest, OutOfRange::Latest];
    Config {
        max_batch: rng.pick(&[1, 2, 8, 64]),
        max_batch_is_fixed: rng.percent(50),
        max_concurrency: rng.pick(&[1, 3, 256]),
        max_queued: if small { rng.range(1, 12) as u32 } else { 100_000 },
        max_window: if small { rng.range(5, 60) } else { 64_000_000 },
        arena_bytes: if small { rng.range(1_000, 20_000) } else { 64 << 20 },
        commit_interval: Duration::from_millis(rng.pick(&[200, 1000])),
        commit_every: rng.pick(&[5, 10_000]),
        // In production, the interval is one minute, within which this simulation must have
        // finished. Only a late commit of an older owner may need to be corrected by such a commit.
        recommit_interval: Duration::from_secs(if on.contains(&Class::LateCommit) { 10 } else { 300 }),
        metadata_limit,
        out_of_range: rng.pick(&policies),
        stall_after: Duration::from_secs(rng.pick(&[2, 15])),
        cancels_partly_revoked_calls: rng.percent(20),
        retry: draw_retry(rng),
        ..Config::default()
    }
}

fn draw_retry(rng: &mut Rng) -> RetryPolicy {
    RetryPolicy {
        max_attempts: rng.pick(&[1, 2, 4]),
        initial_interval: Duration::from_millis(rng.pick(&[20, 200])),
        max_interval: Duration::from_millis(rng.pick(&[300, 1000])),
        multiplier: rng.pick(&[1.0, 2.0]),
        jitter: rng.pick(&[0.0, 0.2]),
        seed: rng.next(),
        max_record_age: rng.percent(20).then(|| Duration::from_millis(rng.range(100, 5_000))),
        on_exhausted: rng.pick(&[
            OnExhausted::DeadLetter,
            OnExhausted::DeadLetter,
            OnExhausted::DeadLetter,
            OnExhausted::Skip,
            OnExhausted::Stop,
        ]),
        scope: if rng.percent(25) { RetryScope::Partition } else { RetryScope::Key },
    }
}
