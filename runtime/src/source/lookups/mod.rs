//! Lookups: the start positions of partitions, the bounds of their logs, and the ids of their topics.
//!
//! Nothing here blocks. Each partition has its own requests to the leader of its log: a leader that does not respond
//! delays only its own partitions. The committed offsets of partitions that are looked up together come in one response
//! of the coordinator.
//!
//! The first try may take [`FIRST_TRY_TIMEOUT`]. Each try after a timeout may take twice as long, up to the client's own
//! limit, `socket.timeout.ms`. A try stays with the broker that it was sent to, even if the leader moves. When a request
//! times out, the client closes the connection and requests metadata (`socket.max.fails`), so the next try finds the new
//! leader.
mod committed_offsets;
mod lookup;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString};
use std::time::Duration;

use keylane_core::Partition;

use super::event::StartPosition;
use crate::config::StartPolicy;
use crate::librdkafka::{
    AdminBroker, BEGINNING, ClientEvent, END, ErrorCode, Isolation, PartitionList, Requests, TopicDescription,
};
pub(super) use committed_offsets::{CommittedOffsetsReader, MemberCheck};
use committed_offsets::{CommittedOffsetsRequest, CommittedOffsetsResponse, NoOffsets};
use lookup::{Lookup, LookupKind, OffsetKind};

/// Timeout of the first try of a lookup: long enough for consecutive responses of a slow broker (two connections, the
/// coordinator's name and the offsets), short enough if a broker is down.
const FIRST_TRY_TIMEOUT: Duration = Duration::from_secs(6);
/// Maximum number of doublings: more than any limit allows.
const DOUBLINGS_MAX: u32 = 16;
/// Timeout of a request for the topics' ids. It is short, because the ids are already known and rarely change.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of the check that no topic was deleted and created again, and of its number of partitions.
const TOPICS_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before bounds that were not found are requested again.
const BOUNDS_PAUSE: Duration = Duration::from_millis(500);

/// The subject of a lookup: a partition under one assignment. A result for an older assignment is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LookupId {
    pub(super) partition: Partition,
    pub(super) assignment: u64,
}

/// One lookup of a partition. A response to an older lookup is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LookupKey {
    partition: Partition,
    /// The number that distinguishes the lookup from others of the same partition.
    serial: u64,
}

/// The result of a lookup.
pub(super) enum LookupResult {
    Start {
        id: LookupId,
        found: Result<StartPosition, NotFound>,
    },
    Bounds {
        id: LookupId,
        found: Bounds,
    },
    /// The bounds could not be found. They are requested again after a pause.
    BoundsUnknown {
        partition: Partition,
        code: ErrorCode,
    },
    /// Transactional delivery: the group has this member, which does not have it.
    OtherDelivery(String),
    /// This topic, by its index, was deleted and created again.
    TopicRecreated(u16),
    /// This topic, by its index, has this number of partitions: reported at its first description, and when it changes.
    PartitionCount(u16, i32),
}

/// The first offset of a log, one past its last offset, and the id of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) topic_id: [u8; 16],
}

/// Why a start position could not be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotFound {
    /// The reason, for log lines.
    pub(super) reason: String,
    /// Whether a transaction that commits an offset of the partition is still open.
    pub(super) transaction_open: bool,
}

/// The facts about a topic: determined before the source subscribes, updated when the topic is described again.
#[derive(Clone, Debug)]
pub(super) struct TopicFacts {
    pub(super) name: CString,
    /// The id of the topic as the brokers last described it.
    pub(super) id: [u8; 16],
    /// The number of partitions when the source started, or when the topic was created again.
    pub(super) partitions: i32,
    /// Whether the start policy applies to these partitions: the group had no commit for any of them, and the topic was
    /// not replaced since.
    pub(super) start_policy_applies: bool,
}

/// The parameters of all lookups of a source.
pub(super) struct LookupParameters {
    pub(super) group: CString,
    pub(super) topics: Vec<TopicFacts>,
    pub(super) broker: AdminBroker,
    pub(super) policy: StartPolicy,
    /// Whether processing ends at the end of the log.
    pub(super) needs_ends: bool,
    /// The consumer's isolation level.
    pub(super) isolation: Isolation,
    /// The longest timeout of a try.
    pub(super) timeout: Duration,
    /// Transactional delivery: the check of the group's members. No start is found while one fails it.
    pub(super) member_check: Option<MemberCheck>,
}

