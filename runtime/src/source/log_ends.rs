//! The ends of logs from which nothing arrives, and of those that gates wait for. The client reports neither an open
//! transaction, which holds records back, nor a leader that hangs, so the ends of logs are requested separately.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use keylane_core::{LogEnd, Partition};

use super::partitions::ConsumerContext;
use crate::librdkafka::{ClientEvent, END, ErrorCode, Isolation, Requests};

/// Idle time after which the end of a log is requested, and the interval between requests.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(5);
/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum number of requests in flight.
const IN_FLIGHT_MAX: usize = 16;

/// The requests for the ends of logs. One request covers all idle partitions. If it fails as a whole, for example
/// because none of them has a leader, each partition is requested alone.
pub(super) struct LogEnds {
    requests: Requests,
    in_flight: BTreeMap<usize, InFlight>,
    /// Partitions to request one by one.
    to_request_singly: VecDeque<Partition>,
    due: Duration,
}

struct InFlight {
    partitions: Vec<Partition>,
    sent_at: Duration,
}

/// The end of a log, as of a request that was sent at this uptime.
pub(super) type SeenEnd = (Partition, LogEnd, Duration);

impl LogEnds {
    pub(super) fn new(requests: Requests) -> LogEnds {
        LogEnds {
            requests,
            in_flight: BTreeMap::new(),
            to_request_singly: VecDeque::new(),
            due: Duration::ZERO,
        }
    }

    /// Requests the ends of these logs, if a request is due.
    pub(super) fn request(
        &mut self,
        now: Duration,
        context: &ConsumerContext,
        idle: impl Iterator<Item = Partition>,
    ) {
        self.request_singly(now, context);
        if now >= self.due && self.in_flight.is_empty() {
            self.due = now + IDLE_MIN;
            self.send(now, context, idle.collect());
        }
    }

    /// Requests the ends of these logs now, unless too many requests have no answer.
    pub(super) fn request_now(&mut self, now: Duration, context: &ConsumerContext, partitions: &[Partition]) {
        self.request_singly(now, context);
        if self.in_flight.len() < IN_FLIGHT_MAX {
            self.send(now, context, partitions.to_vec());
        }
    }

    /// Requests the ends of the partitions of failed requests one by one.
    pub(super) fn request_singly(&mut self, now: Duration, context: &ConsumerContext) {
        while self.in_flight.len() < IN_FLIGHT_MAX
            && let Some(partition) = self.to_request_singly.pop_front()
        {
            self.send(now, context, vec![partition]);
        }
    }

    fn send(&mut self, now: Duration, context: &ConsumerContext, partitions: Vec<Partition>) {
        let list = context.list(partitions.iter().map(|partition| (*partition, END)));
        if !list.is_empty() {
            let number = self.requests.log_offsets(list, Isolation::Uncommitted, TIMEOUT);
            self.in_flight.insert(number, InFlight { partitions, sent_at: now });
        }
    }

    /// Returns the next response, if there is one.
    pub(super) fn next(&mut self, context: &ConsumerContext) -> Option<Vec<SeenEnd>> {
        let event = self.requests.next_response()?;
        let Some(InFlight { partitions, sent_at }) = self.in_flight.remove(&event.request()) else {
            return Some(Vec::new());
        };
        let ends = ends(&event, context).unwrap_or_else(|error| match partitions.as_slice() {
            [partition] => vec![(*partition, of_error(error))],
            several => {
                self.to_request_singly.extend(several);
                Vec::new()
            }
        });
        Some(ends.into_iter().map(|(partition, end)| (partition, end, sent_at)).collect())
    }
}

/// Returns the end of each partition.
fn ends(event: &ClientEvent, context: &ConsumerContext) -> Result<Vec<(Partition, LogEnd)>, ErrorCode> {
    let entries = event.log_offsets()?;
    let end = |entry: &crate::librdkafka::ListEntry<'_>| {
        let topic = context.topics.iter().position(|topic| topic.as_c_str() == entry.topic)?;
        let partition = Partition { topic: u16::try_from(topic).ok()?, number: entry.partition };
        let end = if entry.error.is_none() { LogEnd::At(entry.offset) } else { of_error(entry.error) };
        Some((partition, end))
    };
    Ok(entries.iter().filter_map(end).collect())
}

fn of_error(error: ErrorCode) -> LogEnd {
    match error {
        ErrorCode::TIMED_OUT | ErrorCode::TRANSPORT | ErrorCode::LEADER_NOT_AVAILABLE | ErrorCode::NOENT => {
            LogEnd::LeaderUnavailable
        }
        _ => LogEnd::Unknown,
    }
}
