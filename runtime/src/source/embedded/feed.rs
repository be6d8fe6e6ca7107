//! Feeding the embedded broker from files, at the pace of reading.
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::jsonl::{FedRecord, JsonLines, LineError};
use super::murmur2::partition_for_key;
use super::{EmbeddedBroker, FeedProgress};
use crate::librdkafka::{ErrorCode, EventKind, ProduceRecord, Producer, ProducerTopic, Properties, Queue};

/// How much of a partition may be unread. The broker keeps 5 MiB, and batches come on top of records.
const MAX_UNREAD: usize = 3 << 20;
/// How many records of a partition may be unread: each could be a batch of its own, of which it keeps 100,000.
const MAX_UNREAD_RECORDS: usize = 90_000;
/// How long one wait for delivery reports takes.
const REPORT_WAIT: Duration = Duration::from_millis(100);

/// What is fed into one topic.
#[derive(Clone, Debug)]
pub struct FeedSpec {
    /// The topic; it must exist.
    pub topic: String,
    /// Where its records come from.
    pub input: FeedInput,
}

/// Where records come from.
#[derive(Clone, Debug)]
pub enum FeedInput {
    /// A file of JSON lines; one that ends in `.zst` is decompressed.
    File(PathBuf),
    /// Standard input, JSON lines.
    Stdin,
}

/// Why a feed broke off.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// A line is wrong.
    #[error("{input}: {error}")]
    Line {
        /// Which file.
        input: String,
        /// Which line, and what is wrong with it.
        error: LineError,
    },
    /// The file can't be read.
    #[error("{input}: {error}")]
    Read {
        /// Which file.
        input: String,
        /// What the system says.
        error: io::Error,
    },
    /// The embedded broker did not take a record.
    #[error("the embedded broker does not take records of topic `{topic}`: {reason}")]
    Broker {
        /// Which topic.
        topic: String,
        /// What it says.
        reason: String,
    },
}

/// Threads that feed topics, one each. Ends with this value.
#[derive(Debug)]
pub struct Feeder {
    progress: Arc<FeedProgress>,
    threads: Vec<JoinHandle<Result<u64, FeedError>>>,
}