/// All lookups of a source.
pub(super) struct Lookups {
    parameters: LookupParameters,
    requests: Requests,
    committed: CommittedOffsetsReader,
    /// The number of consecutive timeouts, for partitions whose last lookup timed out.
    timed_out: BTreeMap<Partition, u32>,
    /// Requests without a response.
    sent: BTreeMap<usize, Sent>,
    /// The lookups in progress, by partition. A later lookup replaces an earlier one.
    in_progress: BTreeMap<Partition, Lookup>,
    serials: u64,
    /// Lookups that have all their responses, or failed.
    finished: VecDeque<LookupKey>,
    /// Start positions to request. Lookups that are requested together share the requests for commits and topic ids.
    starts: Vec<LookupId>,
    /// Bounds to request, each with its earliest time.
    bounds: Vec<(Duration, LookupId)>,
    /// The time at which the topics are described next.
    topics_at: Duration,
    /// Topics that were deleted and created again, and that were not returned yet.
    recreated: VecDeque<u16>,
    /// By topic: the number of partitions when it was described last.
    counts: BTreeMap<u16, i32>,
    /// Numbers of partitions that were not returned yet.
    new_counts: VecDeque<(u16, i32)>,
    /// A member that does not have transactional delivery, and that was not returned yet.
    other_delivery: Option<String>,
}

/// The subject of a request.
enum Sent {
    Offset(LookupKey, OffsetKind),
    /// The lookups that wait for the response.
    Topics(Vec<LookupKey>),
}

impl Lookups {
    pub(super) fn new(
        parameters: LookupParameters,
        requests: Requests,
        committed: CommittedOffsetsReader,
    ) -> Lookups {
        Lookups {
            parameters,
            requests,
            committed,
            timed_out: BTreeMap::new(),
            sent: BTreeMap::new(),
            in_progress: BTreeMap::new(),
            serials: 0,
            finished: VecDeque::new(),
            starts: Vec::new(),
            bounds: Vec::new(),
            topics_at: TOPICS_INTERVAL,
            recreated: VecDeque::new(),
            counts: BTreeMap::new(),
            new_counts: VecDeque::new(),
            other_delivery: None,
        }
    }

    pub(super) fn request_start(&mut self, id: LookupId) {
        self.starts.push(id);
    }

    /// Checks the members of the group, if that is required: at every assign, also one without new partitions.
    pub(super) fn check_members(&mut self) {
        if self.parameters.member_check.is_some() {
            self.send_committed(PartitionList::with_capacity(0), Vec::new());
        }
    }

    pub(super) fn request_bounds(&mut self, id: LookupId) {
        self.bounds.push((Duration::ZERO, id));
    }

    /// Returns the id that this topic had when the brokers described it last.
    pub(super) fn topic_id(&self, topic: u16) -> [u8; 16] {
        self.parameters.topics.get(usize::from(topic)).map_or([0; 16], |facts| facts.id)
    }

    /// Returns the number of partitions that this topic had when the source started, or when it was created again.
    pub(super) fn partitions_at_start(&self, topic: u16) -> i32 {
        self.parameters.topics.get(usize::from(topic)).map_or(0, |facts| facts.partitions)
    }

    /// Sends the requests that are due. `check_topic_ids`: whether the ids of the topics are checked regularly, because
    /// partitions of topics with a known id are owned.
    pub(super) fn send(&mut self, now: Duration, check_topic_ids: bool) {
        if !self.starts.is_empty() {
            let starts = std::mem::take(&mut self.starts);
            self.send_starts(&starts);
        }
        while let Some(at) = self.bounds.iter().position(|(due, _)| *due <= now) {
            let (_, id) = self.bounds.swap_remove(at);
            self.send_bounds(id);
        }
        if now >= self.topics_at {
            self.topics_at = now + TOPICS_INTERVAL;
            if check_topic_ids && !self.sent.values().any(|sent| matches!(sent, Sent::Topics(_))) {
                self.send_topics(Vec::new());
            }
        }
    }

    /// Returns the time at which [`Lookups::send`] is due if no lookup is requested before.
    pub(super) fn next_timeout(&self) -> Duration {
        self.bounds.iter().map(|(due, _)| *due).chain([self.topics_at]).min().unwrap_or(self.topics_at)
    }

    /// Returns the next result, if there is one.
    pub(super) fn next(&mut self, now: Duration) -> Option<LookupResult> {
        loop {
            // Before the starts that were looked up together with it.
            if let Some((topic, count)) = self.new_counts.pop_front() {
                return Some(LookupResult::PartitionCount(topic, count));
            }
            if let Some(topic) = self.recreated.pop_front() {
                return Some(LookupResult::TopicRecreated(topic));
            }
            if let Some(member) = self.other_delivery.take() {
                return Some(LookupResult::OtherDelivery(member));
            }
            if let Some(result) = self.take_finished(now) {
                return Some(result);
            }
            if let Some(response) = self.committed.next_response() {
                self.take_committed(&response);
                continue;
            }
            let event = self.requests.next_response()?;
            self.take_response(&event);
        }
    }

