//! The consumer of one handler.
mod commits;
mod ends;
mod leave;
mod log;
mod lookup_results;
mod rebalance;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{CommitEntry, CommitId, LogEnd, Partition, ReadError, RebalanceId, StartAt};

use crate::config::{Assignor, FetchLimits};
use crate::librdkafka::{
    Consumer, GroupMetadata, KeepWaiting, LatestStatistics, PartitionList, Queue, Record, Requests,
    StartupError, StartupRequests, WakeHandle,
};
use crate::source::event::{ReadResult, SourceEvent};
use crate::source::log_ends::{IDLE_MIN, LogEnds};
use crate::source::lookups::{CommittedOffsetsReader, LookupParameters, Lookups, MemberCheck};
use crate::source::partitions::{ConsumerContext, OwnedPartitions, PartitionReader};
use crate::source::spec::{Ends, SourceSpec};
use crate::source::startup_checks::{Error, topic_facts};
use crate::source::topic_settings;
use crate::status::DeliveryMode;

use commits::PendingCommits;
use ends::PartitionEnds;
use log::SourceLog;
use rebalance::{PendingRebalance, RebalanceKind, Rebalances};

/// Timeout of a seek, which the library's own thread performs.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time between two polls of the library.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The consumer of one handler, which reads the partitions that the group assigns. One thread uses it.
pub struct Source {
    context: ConsumerContext,
    /// The queue of rebalances, errors and statistics.
    main_queue: Queue,
    partitions: OwnedPartitions,
    rebalances: Rebalances,
    lookups: Lookups,
    /// Of idle partitions.
    log_ends: LogEnds,
    /// Of partitions with events that wait in a gate.
    gate_ends: LogEnds,
    commits: PendingCommits,
    ends: PartitionEnds,
    pending_events: VecDeque<SourceEvent>,
    /// The time at which the library was polled last.
    polled_at: Duration,
    log: SourceLog,
    assignor: Assignor,
    /// Whether the consumer is a static member, which does not leave its group.
    is_static: bool,
    fetch: FetchLimits,
    statistics: Option<Arc<LatestStatistics>>,
}

impl Source {
    /// Checks that the topics exist, or creates them if configured, and reads whether the group has commits for them.
    /// Does not join the group: see [`Source::join`]. Waits for brokers that do not respond: `keep_waiting` is called
    /// repeatedly and may end the wait.
    pub fn start(
        spec: &SourceSpec,
        wake: WakeHandle,
        keep_waiting: KeepWaiting<'_>,
    ) -> Result<Source, Error> {
        let topics = spec.topic_names().ok_or_else(|| StartupError::TopicName(spec.topics.join(", ")))?;
        let consumer = Consumer::new(&spec.consumer_properties())?;
        let main_queue = consumer.main_queue().with_wake(&wake);
        let mut requests =
            StartupRequests::new(consumer.client(), &main_queue, spec.response_timeout(), keep_waiting);
        let broker = requests.broker()?;
        let facts = topic_facts(&mut requests, spec, &topics)?;
        topic_settings::check(&mut requests, &spec.handler, &topics, spec.needs)?;
        let feed = spec.feed.as_ref().map(|feed| feed.add_source(&topics, &wake));
        let parameters = LookupParameters {
            group: spec.group_name().ok_or_else(|| StartupError::GroupName(spec.group_id.clone()))?,
            topics: facts,
            broker,
            policy: spec.start,
            needs_ends: spec.ends == Ends::LogEnd,
            isolation: spec.isolation(),
            timeout: spec.response_timeout(),
            // The embedded broker does not describe groups, and its only member is this process.
            member_check: (spec.delivery == DeliveryMode::Transactional && spec.feed.is_none())
                .then(|| MemberCheck { instance_id: spec.group_instance_id.clone() }),
        };
        let requests = Requests::new(consumer.client(), Queue::new(consumer.client()).with_wake(&wake));
        let log_ends = Requests::new(consumer.client(), Queue::new(consumer.client()).with_wake(&wake));
        let gate_ends = Requests::new(consumer.client(), Queue::new(consumer.client()).with_wake(&wake));
        let committed = CommittedOffsetsReader::new(spec.properties(), &wake);
        let commit_responses = Queue::new(consumer.client()).with_wake(&wake);
        Ok(Source {
            context: ConsumerContext { consumer, topics, wake },
            main_queue,
            partitions: OwnedPartitions::default(),
            rebalances: Rebalances::default(),
            lookups: Lookups::new(parameters, requests, committed),
            log_ends: LogEnds::new(log_ends),
            gate_ends: LogEnds::new(gate_ends),
            commits: PendingCommits::new(commit_responses, spec.commit_timeout),
            ends: PartitionEnds::new(spec.ends, feed),
            pending_events: VecDeque::new(),
            polled_at: Duration::ZERO,
            log: SourceLog::new(spec.handler.clone(), &spec.topics),
            assignor: spec.assignor,
            is_static: spec.group_instance_id.is_some(),
            fetch: spec.fetch,
            statistics: spec.statistics.clone(),
        })
    }

