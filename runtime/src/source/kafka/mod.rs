//! The consumer of one handler.
mod answers;
mod rebalance;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CString;
use std::time::Duration;

use keylane_core::{CommitEntry, CommitError, CommitId, Partition, ReadError, RebalanceId, StartAt};

use crate::config::FetchLimits;
use crate::librdkafka::{
    Consumer, Deadline, ErrorCode, EventKind, PartitionList, PermanentStartupError, Questions, Queue,
    Requests, StartupRetry, WakeHandle,
};
use crate::source::embedded::FeedReader;
use crate::source::errors::commit_error;
use crate::source::event::{ReadResult, Record, SourceEvent};
use crate::source::look_ups::{GroupCommits, LookUps, Subject};
use crate::source::partitions::{FetchError, OwnedPartitions, PartitionReader};
use crate::source::spec::{Assignor, Ends, SourceSpec};
use crate::source::start::{Error, topic_facts};
use crate::telemetry::Throttle;

/// Stands in a commit's list where the coordinator has not answered.
const NO_ANSWER: ErrorCode = ErrorCode(-9_999);
/// How long the library's own thread may take to move a reader.
const SEEK_LIMIT: Duration = Duration::from_secs(1);
/// Log lines a second about one thing.
const LINES_PER_SECOND: u32 = 2;
/// The library is polled at least so often, whatever happens.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long one wait for an event of the farewell takes.
const FAREWELL_STEP: Duration = Duration::from_millis(50);
/// How long the first answer to a join may take: it waits for no other member.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(1);

/// Reads the partitions that the group gives to one handler. Used by one thread.
///
/// Field order is drop order: queues before the consumer, whose destruction would wait for them.
pub struct Source {
    partitions: OwnedPartitions,
    main: Queue,
    commit_answers: Queue,
    look_ups: LookUps,
    consumer: Consumer,
    topics: Vec<CString>,
    wake: WakeHandle,
    assignor: Assignor,
    ends: Ends,
    /// Partitions whose end was told.
    ended: BTreeSet<Partition>,
    feed: Option<FeedReader>,
    feed_failed: bool,
    commit_timeout: Duration,
    commits: BTreeMap<CommitId, InFlight>,
    /// When the library was polled last.
    polled: Duration,
    /// The rebalance that the library waits for an answer to.
    unanswered: Option<GroupRequest>,
    rebalances: u64,
    /// What must not be done while a rebalance is unanswered: the library would take it for the answer.
    deferred: Vec<StartAt>,
    ready: VecDeque<SourceEvent>,
    /// Names the handler in log lines.
    handler: String,
    /// A static member does not leave.
    is_static: bool,
    fetch: FetchLimits,
    /// Of lines about reads that failed.
    read_errors: Throttle,
    /// Of lines about logs whose bounds are not known.
    bounds_lines: Throttle,
}

struct InFlight {
    deadline: Duration,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct GroupRequest {
    id: RebalanceId,
    kind: RebalanceKind,
}

#[derive(Debug)]
enum RebalanceKind {
    Assign,
    /// A revoke or a loss.
    Revoke(Vec<Partition>),
}

impl Source {
    /// Checks that the topics exist and learns what the start policy needs. It is in no group yet: see [`Source::join`].
    /// Waits for brokers that do not answer: `retry` is told each time and may break it off.
    pub fn start(spec: &SourceSpec, wake: WakeHandle, retry: StartupRetry<'_>) -> Result<Source, Error> {
        let topics =
            spec.topic_names().ok_or_else(|| PermanentStartupError::TopicName(spec.topics.join(", ")))?;
        let consumer = Consumer::new(&spec.properties())?;
        let main = consumer.main_queue().wakes(&wake);
        let mut questions = Questions::new(consumer.client(), &main, spec.answer_limit(), retry);
        let broker = questions.broker()?;
        let facts = topic_facts(&mut questions, spec, &topics)?;
        let feed = spec.feed.as_ref().map(|feed| feed.reader(&topics, &wake));
        let subject = Subject {
            group: spec
                .group_name()
                .ok_or_else(|| PermanentStartupError::GroupName(spec.group_id.clone()))?,
            topics: facts,
            broker,
            policy: spec.start,
            wants_ends: spec.ends == Ends::LogEnd,
            isolation: spec.isolation(),
            limit: spec.answer_limit(),
        };
        let requests = Requests::new(consumer.client(), Queue::new(consumer.client()).wakes(&wake));
        let commits = GroupCommits::new(spec.properties(), &wake);
        let look_ups = LookUps::new(subject, requests, commits);
        Ok(Source {
            partitions: OwnedPartitions::default(),
            main,
            commit_answers: Queue::new(consumer.client()).wakes(&wake),
            consumer,
            look_ups,
            topics,
            wake,
            assignor: spec.assignor,
            ends: spec.ends,
            ended: BTreeSet::new(),
            feed,
            feed_failed: false,
            commit_timeout: spec.commit_timeout,
            commits: BTreeMap::new(),
            polled: Duration::ZERO,
            unanswered: None,
            rebalances: 0,
            deferred: Vec::new(),
            ready: VecDeque::new(),
            handler: spec.handler.clone(),
            is_static: spec.group_instance_id.is_some(),
            fetch: spec.fetch,
            read_errors: Throttle::new(LINES_PER_SECOND),
            bounds_lines: Throttle::new(LINES_PER_SECOND),
        })
    }

