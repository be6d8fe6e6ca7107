//! Feeds the embedded broker from files, at the rate at which its records are read.
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::jsonl::{FedRecord, JsonLines, LineError};
use super::{EmbeddedBroker, FeedProgress};
use crate::config::{FeedConfig, FeedSource};
use crate::librdkafka::{
    ErrorCode, EventKind, Producer, ProducerRecord, ProducerTopic, Properties, Queue, partition_for_key,
};

/// Maximum of unread bytes per partition. The broker keeps 5 MiB, batch headers included.
const MAX_UNREAD: usize = 3 << 20;
/// Maximum of unread records per partition: each may be a batch of its own, and the broker keeps 100,000 batches.
const MAX_UNREAD_RECORDS: usize = 90_000;
/// Timeout of one wait for delivery reports.
const REPORT_WAIT: Duration = Duration::from_millis(100);

/// Why a feed failed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// A line is invalid.
    #[error("{input}: {error}")]
    Line {
        /// The file.
        input: String,
        /// The line and its error.
        error: LineError,
    },
    /// The file can't be read.
    #[error("{input}: {error}")]
    Read {
        /// The file.
        input: String,
        /// The system's error.
        error: io::Error,
    },
    /// The embedded broker rejected a record.
    #[error("the embedded broker rejected a record of topic `{topic}`: {reason}")]
    Broker {
        /// The topic.
        topic: String,
        /// The broker's reason.
        reason: String,
    },
}

/// The threads that feed topics, one for each feed. Dropping it stops them.
#[derive(Debug)]
pub struct Feeder {
    progress: Arc<FeedProgress>,
    threads: Vec<JoinHandle<Result<u64, FeedError>>>,
}

impl Feeder {
    /// Starts the threads. Opens the inputs before it returns, so that a missing file is an error here. Later errors
    /// are reported to every source of the feed and returned by [`Feeder::finish`].
    pub fn start(
        broker: &EmbeddedBroker,
        feeds: &[FeedConfig],
        progress: &Arc<FeedProgress>,
    ) -> Result<Feeder, FeedError> {
        let mut feeder = Feeder { progress: Arc::clone(progress), threads: Vec::new() };
        for feed in feeds {
            let input = name_of(&feed.source);
            let read_error = |error| FeedError::Read { input: input.clone(), error };
            let lines = JsonLines::new(BufReader::new(open(&feed.source).map_err(read_error)?));
            let mut topic = TopicFeed::new(broker, feed, progress)?;
            let progress = Arc::clone(progress);
            let thread = thread::Builder::new()
                .name("keylane-feed".to_owned())
                .spawn(move || {
                    let result = topic.feed(lines);
                    if let Err(error) = &result {
                        progress.fail(error.to_string());
                    }
                    result
                })
                .map_err(read_error)?;
            feeder.threads.push(thread);
        }
        Ok(feeder)
    }

    /// Returns whether every input has ended, successfully or not.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every input has ended. Returns the number of records fed. The sources must keep reading meanwhile.
    pub fn finish(mut self) -> Result<u64, FeedError> {
        let mut fed = 0;
        for thread in std::mem::take(&mut self.threads) {
            fed += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(fed)
    }
}

impl Drop for Feeder {
    /// Stops the threads; one that waits for standard input stops after its next line.
    fn drop(&mut self) {
        self.progress.stop();
    }
}

fn name_of(source: &FeedSource) -> String {
    match source {
        FeedSource::File(path) => path.display().to_string(),
        FeedSource::StandardInput => "standard input".to_owned(),
    }
}

fn open(source: &FeedSource) -> io::Result<Box<dyn Read + Send>> {
    match source {
        FeedSource::File(path) => open_file(path),
        FeedSource::StandardInput => Ok(Box::new(io::stdin())),
    }
}

fn open_file(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        Ok(Box::new(zstd::stream::read::Decoder::new(file)?))
    } else {
        Ok(Box::new(file))
    }
}

/// Reads the records of a feed without producing them.
pub fn for_each_record(source: &FeedSource, mut each: impl FnMut(&FedRecord)) -> Result<(), FeedError> {
    let name = name_of(source);
    let opened = open(source).map_err(|error| FeedError::Read { input: name.clone(), error })?;
    for record in JsonLines::new(BufReader::new(opened)) {
        each(&record.map_err(|error| FeedError::Line { input: name.clone(), error })?);
    }
    Ok(())
}

/// The feed of one topic, in progress.
struct TopicFeed {
    name: String,
    input: String,
    topic: ProducerTopic,
    reports: Queue,
    producer: Producer,
    partitions: Vec<PartitionFeed>,
    progress: Arc<FeedProgress>,
    fed: u64,
    delivered: u64,
}

/// The in-flight and unread records of one partition.
#[derive(Default)]
struct PartitionFeed {
    next: i64,
    unread: VecDeque<(i64, usize)>,
    unread_bytes: usize,
}

impl PartitionFeed {
    fn has_capacity_for(&self, size: usize) -> bool {
        self.unread.is_empty()
            || (self.unread_bytes + size <= MAX_UNREAD && self.unread.len() < MAX_UNREAD_RECORDS)
    }

    fn read_up_to(&mut self, next: i64) {
        while let Some((_, size)) = self.unread.pop_front_if(|(offset, _)| *offset < next) {
            self.unread_bytes -= size;
        }
    }
}