    /// Joins the group. Afterwards, [`Source::next_event`] must be called regularly, and [`Source::leave`] at the end.
    pub fn join(&self) -> Result<(), Error> {
        let mut subscription = PartitionList::with_capacity(self.context.topics.len());
        for topic in &self.context.topics {
            subscription.push(topic, -1, 0);
        }
        self.context.consumer.subscribe(&subscription).map_err(Error::Subscribe)
    }

    /// Returns the next event, without waiting. Call it until it returns `None`, after every wake-up and at
    /// [`Source::next_timeout`] at the latest: a consumer that is not polled leaves its group.
    pub fn next_event(&mut self, now: Duration) -> Option<SourceEvent> {
        self.polled_at = now;
        self.send_lookups(now);
        let idle = self.partitions.idle_since(now.saturating_sub(IDLE_MIN));
        self.log_ends.request(now, &self.context, idle);
        self.gate_ends.request_singly(now, &self.context);
        loop {
            if let Some(event) = self.pending_events.pop_front() {
                return Some(event);
            }
            // The library is polled even if its queue is empty: without polls it leaves the group.
            if let Some(event) = self.main_queue.poll(Duration::ZERO) {
                self.on_main_event(event);
            } else if let Some(event) = self.commits.next_response() {
                self.pending_events.extend(self.commits.results(&event, &self.context));
            } else if let Some(result) = self.lookups.next(now) {
                self.on_lookup_result(result);
            } else if let Some(ends) = self.log_ends.next(&self.context) {
                let event = |(partition, end, _)| SourceEvent::LogEnd { partition, end };
                self.pending_events.extend(ends.into_iter().map(event));
            } else if let Some(ends) = self.gate_ends.next(&self.context) {
                let event = |(partition, end, sent_at)| match end {
                    LogEnd::At(end) => Some(SourceEvent::LogEndSeen { partition, end, sent_at }),
                    LogEnd::LeaderUnavailable | LogEnd::Unknown => None,
                };
                self.pending_events.extend(ends.into_iter().filter_map(event));
            } else if let Some(id) = self.commits.expire(now) {
                self.pending_events.push_back(SourceEvent::CommitTimedOut { id });
            } else {
                self.pending_events.extend(self.ends.check_feed(self.partitions.all()));
                if self.pending_events.is_empty() {
                    self.send_lookups(now);
                    return None;
                }
            }
        }
    }

    fn send_lookups(&mut self, now: Duration) {
        let check_topic_ids =
            self.partitions.all().any(|partition| self.partitions.topic_id(partition) != [0; 16]);
        self.lookups.send(now, check_topic_ids);
    }

    /// Returns the time to call [`Source::next_event`] without a wake-up: when a commit times out, a lookup is due, or
    /// the library must be polled.
    pub fn next_timeout(&self) -> Duration {
        let poll = self.polled_at + POLL_INTERVAL;
        let commit = self.commits.next_timeout().unwrap_or(poll);
        poll.min(commit).min(self.lookups.next_timeout())
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
        if read.result.records > 0 {
            reader.read_at = self.polled_at;
            self.ends.advance(partition, reader.next);
        }
        if let Some(error) = &read.error {
            self.log.read_failed(self.polled_at, partition, error);
        }
        if read.out_of_range
            && let Some(id) = self.partitions.lookup_id(partition)
        {
            self.lookups.request_bounds(id);
        }
        read.result
    }

    /// Returns one past the last offset of the partition's log, as of the last fetch. The value is for the lag only,
    /// not for decisions.
    pub fn last_known_end(&self, partition: Partition) -> Option<i64> {
        let topic = self.context.topic(partition)?;
        self.context.consumer.last_known_end(topic, partition.number)
    }