    fn send_starts(&mut self, starts: &[LookupId]) {
        let mut all = PartitionList::with_capacity(starts.len());
        let mut keys = Vec::with_capacity(starts.len());
        for id in starts {
            let partition = id.partition;
            let Some(facts) = self.parameters.topics.get(usize::from(partition.topic)) else { continue };
            all.push(&facts.name, partition.number, END);
            let mut kinds = vec![OffsetKind::LogStart, OffsetKind::LogEnd];
            // The start policy may need the following offsets. Whether it applies depends on the committed offsets,
            // which are not known yet.
            let may_apply = facts.start_policy_applies_to(partition);
            let policy = self.parameters.policy;
            if self.parameters.needs_ends || (may_apply && policy != StartPolicy::Earliest) {
                kinds.push(OffsetKind::StableEnd);
            }
            if may_apply && matches!(policy, StartPolicy::Time(_)) {
                kinds.push(OffsetKind::AtTime);
            }
            keys.push(self.begin(*id, LookupKind::Start, &kinds, 2));
        }
        if keys.is_empty() {
            return;
        }
        self.send_topics(keys.clone());
        self.send_committed(all, keys);
    }

    fn send_committed(&mut self, partitions: PartitionList, lookups: Vec<LookupKey>) {
        let timeouts = lookups.iter().map(|key| self.timeout(key.partition));
        let timeout = timeouts.max().unwrap_or(FIRST_TRY_TIMEOUT);
        let group = self.parameters.group.clone();
        let check = self.parameters.member_check.clone();
        let request = CommittedOffsetsRequest { group, partitions, timeout, check, lookups };
        if let Some(response) = self.committed.send(request) {
            self.take_committed(&response);
        }
    }

    /// Returns the timeout of the next try for this partition.
    fn timeout(&self, partition: Partition) -> Duration {
        let doublings = self.timed_out.get(&partition).copied().unwrap_or(0).min(DOUBLINGS_MAX);
        (FIRST_TRY_TIMEOUT * 2_u32.pow(doublings)).min(self.parameters.timeout)
    }

    fn send_bounds(&mut self, id: LookupId) {
        let key = self.begin(id, LookupKind::Bounds, &[OffsetKind::LogStart, OffsetKind::LogEnd], 1);
        self.send_topics(vec![key]);
    }

    /// Begins a lookup that waits for these offsets of the partition's log and for `others` more responses.
    fn begin(&mut self, id: LookupId, kind: LookupKind, offsets: &[OffsetKind], others: usize) -> LookupKey {
        self.serials += 1;
        let key = LookupKey { partition: id.partition, serial: self.serials };
        for offset in offsets {
            self.send_offset(key, *offset);
        }
        let lookup = Lookup::new(id, key, kind, offsets.len() + others);
        self.in_progress.insert(id.partition, lookup);
        key
    }

    fn send_offset(&mut self, key: LookupKey, kind: OffsetKind) {
        let partition = key.partition;
        let Some(facts) = self.parameters.topics.get(usize::from(partition.topic)) else { return };
        let (at, isolation) = match (kind, self.parameters.policy) {
            (OffsetKind::LogStart, _) => (BEGINNING, Isolation::Uncommitted),
            // An offset after the start of an open transaction is inside the log, too.
            (OffsetKind::LogEnd, _) => (END, Isolation::Uncommitted),
            (OffsetKind::StableEnd, _) => (END, self.parameters.isolation),
            (OffsetKind::AtTime, StartPolicy::Time(millis)) => (millis, self.parameters.isolation),
            (OffsetKind::AtTime, StartPolicy::Earliest | StartPolicy::Latest) => return,
        };
        let mut list = PartitionList::with_capacity(1);
        list.push(&facts.name, partition.number, at);
        let number = self.requests.log_offsets(list, isolation, self.timeout(partition));
        self.sent.insert(number, Sent::Offset(key, kind));
    }

    fn send_topics(&mut self, waiting: Vec<LookupKey>) {
        let names: Vec<CString> = self.parameters.topics.iter().map(|topic| topic.name.clone()).collect();
        let number = self.requests.topics(&names, self.parameters.broker, TOPICS_TIMEOUT);
        self.sent.insert(number, Sent::Topics(waiting));
    }

