//! The consumer of one handler.
mod commits;
mod log;
mod look_up_results;
mod rebalance;

use std::collections::{BTreeSet, VecDeque};
use std::ffi::CString;
use std::time::Duration;

use keylane_core::{CommitEntry, CommitId, Partition, ReadError, RebalanceId, StartAt};

use crate::config::{Assignor, FetchLimits};
use crate::librdkafka::{
    Consumer, Deadline, EventKind, PartitionList, PermanentStartupError, Queue, Requests, StartupRequests,
    StartupRetry, WakeHandle,
};
use crate::source::embedded::FeedReader;
use crate::source::event::{ReadResult, Record, SourceEvent};
use crate::source::look_ups::{GroupCommits, LookUpParameters, LookUps};
use crate::source::partitions::{OwnedPartitions, PartitionReader};
use crate::source::spec::{Ends, SourceSpec};
use crate::source::start::{Error, topic_facts};

use commits::Commits;
use log::SourceLog;

/// Timeout of a seek, which the library's own thread performs.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time between two polls of the library.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of one wait for an event while leaving the group.
const LEAVE_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Timeout of the first response to a join, which does not depend on other members.
const FIRST_RESPONSE_MAX: Duration = Duration::from_secs(1);

/// The consumer of one handler, which reads the partitions that the group assigns. One thread uses it.
///
/// Field order is drop order: the queues first, then the consumer with the last reference to its client.
pub struct Source {
    partitions: OwnedPartitions,
    main: Queue,
    commits: Commits,
    look_ups: LookUps,
    consumer: Consumer,
    topics: Vec<CString>,
    wake: WakeHandle,
    assignor: Assignor,
    ends: Ends,
    /// Partitions whose end was reported.
    ended: BTreeSet<Partition>,
    feed: Option<FeedReader>,
    feed_failed: bool,
    /// The time at which the library was polled last.
    polled: Duration,
    /// The rebalance whose answer the library waits for.
    unanswered: Option<GroupRequest>,
    rebalances: u64,
    /// Assigns deferred while a rebalance is unanswered: the library would take them for the answer.
    deferred: Vec<StartAt>,
    ready: VecDeque<SourceEvent>,
    log: SourceLog,
    /// Whether the consumer is a static member, which does not leave its group.
    is_static: bool,
    fetch: FetchLimits,
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
    /// Checks that the topics exist, or creates them if configured, and reads whether the group has commits for them.
    /// Does not join the group: see [`Source::join`]. Waits for brokers that do not respond: `retry` is called
    /// repeatedly and may end the wait.
    pub fn start(spec: &SourceSpec, wake: WakeHandle, retry: StartupRetry<'_>) -> Result<Source, Error> {
        let topics =
            spec.topic_names().ok_or_else(|| PermanentStartupError::TopicName(spec.topics.join(", ")))?;
        let consumer = Consumer::new(&spec.properties())?;
        let main = consumer.main_queue().wakes(&wake);
        let mut requests = StartupRequests::new(consumer.client(), &main, spec.response_timeout(), retry);
        let broker = requests.broker()?;
        let facts = topic_facts(&mut requests, spec, &topics)?;
        let feed = spec.feed.as_ref().map(|feed| feed.reader(&topics, &wake));
        let parameters = LookUpParameters {
            group: spec
                .group_name()
                .ok_or_else(|| PermanentStartupError::GroupName(spec.group_id.clone()))?,
            topics: facts,
            broker,
            policy: spec.start,
            needs_ends: spec.ends == Ends::LogEnd,
            isolation: spec.isolation(),
            timeout: spec.response_timeout(),
        };
        let requests = Requests::new(consumer.client(), Queue::new(consumer.client()).wakes(&wake));
        let commits = GroupCommits::new(spec.properties(), &wake);
        let look_ups = LookUps::new(parameters, requests, commits);
        Ok(Source {
            partitions: OwnedPartitions::default(),
            main,
            commits: Commits::new(Queue::new(consumer.client()).wakes(&wake), spec.commit_timeout),
            consumer,
            look_ups,
            topics,
            wake,
            assignor: spec.assignor,
            ends: spec.ends,
            ended: BTreeSet::new(),
            feed,
            feed_failed: false,
            polled: Duration::ZERO,
            unanswered: None,
            rebalances: 0,
            deferred: Vec::new(),
            ready: VecDeque::new(),
            log: SourceLog::new(spec.handler.clone(), &spec.topics),
            is_static: spec.group_instance_id.is_some(),
            fetch: spec.fetch,
        })
    }