    /// Requests the ends of these logs; the results are events. A request that fails has none.
    pub fn request_log_ends(&mut self, now: Duration, partitions: &[Partition]) {
        self.gate_ends.request_now(now, &self.context, partitions);
    }

    /// Looks up the start position of the partition; the result is an event. Ignored if the partition is not owned.
    pub fn look_up_start(&mut self, partition: Partition) {
        if let Some(id) = self.partitions.lookup_id(partition) {
            self.lookups.request_start(id);
        }
    }

    /// Answers this assign and starts reading these partitions. An answer to any rebalance but the pending one is ignored
    /// as late.
    pub fn answer_assign(&mut self, request: RebalanceId, starts: &[StartAt]) {
        match self.rebalances.unanswered.take() {
            Some(PendingRebalance { id, kind: RebalanceKind::Assign }) if id == request => {
                self.assign(starts, true);
                self.after_answer();
                self.log_partition_growth();
            }
            other => self.ignore_late_answer(request, other),
        }
    }

    /// Starts reading partitions whose start position was found after the answer to their assign.
    pub fn start_reading(&mut self, starts: &[StartAt]) {
        self.assign(starts, false);
    }

    /// Logs that more partitions are owned than expected: the prefetch budget was divided when the client was created.
    fn log_partition_growth(&mut self) {
        let partitions = self.partitions.all().count() as u64;
        if partitions <= self.fetch.partitions {
            return;
        }
        let expected = std::mem::replace(&mut self.fetch.partitions, partitions);
        self.log.more_partitions(partitions, expected, self.fetch.per_partition());
    }

    /// Answers this revoke or loss: releases all its partitions.
    pub fn answer_revoke(&mut self, request: RebalanceId) {
        match self.rebalances.unanswered.take() {
            Some(PendingRebalance { id, kind: RebalanceKind::Revoke(partitions) }) if id == request => {
                self.release(&partitions);
                self.after_answer();
            }
            other => self.ignore_late_answer(request, other),
        }
    }

    fn ignore_late_answer(&mut self, request: RebalanceId, unanswered: Option<PendingRebalance>) {
        self.log.late_answer(request, &unanswered);
        self.rebalances.unanswered = unanswered;
    }

    /// Moves the reader of a partition to this offset.
    pub fn reposition(&mut self, partition: Partition, offset: i64) {
        let mut list = self.context.list(std::iter::once((partition, offset)));
        let Some(reader) = self.partitions.reader_mut(partition) else {
            return self.not_positioned(partition);
        };
        reader.moved(offset);
        if let Err(code) = self.context.consumer.seek(&mut list, SEEK_TIMEOUT) {
            reader.halt();
            self.log.seek_failed(partition, offset, code);
            self.not_positioned(partition);
        }
    }

    /// Reports that a partition could not be assigned or repositioned.
    fn not_positioned(&mut self, partition: Partition) {
        self.pending_events.push_back(SourceEvent::ReadFailed { partition, why: ReadError::SeekFailed });
        self.context.wake.wake();
    }

    /// Unassigns the partition and assigns it again: the library can't seek a reader that was out of range.
    pub fn reassign(&mut self, partition: Partition, offset: i64) {
        if !self.partitions.is_owned(partition) {
            return;
        }
        let start = StartAt { partition, offset };
        self.take_queued_rebalances();
        if self.rebalances.defer_while_unanswered(&[start]) {
            return;
        }
        self.unassign_one(partition);
        self.assign(&[start], false);
    }

    /// Returns the membership that a transaction commits offsets with; `None`: the client is not a member, or the core has
    /// not handled every rebalance yet. Partitions that are owned now can have another owner only in a later generation,
    /// and the coordinator rejects this membership then.
    pub fn group_metadata(&mut self) -> Option<GroupMetadata> {
        self.take_queued_rebalances();
        let is_rebalance = |event: &SourceEvent| {
            matches!(event, SourceEvent::Assign(..) | SourceEvent::Revoke(..) | SourceEvent::Lost(..))
        };
        if self.pending_events.iter().any(is_rebalance) {
            self.context.wake.wake();
            return None;
        }
        self.context.consumer.group_metadata()
    }

    /// Commits these offsets with their metadata; the results are events.
    pub fn commit(&mut self, now: Duration, id: CommitId, entries: &[CommitEntry], metadata: &str) {
        let rejected = self.commits.send(&self.context, now, id, entries, metadata);
        if !rejected.is_empty() {
            self.pending_events.extend(rejected);
            self.context.wake.wake();
        }
    }
}