    /// Joins the group. From here on [`Source::next_event`] must be called, and [`Source::leave`] at the end.
    pub fn join(&self) -> Result<(), Error> {
        let mut subscription = PartitionList::with_capacity(self.topics.len());
        for topic in &self.topics {
            subscription.push(topic, -1, 0);
        }
        self.consumer.subscribe(&subscription).map_err(Error::Subscribe)
    }

    /// The next thing that happened, without waiting. Call it until there is none, after every wake-up and at
    /// [`Source::next_timeout`] at the latest: a consumer that is not polled leaves its group.
    pub fn next_event(&mut self, now: Duration) -> Option<SourceEvent> {
        self.polled = now;
        self.send_look_ups(now);
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // Always a real poll: it is what tells the library that this process is alive.
            if let Some(event) = self.main.poll(Duration::ZERO) {
                self.on_main_event(&event);
            } else if let Some(event) = self.commit_answers.poll_now() {
                self.on_commit_answer(&event);
            } else if let Some(answer) = self.look_ups.next(now) {
                self.on_answer(answer);
            } else if !self.expire_commit(now) && !self.check_feed() {
                self.send_look_ups(now);
                return None;
            }
        }
    }

    fn send_look_ups(&mut self, now: Duration) {
        let reads = self.partitions.all().any(|partition| self.partitions.topic_id(partition) != [0; 16]);
        self.look_ups.send(now, reads);
    }

    /// When [`Source::next_event`] is to be called without a wake-up: a commit runs out of time, a look-up is due, or the
    /// library wants to be polled.
    pub fn next_timeout(&self) -> Duration {
        let poll = self.polled + POLL_INTERVAL;
        let commits = self.commits.values().map(|commit| commit.deadline);
        commits.chain([poll, self.look_ups.next_timeout()]).min().unwrap_or(poll)
    }

    /// The id of the partition's topic; zeros: the brokers do not tell it.
    pub fn topic_id(&self, partition: Partition) -> [u8; 16] {
        self.partitions.topic_id(partition)
    }

    /// Whether a read of this partition may find something.
    pub fn is_ready(&self, partition: Partition) -> bool {
        self.partitions.reader(partition).is_some_and(PartitionReader::is_ready)
    }

