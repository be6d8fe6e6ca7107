//! Look-ups: the start positions of partitions, the bounds of their logs, and the ids of their topics.
//!
//! Nothing here blocks. Each partition has its own requests to the leader of its log: a leader that does not respond
//! delays only its own partitions. The committed offsets of partitions that are looked up together come in one response
//! of the coordinator.
//!
//! The first try may take [`FIRST_TRY`]. Each try after a timeout may take twice as long, up to the client's own limit,
//! `socket.timeout.ms`. A try stays with the broker that it was sent to, even if the leader moves. When a request times
//! out, the client closes the connection and requests metadata (`socket.max.fails`), so the next try finds the new
//! leader.
mod group_commits;
mod look_up;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString};
use std::time::Duration;

use keylane_core::Partition;

use super::event::StartFound;
use crate::config::Start;
use crate::librdkafka::{
    AdminBroker, BEGINNING, ClientEvent, END, ErrorCode, Isolation, PartitionList, Requests, TopicDescription,
};
pub(super) use group_commits::GroupCommits;
use group_commits::{CommitsRequest, CommitsResponse};
use look_up::{LogOffset, LookUp, LookUpKind};

/// Timeout of the first try of a look-up: long enough for consecutive responses of a slow broker (two connections, the
/// coordinator's name and the offsets), short enough if a broker is down.
const FIRST_TRY: Duration = Duration::from_secs(6);
/// Maximum number of doublings: more than any limit allows.
const DOUBLINGS_MAX: u32 = 16;
/// Timeout of a request for the topics' ids. It is short, because the ids are already known and rarely change.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of the check that no topic was deleted and created again.
const TOPICS_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before bounds that were not found are requested again.
const BOUNDS_PAUSE: Duration = Duration::from_millis(500);

/// A partition under one assignment. A result for an older assignment is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LookUpId {
    pub(super) partition: Partition,
    pub(super) assignment: u64,
}

/// The result of a look-up.
pub(super) enum LookUpResult {
    Start {
        id: LookUpId,
        found: Result<StartFound, NotFound>,
    },
    Bounds {
        id: LookUpId,
        found: Bounds,
    },
    /// The bounds could not be found. They are requested again after a pause.
    BoundsUnknown {
        partition: Partition,
        code: ErrorCode,
    },
    /// This topic, by its index, was deleted and created again.
    TopicReplaced(u16),
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
    pub(super) undecided: bool,
}

/// The facts about a topic: determined before the source subscribes, updated when the topic is described again.
#[derive(Clone, Debug)]
pub(super) struct TopicFacts {
    pub(super) name: CString,
    /// The id of the topic as the brokers last described it.
    pub(super) id: [u8; 16],
    /// The number of partitions when the source started.
    pub(super) partitions: i32,
    /// Whether the group had a commit for any of them, or the topic was replaced since. If so, the start policy does
    /// not apply.
    pub(super) has_commits: bool,
}

/// The parameters of all look-ups of a source.
pub(super) struct LookUpParameters {
    pub(super) group: CString,
    pub(super) topics: Vec<TopicFacts>,
    pub(super) broker: AdminBroker,
    pub(super) policy: Start,
    /// Whether processing ends at the end of the log.
    pub(super) needs_ends: bool,
    /// The consumer's isolation level.
    pub(super) isolation: Isolation,
    /// The longest timeout of a try.
    pub(super) timeout: Duration,
}

/// All look-ups of a source.
pub(super) struct LookUps {
    parameters: LookUpParameters,
    requests: Requests,
    commits: GroupCommits,
    /// The number of consecutive timeouts, for partitions whose last look-up timed out.
    timed_out: BTreeMap<Partition, u32>,
    /// Requests without a response.
    sent: BTreeMap<usize, Sent>,
    /// The look-ups in progress, by partition. A later look-up replaces an earlier one.
    under_way: BTreeMap<Partition, LookUp>,
    serials: u64,
    /// Look-ups that have all their responses, or failed.
    finished: VecDeque<(Partition, u64)>,
    /// Start positions to request. Look-ups that are requested together share the requests for commits and topic ids.
    starts: Vec<LookUpId>,
    /// Bounds to request, each with its earliest time.
    bounds: Vec<(Duration, LookUpId)>,
    /// The time at which the topics are described next.
    topics_at: Duration,
    /// Topics that were deleted and created again, and that were not returned yet.
    replaced: VecDeque<u16>,
}

/// The subject of a request.
enum Sent {
    Offset(Partition, u64, LogOffset),
    /// The look-ups that wait for the response.
    Topics(Vec<(Partition, u64)>),
}

impl LookUps {
    pub(super) fn new(parameters: LookUpParameters, requests: Requests, commits: GroupCommits) -> LookUps {
        LookUps {
            parameters,
            requests,
            commits,
            timed_out: BTreeMap::new(),
            sent: BTreeMap::new(),
            under_way: BTreeMap::new(),
            serials: 0,
            finished: VecDeque::new(),
            starts: Vec::new(),
            bounds: Vec::new(),
            topics_at: TOPICS_INTERVAL,
            replaced: VecDeque::new(),
        }
    }

