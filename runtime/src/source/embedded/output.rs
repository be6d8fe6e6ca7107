//! Reads the handlers' outputs back before the embedded broker drops them.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::EmbeddedBroker;
use crate::librdkafka::{
    ClientError, Consumer, END, ErrorCode, Isolation, PartitionList, PartitionQueue, Properties, Queue,
    QueueEntry, ReadEnd, Record, Requests, Wake, WakeHandle,
};

/// Timeout of the request for the ends of the logs.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Longest time between two polls of the consumer.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why outputs could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The consumer can't be created.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A thread or file descriptor could not be created.
    #[error("the output reader can't start: {0}")]
    System(#[from] std::io::Error),
    /// The broker failed.
    #[error("outputs can't be read back: {0}")]
    Kafka(#[from] ErrorCode),
    /// The topic or partition does not exist.
    #[error("outputs can't be read back: no partition {partition} of topic `{topic}`")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The broker dropped records before they were read.
    #[error("the embedded broker dropped outputs of `{topic}` partition {partition}, offsets {from} to {to}")]
    Dropped {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The first missing offset.
        from: i64,
        /// The first offset after the gap.
        to: i64,
    },
}

/// A thread that reads topics from their first record. Stopped when dropped.
pub struct OutputReader {
    wake: WakeHandle,
    finish: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64, OutputError>>>,
}

impl OutputReader {
    /// Starts the thread. `each` receives the index of the topic, the partition and the record, on the reader's thread.
    pub fn start(
        broker: &EmbeddedBroker,
        topics: &[String],
        each: impl FnMut(usize, i32, &Record<'_>) + Send + 'static,
    ) -> Result<OutputReader, OutputError> {
        let wake = Wake::new()?;
        let consumer = Consumer::new(&properties(broker))?;
        let (finish, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut reader = OutputReaderThread::open(consumer, broker, topics, &wake)?;
        let (finish_seen, stop_seen) = (Arc::clone(&finish), Arc::clone(&stop));
        let thread = thread::Builder::new().name("keylane-outputs".to_owned()).spawn(move || {
            let mut each = each;
            reader.run(&finish_seen, &stop_seen, &mut each)
        })?;
        Ok(OutputReader { wake, finish, stop, thread: Some(thread) })
    }

    /// Waits until all records now in the topics are read. Returns the number of records read.
    pub fn finish(mut self) -> Result<u64, OutputError> {
        self.finish.store(true, Ordering::Release);
        self.wake.wake();
        let thread =
            self.thread.take().expect("only this method takes the thread, and it consumes the reader");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake.wake();
    }
}

/// The state of the thread.
struct OutputReaderThread {
    partitions: Vec<OutputPartition>,
    consumer: Consumer,
    main_queue: Queue,
    wake: WakeHandle,
    read: u64,
}

/// A partition that is read.
struct OutputPartition {
    queue: PartitionQueue,
    topic: usize,
    name: CString,
    number: i32,
    next: i64,
}

type Each<'a> = &'a mut dyn FnMut(usize, i32, &Record<'_>);

impl OutputReaderThread {
    fn open(
        consumer: Consumer,
        broker: &EmbeddedBroker,
        topics: &[String],
        wake: &WakeHandle,
    ) -> Result<OutputReaderThread, OutputError> {
        let mut partitions = Vec::new();
        let mut list = PartitionList::with_capacity(topics.len());
        for (topic, text) in topics.iter().enumerate() {
            for number in 0..broker.partitions() {
                let missing = || OutputError::NoPartition { topic: text.clone(), partition: number };
                let name = CString::new(text.as_str()).map_err(|_| missing())?;
                let queue =
                    PartitionQueue::open(consumer.client(), &name, number, wake).ok_or_else(missing)?;
                list.push(&name, number, 0);
                partitions.push(OutputPartition { queue, topic, name, number, next: 0 });
            }
        }
        consumer.assign(Some(&list))?;
        let main_queue = consumer.main_queue().with_wake(wake);
        Ok(OutputReaderThread { partitions, consumer, main_queue, wake: Arc::clone(wake), read: 0 })
    }

    fn run(&mut self, finish: &AtomicBool, stop: &AtomicBool, each: Each<'_>) -> Result<u64, OutputError> {
        let mut ends = None;
        loop {
            let mut more = false;
            for partition in &mut self.partitions {
                let (read, drained) = partition.read(each)?;
                self.read += read;
                more |= !drained;
            }
            while self.main_queue.poll_now().is_some() {}
            if stop.load(Ordering::Acquire) {
                return Ok(self.read);
            }
            if ends.is_none() && finish.load(Ordering::Acquire) {
                ends = Some(self.ends()?);
            }
            if ends.as_ref().is_some_and(|ends| self.is_at(ends)) {
                return Ok(self.read);
            }
            if !more {
                self.wake.wait(Some(POLL_INTERVAL));
            }
        }
    }

    fn ends(&self) -> Result<BTreeMap<(CString, i32), i64>, OutputError> {
        let mut list = PartitionList::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            list.push(&partition.name, partition.number, END);
        }
        if list.is_empty() {
            return Ok(BTreeMap::new());
        }
        let client = self.consumer.client();
        let mut requests = Requests::new(client, Queue::new(client));
        requests.log_offsets(list, Isolation::Uncommitted, END_LIMIT);
        let response = requests.wait_for_response(2 * END_LIMIT).ok_or(ErrorCode::TIMED_OUT)?;
        response
            .log_offsets()?
            .into_iter()
            .map(|entry| {
                entry.error.into_result()?;
                Ok(((entry.topic.to_owned(), entry.partition), entry.offset))
            })
            .collect()
    }

    fn is_at(&self, ends: &BTreeMap<(CString, i32), i64>) -> bool {
        self.partitions.iter().all(|partition| {
            let key = (partition.name.clone(), partition.number);
            ends.get(&key).is_none_or(|end| partition.next >= *end)
        })
    }
}

impl OutputPartition {
    /// Returns the number of records read, and whether the queue is drained.
    fn read(&mut self, each: Each<'_>) -> Result<(u64, bool), OutputError> {
        let mut read = 0;
        let mut failure = None;
        let end = self.queue.read(&mut |entry| match entry {
            QueueEntry::Record(record) if record.offset() == self.next => {
                self.next += 1;
                read += 1;
                each(self.topic, self.number, &record);
                ControlFlow::Continue(())
            }
            QueueEntry::Record(record) => {
                failure = Some(OutputError::Dropped {
                    topic: self.name.to_string_lossy().into_owned(),
                    partition: self.number,
                    from: self.next,
                    to: record.offset(),
                });
                ControlFlow::Break(())
            }
            QueueEntry::Error { code, .. } => {
                failure = Some(OutputError::Kafka(code));
                ControlFlow::Break(())
            }
        });
        failure.map_or(Ok((read, end == ReadEnd::Empty)), Err)
    }
}

fn properties(broker: &EmbeddedBroker) -> Properties {
    let mut all = Properties::default();
    all.set("bootstrap.servers", broker.bootstrap_servers());
    // The consumer joins no group, but the library requires a group id before an assign.
    all.set("group.id", "keylane-output-reader");
    all.set("enable.auto.commit", "false");
    all.set("auto.offset.reset", "error");
    all.set("fetch.queue.backoff.ms", 20);
    all.set("fetch.wait.max.ms", 50);
    all
}