impl Feeder {
    /// Begins to feed. Inputs are opened before this returns, so that a missing file is an error here; what goes
    /// wrong later is told to every source of the feed and by [`Feeder::finish`].
    pub fn start(
        broker: &EmbeddedBroker,
        feeds: Vec<FeedSpec>,
        progress: &Arc<FeedProgress>,
    ) -> Result<Feeder, FeedError> {
        let mut feeder = Feeder { progress: Arc::clone(progress), threads: Vec::new() };
        for feed in feeds {
            let input = feed.input.name();
            let read_error = |error| FeedError::Read { input: input.clone(), error };
            let lines = JsonLines::new(BufReader::new(feed.input.open().map_err(read_error)?));
            let mut topic = TopicFeed::new(broker, &feed, progress)?;
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

    /// Whether every input has ended, well or not.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every input has ended; the number of records fed. The sources must go on reading meanwhile.
    pub fn finish(mut self) -> Result<u64, FeedError> {
        let mut fed = 0;
        for thread in std::mem::take(&mut self.threads) {
            fed += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(fed)
    }
}

impl Drop for Feeder {
    /// Asks the threads to end; one that waits for standard input does so after its next line.
    fn drop(&mut self) {
        self.progress.stop();
    }
}

impl FeedInput {
    fn name(&self) -> String {
        match self {
            FeedInput::File(path) => path.display().to_string(),
            FeedInput::Stdin => "standard input".to_owned(),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match self {
            FeedInput::File(path) => open_file(path),
            FeedInput::Stdin => Ok(Box::new(io::stdin())),
        }
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

/// Reads a feed without feeding it.
pub fn for_each_record(input: &FeedInput, mut each: impl FnMut(&FedRecord)) -> Result<(), FeedError> {
    let name = input.name();
    let opened = input.open().map_err(|error| FeedError::Read { input: name.clone(), error })?;
    for record in JsonLines::new(BufReader::new(opened)) {
        each(&record.map_err(|error| FeedError::Line { input: name.clone(), error })?);
    }
    Ok(())
}

/// One topic being fed.
struct TopicFeed {
    name: String,
    input: String,
    /// Dropped before the producer whose topic and queue they are.
    topic: ProducerTopic,
    reports: Queue,
    producer: Producer,
    partitions: Vec<PartitionFeed>,
    progress: Arc<FeedProgress>,
    fed: u64,
    delivered: u64,
}

/// What of one partition is on its way or unread.
#[derive(Default)]
struct PartitionFeed {
    next: i64,
    unread: VecDeque<(i64, usize)>,
    unread_bytes: usize,
}

impl PartitionFeed {
    fn has_room_for(&self, size: usize) -> bool {
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
        feed: &FeedSpec,
        progress: &Arc<FeedProgress>,
    ) -> Result<TopicFeed, FeedError> {
        let refused = |reason: String| FeedError::Broker { topic: feed.topic.clone(), reason };
        let producer = Producer::new(&properties(broker)).map_err(|error| refused(error.to_string()))?;
        let name = CString::new(feed.topic.as_str()).map_err(|error| refused(error.to_string()))?;
        let topic = producer.topic(&name).ok_or_else(|| refused("not a topic name".to_owned()))?;
        let count = usize::try_from(broker.partitions()).unwrap_or(0).max(1);
        Ok(TopicFeed {
            name: feed.topic.clone(),
            input: feed.input.name(),
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
                    // What came before the bad line is still delivered.
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

    /// Sends one record once there is room for it; `false` if the feed is to stop.
    fn send(&mut self, record: &FedRecord) -> Result<bool, FeedError> {
        let number = self.partition_of(record);
        if !self.wait_for_room(number, record.size())? {
            return Ok(false);
        }
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_ref().map(String::as_bytes)))
            .collect();
        let produce = ProduceRecord {
            partition: Some(number),
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            token: 0,
        };
        loop {
            match self.producer.produce(&self.topic, &produce) {
                Ok(()) => break,
                Err(ErrorCode::QUEUE_FULL) if !self.progress.is_stopped() => {
                    self.take_reports(REPORT_WAIT)?
                }
                Err(code) => return Err(self.refused(code)),
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

    fn wait_for_room(&mut self, number: i32, size: usize) -> Result<bool, FeedError> {
        while !self.partition(number).has_room_for(size) {
            let read = self.progress.next(&self.name, number);
            self.partition(number).read_up_to(read);
            if self.partition(number).has_room_for(size) {
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

    /// By key as Java clients do it; records without a key take turns.
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
            .expect("`partition_of` stays below the number of partitions")
    }

    fn take_reports(&mut self, mut wait: Duration) -> Result<(), FeedError> {
        while let Some(mut event) = self.reports.poll(wait) {
            wait = Duration::ZERO;
            if event.kind() != EventKind::Delivery {
                continue;
            }
            while let Some(report) = event.next_delivered() {
                report.error.into_result().map_err(|code| self.refused(code))?;
                self.delivered += 1;
            }
        }
        Ok(())
    }

    fn refused(&self, code: ErrorCode) -> FeedError {
        FeedError::Broker { topic: self.name.clone(), reason: code.to_string() }
    }
}

fn properties(broker: &EmbeddedBroker) -> Properties {
    let mut all = Properties::default();
    all.set("bootstrap.servers", broker.bootstrap_servers());
    // Offsets are counted here: nothing may be sent twice or out of order.
    all.set("enable.idempotence", "true");
    all.set("message.timeout.ms", 0);
    all.set("linger.ms", 5);
    // The broker hands over one batch per fetch: large ones are quicker, and must stay well below its 5 MiB.
    all.set("batch.size", 512 << 10);
    all.set("message.max.bytes", 4 << 20);
    all
}