    pub(super) fn request_start(&mut self, id: LookUpId) {
        self.starts.push(id);
    }

    pub(super) fn request_bounds(&mut self, id: LookUpId) {
        self.bounds.push((Duration::ZERO, id));
    }

    /// Returns the id that this topic had when the brokers described it last.
    pub(super) fn topic_id(&self, topic: u16) -> [u8; 16] {
        self.parameters.topics.get(usize::from(topic)).map_or([0; 16], |facts| facts.id)
    }

    /// Sends the requests that are due. `reads`: whether partitions of topics with a known id are owned, so that the
    /// ids are checked.
    pub(super) fn send(&mut self, now: Duration, reads: bool) {
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
            if reads && !self.sent.values().any(|sent| matches!(sent, Sent::Topics(_))) {
                self.send_topics(Vec::new());
            }
        }
    }

    /// Returns the time at which [`LookUps::send`] is due if no look-up is requested before.
    pub(super) fn next_timeout(&self) -> Duration {
        self.bounds.iter().map(|(due, _)| *due).chain([self.topics_at]).min().unwrap_or(self.topics_at)
    }

    /// Returns the next result, if there is one.
    pub(super) fn next(&mut self, now: Duration) -> Option<LookUpResult> {
        loop {
            if let Some(topic) = self.replaced.pop_front() {
                return Some(LookUpResult::TopicReplaced(topic));
            }
            if let Some(result) = self.take_finished(now) {
                return Some(result);
            }
            if let Some(response) = self.commits.next_response() {
                self.take_committed(&response);
                continue;
            }
            let event = self.requests.next_response()?;
            self.take_response(&event);
        }
    }

    fn send_starts(&mut self, starts: &[LookUpId]) {
        let mut all = PartitionList::with_capacity(starts.len());
        let mut serials = Vec::with_capacity(starts.len());
        for id in starts {
            let partition = id.partition;
            let Some(facts) = self.parameters.topics.get(usize::from(partition.topic)) else { continue };
            all.push(&facts.name, partition.number, END);
            let mut pieces = vec![LogOffset::LogStart, LogOffset::LogEnd];
            // The start policy may need the following offsets. Whether it applies depends on the committed offsets,
            // which are not known yet.
            let may_apply = facts.is_first_time(partition);
            let policy = self.parameters.policy;
            if self.parameters.needs_ends || (may_apply && policy != Start::Earliest) {
                pieces.push(LogOffset::StableEnd);
            }
            if may_apply && matches!(policy, Start::Time(_)) {
                pieces.push(LogOffset::AtTime);
            }
            let serial = self.begin(*id, LookUpKind::Start, &pieces, 2);
            serials.push((partition, serial));
        }
        if serials.is_empty() {
            return;
        }
        self.send_topics(serials.clone());
        self.send_committed(all, serials);
    }

    fn send_committed(&mut self, partitions: PartitionList, look_ups: Vec<(Partition, u64)>) {
        let timeouts = look_ups.iter().map(|(partition, _)| self.timeout(*partition));
        let timeout = timeouts.max().unwrap_or(FIRST_TRY);
        let group = self.parameters.group.clone();
        let request = CommitsRequest { group, partitions, timeout, look_ups };
        if let Some(response) = self.commits.send(request) {
            self.take_committed(&response);
        }
    }

    /// Returns the timeout of the next try for this partition.
    fn timeout(&self, partition: Partition) -> Duration {
        let doublings = self.timed_out.get(&partition).copied().unwrap_or(0).min(DOUBLINGS_MAX);
        (FIRST_TRY * 2_u32.pow(doublings)).min(self.parameters.timeout)
    }

    fn send_bounds(&mut self, id: LookUpId) {
        let serial = self.begin(id, LookUpKind::Bounds, &[LogOffset::LogStart, LogOffset::LogEnd], 1);
        self.send_topics(vec![(id.partition, serial)]);
    }

    /// Begins a look-up that waits for these offsets of the partition's log and for `others` more responses. Returns the
    /// serial number of the look-up.
    fn begin(&mut self, id: LookUpId, kind: LookUpKind, pieces: &[LogOffset], others: usize) -> u64 {
        self.serials += 1;
        let serial = self.serials;
        for piece in pieces {
            self.send_offset(id.partition, serial, *piece);
        }
        let look_up = LookUp::new(id, serial, kind, pieces.len() + others);
        self.under_way.insert(id.partition, look_up);
        serial
    }

    fn send_offset(&mut self, partition: Partition, serial: u64, piece: LogOffset) {
        let Some(facts) = self.parameters.topics.get(usize::from(partition.topic)) else { return };
        let (at, isolation) = match (piece, self.parameters.policy) {
            (LogOffset::LogStart, _) => (BEGINNING, Isolation::Uncommitted),
            // An offset after the start of an open transaction is inside the log, too.
            (LogOffset::LogEnd, _) => (END, Isolation::Uncommitted),
            (LogOffset::StableEnd, _) => (END, self.parameters.isolation),
            (LogOffset::AtTime, Start::Time(millis)) => (millis, self.parameters.isolation),
            (LogOffset::AtTime, Start::Earliest | Start::Latest) => return,
        };
        let mut list = PartitionList::with_capacity(1);
        list.push(&facts.name, partition.number, at);
        let number = self.requests.log_offsets(list, isolation, self.timeout(partition));
        self.sent.insert(number, Sent::Offset(partition, serial, piece));
    }

    fn send_topics(&mut self, waiting: Vec<(Partition, u64)>) {
        let names: Vec<CString> = self.parameters.topics.iter().map(|topic| topic.name.clone()).collect();
        let number = self.requests.topics(&names, self.parameters.broker, TOPICS_TIMEOUT);
        self.sent.insert(number, Sent::Topics(waiting));
    }

    fn take_response(&mut self, event: &ClientEvent) {
        match self.sent.remove(&event.request()) {
            Some(Sent::Offset(partition, serial, piece)) => {
                let found = event.log_offsets().and_then(|entries| {
                    let entry = entries.first().ok_or(ErrorCode::UNKNOWN_PARTITION)?;
                    entry.error.into_result().map(|()| entry.offset)
                });
                self.look_up(partition, serial, |look_up| look_up.offset_found(piece, found));
            }
            Some(Sent::Topics(waiting)) => {
                self.take_topics(&event.topics().unwrap_or_default());
                for (partition, serial) in waiting {
                    self.look_up(partition, serial, LookUp::topic_described);
                }
            }
            None => {}
        }
    }

    fn take_committed(&mut self, response: &CommitsResponse) {
        for &(partition, serial) in &response.look_ups {
            let name =
                self.parameters.topics.get(usize::from(partition.topic)).map(|facts| facts.name.clone());
            let of_partition = |list: &PartitionList| {
                let name = name.as_deref()?;
                let entry = list.iter().find(|e| e.topic == name && e.partition == partition.number)?;
                let commit = (entry.offset >= 0).then(|| (entry.offset, entry.metadata.to_vec()));
                Some(entry.error.into_result().map(|()| commit))
            };
            let commit = match &response.found {
                Ok(list) => of_partition(list).unwrap_or(Err(ErrorCode::UNKNOWN_PARTITION)),
                Err(code) => Err(*code),
            };
            self.look_up(partition, serial, |look_up| look_up.committed_found(commit));
        }
    }

    /// Updates the topics' ids. A topic that is not described keeps its last known id. One description may show that
    /// several topics were deleted and created again.
    pub(in crate::source) fn take_topics(&mut self, described: &[TopicDescription]) {
        for described in described {
            let is_valid = described.error.is_none() && described.id != [0; 16];
            let known =
                (0..).zip(&mut self.parameters.topics).find(|(_, topic)| topic.name == described.name);
            let Some((index, topic)) = known.filter(|(_, topic)| is_valid && topic.id != described.id) else {
                continue;
            };
            if topic.id != [0; 16] {
                self.replaced.push_back(index);
                // The partitions of a recreated topic start at their first record, whatever the policy.
                topic.has_commits = true;
                self.topics_at = Duration::ZERO; // a topic that was not described may have been replaced, too
            }
            topic.id = described.id;
        }
    }

    fn look_up(&mut self, partition: Partition, serial: u64, change: impl FnOnce(&mut LookUp)) {
        let current = self.under_way.get_mut(&partition).filter(|look_up| look_up.serial == serial);
        if let Some(look_up) = current {
            let was_finished = look_up.is_finished();
            change(look_up);
            if !was_finished && look_up.is_finished() {
                self.finished.push_back((partition, serial));
            }
        }
    }

    fn take_finished(&mut self, now: Duration) -> Option<LookUpResult> {
        while let Some((partition, serial)) = self.finished.pop_front() {
            if self.under_way.get(&partition).is_none_or(|look_up| look_up.serial != serial) {
                continue;
            }
            let look_up = self.under_way.remove(&partition)?;
            if look_up.ran_out_of_time() {
                *self.timed_out.entry(partition).or_default() += 1;
            } else {
                self.timed_out.remove(&partition);
            }
            let facts = self.parameters.topics.get(usize::from(partition.topic))?;
            match look_up.kind {
                LookUpKind::Start => {
                    let found = look_up.start(facts, self.parameters.policy);
                    return Some(LookUpResult::Start { id: look_up.id, found });
                }
                LookUpKind::Bounds => match look_up.bounds(facts.id) {
                    Ok(found) => return Some(LookUpResult::Bounds { id: look_up.id, found }),
                    Err(code) => {
                        self.bounds.push((now + BOUNDS_PAUSE, look_up.id));
                        return Some(LookUpResult::BoundsUnknown { partition, code });
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
    fn is_first_time(&self, partition: Partition) -> bool {
        !self.has_commits && partition.number < self.partitions
    }
}

/// Returns whether the list contains a commit for any partition of the topic.
pub(super) fn has_commits(list: &PartitionList, topic: &CStr) -> bool {
    list.iter().any(|entry| entry.topic == topic && entry.offset >= 0)
}