impl TopicFeed {
    fn new(
        broker: &EmbeddedBroker,
        feed: &FeedConfig,
        progress: &Arc<FeedProgress>,
    ) -> Result<TopicFeed, FeedError> {
        let failed = |reason: String| FeedError::Broker { topic: feed.topic.clone(), reason };
        let producer = Producer::new(&properties(broker)).map_err(|error| failed(error.to_string()))?;
        let name = CString::new(feed.topic.as_str()).map_err(|error| failed(error.to_string()))?;
        let topic = producer.topic(&name).ok_or_else(|| failed("invalid topic name".to_owned()))?;
        let count = usize::try_from(broker.partitions()).unwrap_or(0).max(1);
        Ok(TopicFeed {
            name: feed.topic.clone(),
            input: name_of(&feed.source),
            topic,
            reports: producer.main_queue(),
            producer,
            partitions: std::iter::repeat_with(PartitionFeed::default).take(count).collect(),
            progress: Arc::clone(progress),
            fed: 0,
            delivered: 0,
        })
    }

    fn feed(&mut self, lines: impl Iterator<Item = Result<FedRecord, LineError>>) -> Result<u64, FeedError> {
        for record in lines {
            match record {
                Ok(record) => {
                    if !self.send(&record)? {
                        return Ok(self.fed);
                    }
                }
                Err(error) => {
                    // The records before the bad line are still delivered.
                    self.deliver()?;
                    return Err(FeedError::Line { input: self.input.clone(), error });
                }
            }
        }
        self.deliver()?;
        self.progress.end(&self.name, self.partitions.iter().map(|partition| partition.next).collect());
        Ok(self.fed)
    }

    fn deliver(&mut self) -> Result<(), FeedError> {
        while self.delivered < self.fed && !self.progress.is_stopped() {
            self.take_reports(REPORT_WAIT)?;
        }
        Ok(())
    }

    /// Produces one record once the partition has capacity; `false` if the feed was stopped.
    fn send(&mut self, record: &FedRecord) -> Result<bool, FeedError> {
        let number = self.partition_of(record);
        if !self.wait_for_capacity(number, record.size())? {
            return Ok(false);
        }
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_ref().map(String::as_bytes)))
            .collect();
        let produce = ProducerRecord {
            partition: Some(number),
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            id: 0,
        };
        loop {
            match self.producer.produce(&self.topic, &produce) {
                Ok(()) => break,
                Err(ErrorCode::QUEUE_FULL) if !self.progress.is_stopped() => {
                    self.take_reports(REPORT_WAIT)?
                }
                Err(code) => return Err(self.broker_error(code)),
            }
        }
        self.fed += 1;
        let size = record.size();
        let partition = self.partition(number);
        partition.unread.push_back((partition.next, size));
        partition.unread_bytes += size;
        partition.next += 1;
        self.take_reports(Duration::ZERO)?;
        Ok(true)
    }

    fn wait_for_capacity(&mut self, number: i32, size: usize) -> Result<bool, FeedError> {
        while !self.partition(number).has_capacity_for(size) {
            let read = self.progress.next(&self.name, number);
            self.partition(number).read_up_to(read);
            if self.partition(number).has_capacity_for(size) {
                break;
            }
            self.take_reports(Duration::ZERO)?;
            let Some((oldest, _)) = self.partition(number).unread.front().copied() else { break };
            if !self.progress.wait_until_past(&self.name, number, oldest) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Chooses the partition by the key, as Java clients do. Records without a key are distributed round-robin.
    fn partition_of(&self, record: &FedRecord) -> i32 {
        let count = i32::try_from(self.partitions.len()).unwrap_or(1);
        match &record.key {
            Some(key) => partition_for_key(key, count),
            None => i32::try_from(self.fed % u64::try_from(count).unwrap_or(1)).unwrap_or(0),
        }
    }

    fn partition(&mut self, number: i32) -> &mut PartitionFeed {
        usize::try_from(number)
            .ok()
            .and_then(|index| self.partitions.get_mut(index))
            .expect("`partition_of` returns a number below the partition count")
    }

    fn take_reports(&mut self, mut wait: Duration) -> Result<(), FeedError> {
        while let Some(mut event) = self.reports.poll(wait) {
            wait = Duration::ZERO;
            if event.kind() != EventKind::Delivery {
                continue;
            }
            while let Some(report) = event.next_report() {
                report.error.into_result().map_err(|code| self.broker_error(code))?;
                self.delivered += 1;
            }
        }
        Ok(())
    }

    fn broker_error(&self, code: ErrorCode) -> FeedError {
        FeedError::Broker { topic: self.name.clone(), reason: code.to_string() }
    }
}

fn properties(broker: &EmbeddedBroker) -> Properties {
    let mut all = Properties::default();
    all.set("bootstrap.servers", broker.bootstrap_servers());
    // The feed counts offsets itself, so no record may be duplicated or reordered.
    all.set("enable.idempotence", "true");
    all.set("message.timeout.ms", 0);
    all.set("linger.ms", 5);
    // The broker returns one batch per fetch, so large batches are faster. They must stay well below its 5 MiB.
    all.set("batch.size", 512 << 10);
    all.set("message.max.bytes", 4 << 20);
    all
}