    /// Joins the group. Afterwards, [`Source::next_event`] must be called regularly, and [`Source::leave`] at the end.
    pub fn join(&self) -> Result<(), Error> {
        let mut subscription = PartitionList::with_capacity(self.topics.len());
        for topic in &self.topics {
            subscription.push(topic, -1, 0);
        }
        self.consumer.subscribe(&subscription).map_err(Error::Subscribe)
    }

    /// Returns the next event, without waiting. Call it until it returns `None`, after every wake-up and at
    /// [`Source::next_timeout`] at the latest: a consumer that is not polled leaves its group.
    pub fn next_event(&mut self, now: Duration) -> Option<SourceEvent> {
        self.polled = now;
        self.send_look_ups(now);
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // The library is polled even if its queue is empty: without polls it leaves the group.
            if let Some(event) = self.main.poll(Duration::ZERO) {
                self.on_main_event(&event);
            } else if let Some(event) = self.commits.next_response() {
                self.ready.extend(self.commits.results(&event, &self.topics));
            } else if let Some(result) = self.look_ups.next(now) {
                self.on_look_up_result(result);
            } else if let Some(id) = self.commits.expire(now) {
                self.ready.push_back(SourceEvent::CommitTimedOut { id });
            } else if !self.check_feed() {
                self.send_look_ups(now);
                return None;
            }
        }
    }

    fn send_look_ups(&mut self, now: Duration) {
        let reads = self.partitions.all().any(|partition| self.partitions.topic_id(partition) != [0; 16]);
        self.look_ups.send(now, reads);
    }

    /// Returns the time to call [`Source::next_event`] without a wake-up: when a commit times out, a look-up is due, or
    /// the library must be polled.
    pub fn next_timeout(&self) -> Duration {
        let poll = self.polled + POLL_INTERVAL;
        let commit = self.commits.next_timeout().unwrap_or(poll);
        poll.min(commit).min(self.look_ups.next_timeout())
    }

    /// Returns the id of the partition's topic; zeros if it is unknown or the brokers report none.
    pub fn topic_id(&self, partition: Partition) -> [u8; 16] {
        self.partitions.topic_id(partition)
    }

    /// Returns whether a read of this partition may return records.
    pub fn is_ready(&self, partition: Partition) -> bool {
        self.partitions.reader(partition).is_some_and(PartitionReader::is_ready)
    }

    /// Passes records of one partition to `each`, in offset order, without waiting or copying. The record that exceeds
    /// a limit is still passed. An error or the end of the partition ends the read, after the records before it. `each`
    /// returns the number of bytes that its record counts as; a panic in it ends the process.
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
            self.log.read_failed(self.polled, partition, error);
        }
        if read.out_of_range
            && let Some(id) = self.partitions.look_up_id(partition)
        {
            self.look_ups.request_bounds(id);
        }
        read.result
    }

    /// Returns one past the last offset of the partition's log, as of the last fetch. The value is for the lag only,
    /// not for decisions.
    pub fn last_known_end(&self, partition: Partition) -> Option<i64> {
        let topic = self.topics.get(usize::from(partition.topic))?;
        self.consumer.last_known_end(topic, partition.number)
    }

    /// Looks up the start position of the partition; the result is an event. Ignored if the partition is not owned.
    pub fn look_up_start(&mut self, partition: Partition) {
        if let Some(id) = self.partitions.look_up_id(partition) {
            self.look_ups.request_start(id);
        }
    }

    /// Answers this assign and starts reading. Without a request, starts reading partitions whose start position was
    /// found after the answer. An answer to any rebalance but the pending one is ignored as late.
    pub fn answer_assign(&mut self, request: Option<RebalanceId>, starts: &[StartAt]) {
        let Some(request) = request else { return self.assign(starts, false) };
        match self.unanswered.take() {
            Some(GroupRequest { id, kind: RebalanceKind::Assign }) if id == request => {
                self.assign(starts, true);
                self.after_answer();
                self.log_partition_growth();
            }
            other => self.ignore_late_answer(request, other),
        }
    }

    /// Logs that more partitions are owned than expected: the prefetch budget was divided when the client was created.
    fn log_partition_growth(&mut self) {
        let partitions = self.partitions.all().count() as u64;
        if partitions <= self.fetch.partitions {
            return;
        }
        let expected = std::mem::replace(&mut self.fetch.partitions, partitions);
        self.log.more_partitions(partitions, expected, self.fetch.each());
    }

    /// Answers this revoke or loss: releases all its partitions.
    pub fn answer_revoke(&mut self, request: RebalanceId) {
        match self.unanswered.take() {
            Some(GroupRequest { id, kind: RebalanceKind::Revoke(partitions) }) if id == request => {
                self.release(&partitions);
                self.after_answer();
            }
            other => self.ignore_late_answer(request, other),
        }
    }

    fn ignore_late_answer(&mut self, request: RebalanceId, unanswered: Option<GroupRequest>) {
        self.log.late_answer(request, &unanswered);
        self.unanswered = unanswered;
    }

    /// Moves the reader of a partition to this offset.
    pub fn reposition(&mut self, partition: Partition, offset: i64) {
        let mut list = self.opener().list(std::iter::once((partition, offset)));
        let Some(reader) = self.partitions.reader_mut(partition) else {
            return self.not_positioned(partition);
        };
        reader.moved(offset);
        if let Err(code) = self.consumer.seek(&mut list, SEEK_TIMEOUT) {
            reader.halt();
            tracing::warn!(%partition, offset, %code, "seek failed");
            self.not_positioned(partition);
        }
    }

    /// Reports that a partition could not be assigned or repositioned.
    fn not_positioned(&mut self, partition: Partition) {
        self.ready.push_back(SourceEvent::ReadFailed { partition, why: ReadError::SeekFailed });
        self.wake.wake();
    }

    /// Unassigns the partition and assigns it again: the library can't seek a reader that was out of range.
    pub fn reassign(&mut self, partition: Partition, offset: i64) {
        if !self.partitions.is_owned(partition) {
            return;
        }
        let start = StartAt { partition, offset };
        self.take_queued_rebalances();
        if self.unanswered.is_some() {
            self.deferred.push(start);
            return;
        }
        self.unassign_one(partition);
        self.assign(&[start], false);
    }

    /// Commits these offsets with their metadata; the results are events.
    pub fn commit(&mut self, now: Duration, id: CommitId, entries: &[CommitEntry], metadata: &str) {
        let rejected = self.commits.send((&self.consumer, &self.topics), now, id, entries, metadata);
        if !rejected.is_empty() {
            self.ready.extend(rejected);
            self.wake.wake();
        }
    }

    /// Leaves the group and releases all owned partitions. Waits for the coordinator, with time-outs. Returns whether the
    /// consumer was closed in time; if not, the coordinator removes the member after the session timeout.
    ///
    /// `join_timeout`: how long to wait for a pending join. A client that is closed during a join sends no leave request,
    /// and its member stays in the group until the session timeout.
    pub fn leave(mut self, join_timeout: Duration, timeout: Duration) -> bool {
        self.answer_pending();
        if !self.is_static {
            self.withdraw(Deadline::after(join_timeout));
        }
        self.close_consumer(Deadline::after(timeout))
    }

    /// Requests to leave the group, and waits until the client has sent the request.
    fn withdraw(&mut self, deadline: Deadline) {
        // Before the first response to its join the client is already a member, but lacks the member id that a leave
        // request needs.
        let first_response = Deadline::after(FIRST_RESPONSE_MAX.min(deadline.remaining()));
        while self.rebalances == 0 && !self.consumer.is_member() && !first_response.is_over() {
            if let Some(event) = self.main.poll(LEAVE_POLL_INTERVAL.min(first_response.remaining())) {
                self.on_main_event(&event);
            }
        }
        if let Err(code) = self.consumer.unsubscribe() {
            tracing::warn!(%code, "leaving the group failed");
            return;
        }
        while self.consumer.is_member() && !deadline.is_over() {
            if let Some(event) = self.main.poll(LEAVE_POLL_INTERVAL.min(deadline.remaining())) {
                self.on_main_event(&event);
            }
            self.answer_pending();
        }
    }

    /// Answers a pending rebalance after reading has ended.
    fn answer_pending(&mut self) {
        match self.unanswered.take().map(|rebalance| rebalance.kind) {
            Some(RebalanceKind::Assign) => self.assign(&[], true),
            Some(RebalanceKind::Revoke(partitions)) => self.release(&partitions),
            None => {}
        }
    }

    fn close_consumer(&mut self, deadline: Deadline) -> bool {
        let events = Queue::new(self.consumer.client());
        if let Err(code) = self.consumer.close(&events) {
            tracing::warn!(%code, "leaving the group failed");
            return false;
        }
        while !self.consumer.is_closed() && !deadline.is_over() {
            if let Some(event) = events.poll(LEAVE_POLL_INTERVAL.min(deadline.remaining()))
                && event.kind() == EventKind::Rebalance
            {
                let mine: Vec<Partition> = self.partitions.all().collect();
                self.release(&mine);
            }
        }
        self.consumer.is_closed()
    }
}