    fn take_response(&mut self, event: &ClientEvent) {
        match self.sent.remove(&event.request()) {
            Some(Sent::Offset(key, kind)) => {
                let found = event.log_offsets().and_then(|entries| {
                    let entry = entries.first().ok_or(ErrorCode::UNKNOWN_PARTITION)?;
                    entry.error.into_result().map(|()| entry.offset)
                });
                self.update(key, |lookup| lookup.offset_found(kind, found));
            }
            Some(Sent::Topics(waiting)) => {
                self.take_topics(&event.topics().unwrap_or_default());
                for key in waiting {
                    self.update(key, Lookup::topic_described);
                }
            }
            None => {}
        }
    }

    fn take_committed(&mut self, response: &CommittedOffsetsResponse) {
        if let (Err(NoOffsets::OtherDelivery(member)), []) = (&response.found, &*response.lookups) {
            self.other_delivery = Some(member.clone());
        }
        for &key in &response.lookups {
            let partition = key.partition;
            let name =
                self.parameters.topics.get(usize::from(partition.topic)).map(|facts| facts.name.clone());
            let of_partition = |list: &PartitionList| {
                let name = name.as_deref()?;
                let entry = list.iter().find(|e| e.topic == name && e.partition == partition.number)?;
                let commit = (entry.offset >= 0).then(|| (entry.offset, entry.metadata.to_vec()));
                Some(entry.error.into_result().map(|()| commit).map_err(NoOffsets::Failed))
            };
            let commit = match &response.found {
                Ok(list) => {
                    of_partition(list).unwrap_or(Err(NoOffsets::Failed(ErrorCode::UNKNOWN_PARTITION)))
                }
                Err(why) => Err(why.clone()),
            };
            self.update(key, |lookup| lookup.committed_found(commit));
        }
    }

    /// Updates the topics' ids and numbers of partitions. A topic that is not described keeps its last known id. One
    /// description may show that several topics were deleted and created again.
    pub(in crate::source) fn take_topics(&mut self, described: &[TopicDescription]) {
        for described in described {
            let known =
                (0..).zip(&mut self.parameters.topics).find(|(_, topic)| topic.name == described.name);
            let Some((index, topic)) = known.filter(|_| described.error.is_none()) else { continue };
            if self.counts.insert(index, described.partitions) != Some(described.partitions) {
                self.new_counts.push_back((index, described.partitions));
            }
            if described.id == [0; 16] || topic.id == described.id {
                continue;
            }
            if topic.id != [0; 16] {
                self.recreated.push_back(index);
                // The partitions of a recreated topic start at their first record, whatever the policy.
                topic.start_policy_applies = false;
                topic.partitions = described.partitions;
                self.topics_at = Duration::ZERO; // a topic that was not described may have been recreated, too
            }
            topic.id = described.id;
        }
    }

    fn update(&mut self, key: LookupKey, change: impl FnOnce(&mut Lookup)) {
        let current = self.in_progress.get_mut(&key.partition).filter(|lookup| lookup.key == key);
        if let Some(lookup) = current {
            let was_finished = lookup.is_finished();
            change(lookup);
            if !was_finished && lookup.is_finished() {
                self.finished.push_back(key);
            }
        }
    }

    fn take_finished(&mut self, now: Duration) -> Option<LookupResult> {
        while let Some(key) = self.finished.pop_front() {
            let partition = key.partition;
            if self.in_progress.get(&partition).is_none_or(|lookup| lookup.key != key) {
                continue;
            }
            let lookup = self.in_progress.remove(&partition)?;
            if lookup.timed_out() {
                *self.timed_out.entry(partition).or_default() += 1;
            } else {
                self.timed_out.remove(&partition);
            }
            let facts = self.parameters.topics.get(usize::from(partition.topic))?;
            match lookup.kind {
                LookupKind::Start => {
                    let found = lookup.start(facts, self.parameters.policy);
                    return Some(LookupResult::Start { id: lookup.id, found });
                }
                LookupKind::Bounds => match lookup.bounds(facts.id) {
                    Ok(found) => return Some(LookupResult::Bounds { id: lookup.id, found }),
                    Err(code) => {
                        self.bounds.push((now + BOUNDS_PAUSE, lookup.id));
                        return Some(LookupResult::BoundsUnknown { partition, code });
                    }
                },
            }
        }
        None
    }
}

impl TopicFacts {
    /// Returns whether the start policy applies to this partition if the group has no commit for it: the partition
    /// existed when the source started, and the group had no commit for the topic. A partition added later starts at
    /// its first record.
    fn start_policy_applies_to(&self, partition: Partition) -> bool {
        self.start_policy_applies && partition.number < self.partitions
    }
}

/// Returns whether the list contains a commit for any partition of the topic.
pub(super) fn has_commits(list: &PartitionList, topic: &CStr) -> bool {
    list.iter().any(|entry| entry.topic == topic && entry.offset >= 0)
}
