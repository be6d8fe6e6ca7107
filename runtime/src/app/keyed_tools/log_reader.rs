//! Reads one partition of a changelog to its end, and requests the bounds of logs.

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use crate::librdkafka::{
    BEGINNING, Consumer, Deadline, END, ErrorCode, EventKind, Isolation, PartitionList, PartitionQueue,
    Properties, Queue, QueueEntry, ReadEnd, Record, Requests, Wake, WakeHandle,
};

/// Timeout of a request for the bounds of logs.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are prefetched from the partition.
const FETCHED_KIB: u64 = 16 << 10;
/// Longest time without a record: more than the default timeout of a transaction that holds the end of the log back.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A bound of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// The first offset.
    Start,
    /// The first offset that is not committed yet.
    Committed,
    /// The end, open transactions included.
    End,
}

/// A consumer that is assigned to at most one partition.
pub(super) struct LogReader {
    /// Field order is drop order: queues before the consumer.
    requests: Requests,
    events: Queue,
    consumer: Consumer,
    wake: WakeHandle,
}

impl LogReader {
    pub(super) fn new(mut properties: Properties) -> anyhow::Result<LogReader> {
        properties.set("fetch.wait.max.ms", 10);
        properties.set("queued.max.messages.kbytes", FETCHED_KIB);
        let consumer = Consumer::new(&properties)?;
        Ok(LogReader {
            requests: Requests::new(consumer.client(), Queue::new(consumer.client())),
            events: consumer.main_queue(),
            consumer,
            wake: Wake::new().context("can't read the changelog")?,
        })
    }

    /// Requests a bound of these logs. Returns the offsets in the order of the partitions.
    pub(super) fn bounds(&mut self, partitions: &[(CString, i32)], bound: Bound) -> anyhow::Result<Vec<i64>> {
        let (offset, isolation) = match bound {
            Bound::Start => (BEGINNING, Isolation::Uncommitted),
            Bound::Committed => (END, Isolation::Committed),
            Bound::End => (END, Isolation::Uncommitted),
        };
        let mut list = PartitionList::with_capacity(partitions.len());
        partitions.iter().for_each(|(topic, number)| list.push(topic, *number, offset));
        let number = self.requests.log_offsets(list, isolation, BOUNDS_TIMEOUT);
        let deadline = Deadline::after(2 * BOUNDS_TIMEOUT);
        let response = loop {
            match self.requests.wait_for_response(deadline.remaining()) {
                Some(response) if response.request() == number => break response,
                Some(_) => {}
                None => bail!("the leaders of {} do not respond: check that the brokers run", of(partitions)),
            }
        };
        let found = response
            .log_offsets()
            .map_err(|code| anyhow!("the logs of {} are unknown: {code}", of(partitions)))?;
        let offset = |(topic, number): &(CString, i32)| {
            let is_it = |topic_found: &CStr, found: i32| topic_found == topic.as_c_str() && found == *number;
            let entry = found.iter().find(|entry| is_it(entry.topic, entry.partition));
            let entry =
                entry.with_context(|| format!("no answer for {}/{number}", topic.to_string_lossy()))?;
            entry.error.into_result().map_err(|code| read_error(topic, *number, code, ""))?;
            Ok(entry.offset)
        };
        partitions.iter().map(offset).collect()
    }

    /// Passes the records of a partition to `each`, from the first one up to the bound. Waits for open transactions before
    /// it.
    pub(super) fn read(
        &mut self,
        topic: &CStr,
        partition: i32,
        until: Bound,
        each: &mut dyn FnMut(&Record<'_>),
    ) -> anyhow::Result<()> {
        let ends = self.bounds(&[(topic.to_owned(), partition)], until)?;
        let end = ends.first().copied().unwrap_or(0);
        if end == 0 {
            return Ok(());
        }
        let mut list = PartitionList::with_capacity(1);
        list.push(topic, partition, BEGINNING);
        let queue = PartitionQueue::open(self.consumer.client(), topic, partition, &self.wake)
            .context("the client does not know the partition")?;
        let assigned = self.consumer.incremental_assign(&list);
        assigned.map_err(|code| read_error(topic, partition, code, "can't be assigned"))?;
        let ended = self.read_to(&queue, (topic, partition), end, each);
        // It is not assigned only if the client has ended.
        let _unassigned: Result<(), ErrorCode> = self.consumer.incremental_unassign(&list);
        ended
    }

    fn read_to(
        &self,
        queue: &PartitionQueue,
        (topic, partition): (&CStr, i32),
        end: i64,
        each: &mut dyn FnMut(&Record<'_>),
    ) -> anyhow::Result<()> {
        let mut idle = Deadline::after(IDLE_MAX);
        loop {
            let (mut seen, mut failure, mut is_idle) = (None, None, true);
            let read = queue.read(&mut |entry| match entry {
                QueueEntry::Record(record) => {
                    is_idle = false;
                    each(&record);
                    ControlFlow::Continue(())
                }
                QueueEntry::Error { code: ErrorCode::PARTITION_EOF, offset, .. } => {
                    seen = Some(offset);
                    ControlFlow::Continue(())
                }
                QueueEntry::Error { code, text, .. } => {
                    failure = Some(read_error(topic, partition, code, &text));
                    ControlFlow::Break(())
                }
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
            if seen.is_some_and(|seen| seen >= end) {
                return Ok(());
            }
            self.check_client()?;
            if !is_idle {
                idle = Deadline::after(IDLE_MAX);
            }
            if idle.is_over() {
                let topic = topic.to_string_lossy();
                bail!(
                    "nothing arrives from {topic}/{partition} before offset {end}: its leader does not respond, or a \
                     transaction is open, which `kafka-transactions.sh find-hanging` names"
                );
            }
            if read == ReadEnd::Empty {
                self.wake.wait(Some(SLEEP_MAX));
            }
        }
    }

    /// Returns an error that waiting does not resolve.
    fn check_client(&self) -> anyhow::Result<()> {
        while let Some(event) = self.events.poll(Duration::ZERO) {
            let is_refused =
                matches!(event.error(), ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED);
            if event.kind() == EventKind::Error && is_refused {
                bail!("authentication failed: {}", event.text());
            }
        }
        Ok(())
    }
}

fn of(partitions: &[(CString, i32)]) -> String {
    let names =
        partitions.iter().take(3).map(|(topic, number)| format!("{}/{number}", topic.to_string_lossy()));
    let more = if partitions.len() > 3 { ", …" } else { "" };
    names.collect::<Vec<_>>().join(", ") + more
}

fn read_error(topic: &CStr, partition: i32, code: ErrorCode, text: &str) -> anyhow::Error {
    let topic = topic.to_string_lossy();
    let separator = if text.is_empty() { "" } else { ": " };
    let remedy = match code {
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => format!("; grant this user READ and DESCRIBE on `{topic}`"),
        _ => String::new(),
    };
    anyhow!("{topic}/{partition} can't be read: {code}{separator}{text}{remedy}")
}
