//! The ends of logs from which nothing arrives. The client reports neither an open transaction, which holds records back,
//! nor a leader that hangs, so the ends of logs are requested separately.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use keylane_core::{LogEnd, Partition};

use super::partitions::ConsumerContext;
use crate::librdkafka::{ClientEvent, END, ErrorCode, Isolation, Requests};

/// Idle time after which the end of a log is requested, and the interval between requests.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(5);
/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum number of single-partition requests in flight.
const SINGLE_MAX: usize = 16;

/// The requests for the ends of logs. One request covers all idle partitions. If it fails as a whole, for example
/// because none of them has a leader, each partition is requested alone.
pub(super) struct LogEnds {
    requests: Requests,
    /// The requests in flight, and their partitions.
    in_flight: BTreeMap<usize, Vec<Partition>>,
    /// Partitions to request one by one.
    to_request_singly: VecDeque<Partition>,
    due: Duration,
}

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
        while self.in_flight.len() < SINGLE_MAX
            && let Some(partition) = self.to_request_singly.pop_front()
        {
            self.send(context, vec![partition]);
        }
        if now >= self.due && self.in_flight.is_empty() {
            self.due = now + IDLE_MIN;
            self.send(context, idle.collect());
        }
    }

    fn send(&mut self, context: &ConsumerContext, partitions: Vec<Partition>) {
        let list = context.list(partitions.iter().map(|partition| (*partition, END)));
        if !list.is_empty() {
            let number = self.requests.log_offsets(list, Isolation::Uncommitted, TIMEOUT);
            self.in_flight.insert(number, partitions);
        }
    }

    /// Returns the next response, if there is one.
    pub(super) fn next(&mut self, context: &ConsumerContext) -> Option<Vec<(Partition, LogEnd)>> {
        let event = self.requests.next_response()?;
        let requested = self.in_flight.remove(&event.request()).unwrap_or_default();
        Some(ends(&event, context).unwrap_or_else(|error| match requested.as_slice() {
            [partition] => vec![(*partition, of_error(error))],
            several => {
                self.to_request_singly.extend(several);
                Vec::new()
            }
        }))
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