    /// Hands over records of one partition, in offset order, without waiting and without copying. A record that
    /// crosses a limit is still handed over; an error or the end of the partition ends the read, after the
    /// records before it. `each` says how many bytes its record counts as; a panic of it ends the process.
    pub fn read(
        &mut self,
        partition: Partition,
        max_events: u32,
        max_bytes: u64,
        each: &mut dyn FnMut(Record<'_>) -> u32,
    ) -> ReadResult {
        let Some(reader) = self.partitions.reader_mut(partition) else { return ReadResult::default() };
        let read = reader.read(max_events, max_bytes, each);
        if read.result.events > 0
            && let Some(feed) = &self.feed
        {
            feed.advance(partition, reader.next);
        }
        if let Some(error) = &read.error {
            self.report_read_error(partition, error);
        }
        if read.out_of_range
            && let Some(asked) = self.partitions.asked(partition)
        {
            self.look_ups.ask_bounds(asked);
        }
        read.result
    }

    /// What it means is for the core to report; this is what the client says.
    fn report_read_error(&mut self, partition: Partition, error: &FetchError) {
        let Some(dropped) = self.read_errors.allow(self.polled) else { return };
        let topic = self.topics.get(usize::from(partition.topic)).map(|topic| topic.to_string_lossy());
        let (handler, topic, partition) = (&self.handler, topic.as_deref(), partition.number);
        let FetchError { code, offset, text } = error;
        tracing::warn!(handler, topic, partition, offset, %code, text, dropped, "fetch failed");
    }

    fn report_unknown_bounds(&mut self, partition: Partition, code: ErrorCode) {
        let Some(dropped) = self.bounds_lines.allow(self.polled) else { return };
        let topic = self.topics.get(usize::from(partition.topic)).map(|topic| topic.to_string_lossy());
        let (handler, topic, partition) = (&self.handler, topic.as_deref(), partition.number);
        let remedy = if code == ErrorCode::TOPIC_AUTHORIZATION_FAILED {
            "grant this user DESCRIBE on the topic"
        } else {
            "see whether the partition's leader runs; it is asked again"
        };
        tracing::warn!(
            handler,
            topic,
            partition,
            %code,
            remedy,
            dropped,
            "it is not known where the log begins and ends: the partition waits"
        );
    }

    /// One past the last offset of the partition's log, as of the last fetch: for lag, not for decisions.
    pub fn last_known_end(&self, partition: Partition) -> Option<i64> {
        let topic = self.topics.get(usize::from(partition.topic))?;
        self.consumer.last_known_end(topic, partition.number)
    }

    /// Finds out where the partition starts; the answer is an event. Dropped if it is not ours (any more).
    pub fn look_up_start(&mut self, partition: Partition) {
        if let Some(asked) = self.partitions.asked(partition) {
            self.look_ups.ask_start(asked);
        }
    }

    /// Answers this assign; or, without one, starts reading partitions whose start was found late. An answer to anything
    /// but what the library waits for now is too late, and means nothing.
    pub fn answer_assign(&mut self, request: Option<RebalanceId>, starts: &[StartAt]) {
        let Some(request) = request else { return self.assign(starts, false) };
        match self.unanswered.take() {
            Some(GroupRequest { id, kind: RebalanceKind::Assign }) if id == request => {
                self.assign(starts, true);
                self.after_answer();
                self.log_partition_growth();
            }
            other => self.answered_too_late(request, other),
        }
    }

    /// What may be fetched ahead was divided when the client was made.
    fn log_partition_growth(&mut self) {
        let partitions = self.partitions.all().count() as u64;
        if partitions <= self.fetch.partitions {
            return;
        }
        let expected = std::mem::replace(&mut self.fetch.partitions, partitions);
        let (handler, each) = (&self.handler, self.fetch.each() >> 10);
        tracing::warn!(
            handler,
            partitions,
            expected,
            kib_each = each,
            remedy = "start Keylane again to divide the budget by the new number",
            "there are more partitions than at the start was expected: more is fetched ahead than `memory_budget` says"
        );
    }

    /// Answers this revoke, or loss: all that the group asked for is given up.
    pub fn answer_revoke(&mut self, request: RebalanceId) {
        match self.unanswered.take() {
            Some(GroupRequest { id, kind: RebalanceKind::Revoke(asked) }) if id == request => {
                self.release(&asked);
                self.after_answer();
            }
            other => self.answered_too_late(request, other),
        }
    }

    fn answered_too_late(&mut self, request: RebalanceId, unanswered: Option<GroupRequest>) {
        tracing::debug!(handler = self.handler, ?request, ?unanswered, "answer to a rebalance that is over");
        self.unanswered = unanswered;
    }

    /// Moves the reader of a partition.
    pub fn reposition(&mut self, partition: Partition, offset: i64) {
        let mut list = self.opener().list(std::iter::once((partition, offset)));
        let Some(reader) = self.partitions.reader_mut(partition) else {
            return self.not_positioned(partition);
        };
        reader.moved(offset);
        if let Err(code) = self.consumer.seek(&mut list, SEEK_LIMIT) {
            reader.halt();
            tracing::warn!(%partition, offset, %code, "seek failed");
            self.not_positioned(partition);
        }
    }

    /// The client did not take the position of a partition that is ours.
    fn not_positioned(&mut self, partition: Partition) {
        self.ready.push_back(SourceEvent::ReadFailed { partition, why: ReadError::SeekFailed });
        self.wake.wake();
    }

    /// Unassigns the partition and assigns it anew: the library refuses to move a reader that was out of range.
    pub fn reassign(&mut self, partition: Partition, offset: i64) {
        if !self.partitions.is_owned(partition) {
            return;
        }
        let start = StartAt { partition, offset };
        self.take_waiting_rebalances();
        if self.unanswered.is_some() {
            self.deferred.push(start);
            return;
        }
        self.unassign_one(partition);
        self.assign(&[start], false);
    }

    /// Asks the coordinator to store these offsets and sets; the answers are events.
    pub fn commit(&mut self, now: Duration, id: CommitId, entries: &[CommitEntry], metadata: &str) {
        let mut list = PartitionList::with_capacity(entries.len());
        for entry in entries {
            if let Some(topic) = self.topics.get(usize::from(entry.partition.topic)) {
                let bytes = metadata_of(entry, metadata).as_bytes();
                list.push_commit(topic, entry.partition.number, entry.offset, bytes, NO_ANSWER);
            }
        }
        let partitions: Vec<Partition> = entries.iter().map(|entry| entry.partition).collect();
        let request = usize::try_from(id.0).unwrap_or(usize::MAX);
        match self.consumer.commit(&list, &self.commit_answers, request) {
            Ok(()) => {
                let deadline = now + self.commit_timeout;
                self.commits.insert(id, InFlight { deadline, partitions });
            }
            Err(code) => {
                for partition in partitions {
                    self.ready.push_back(commit_result(id, partition, code));
                }
                self.wake.wake();
            }
        }
    }

    /// Leaves the group, giving up whatever is still ours. Waits for the coordinator, with limits; `false` if
    /// that was not enough: the group then finds out by itself, after the session timeout.
    ///
    /// `join_limit`: how long a join that is under way is waited for. A client that is closed meanwhile does not ask to
    /// leave, and a member is left behind.
    pub fn leave(mut self, join_limit: Duration, limit: Duration) -> bool {
        self.answer_at_the_end();
        if !self.is_static {
            self.withdraw(Deadline::after(join_limit));
        }
        self.report_leaving(Deadline::after(limit))
    }

    /// Until the client has asked to leave.
    fn withdraw(&mut self, limit: Deadline) {
        // Until its first join is answered a member has no name to leave by, and is one already.
        let first_answer = Deadline::after(FIRST_ANSWER_MAX.min(limit.remaining()));
        while self.rebalances == 0 && !self.consumer.is_member() && !first_answer.is_over() {
            if let Some(event) = self.main.poll(FAREWELL_STEP.min(first_answer.remaining())) {
                self.on_main_event(&event);
            }
        }
        if let Err(code) = self.consumer.unsubscribe() {
            tracing::warn!(%code, "leaving the group failed");
            return;
        }
        while self.consumer.is_member() && !limit.is_over() {
            if let Some(event) = self.main.poll(FAREWELL_STEP.min(limit.remaining())) {
                self.on_main_event(&event);
            }
            self.answer_at_the_end();
        }
    }

    /// Answers a rebalance when nothing is read any more.
    fn answer_at_the_end(&mut self) {
        match self.unanswered.take().map(|rebalance| rebalance.kind) {
            Some(RebalanceKind::Assign) => self.assign(&[], true),
            Some(RebalanceKind::Revoke(partitions)) => self.release(&partitions),
            None => {}
        }
    }

    fn report_leaving(&mut self, limit: Deadline) -> bool {
        let events = Queue::new(self.consumer.client());
        if let Err(code) = self.consumer.close(&events) {
            tracing::warn!(%code, "leaving the group failed");
            return false;
        }
        while !self.consumer.is_closed() && !limit.is_over() {
            if let Some(event) = events.poll(FAREWELL_STEP.min(limit.remaining()))
                && event.kind() == EventKind::Rebalance
            {
                let mine: Vec<Partition> = self.partitions.all().collect();
                self.release(&mine);
            }
        }
        self.consumer.is_closed()
    }
}

fn metadata_of<'a>(entry: &CommitEntry, metadata: &'a str) -> &'a str {
    let (from, to) = entry.metadata;
    usize::try_from(from)
        .ok()
        .zip(usize::try_from(to).ok())
        .and_then(|(from, to)| metadata.get(from..to))
        .expect("the core's ranges lie within the metadata it gives with them")
}

fn commit_result(id: CommitId, partition: Partition, code: ErrorCode) -> SourceEvent {
    let result: Result<(), CommitError> = code.into_result().map_err(commit_error);
    SourceEvent::CommitResult { id, partition, result, code }
}
