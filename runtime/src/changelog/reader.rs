//! Restores partitions from their changelogs, on a thread of its own: reads the records that the store's files do not have,
//! and passes them to the stores.
//!
//! The end of a log is requested after the committed offset of the input was read, with open transactions included. A
//! reader of committed records reports the end of the partition where the first open transaction begins, before records
//! that were committed behind it, so a restore ends only at the requested end.

use std::collections::VecDeque;
use std::ffi::CString;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keylane_state::SessionId;

use super::restore::{Phase, Restore, Taken};
use super::store::LocalStore;
use crate::librdkafka::{
    BEGINNING, ClientError, Consumer, END, ErrorCode, Isolation, PartitionList, PartitionQueue, Properties,
    Queue, QueueEntry, Requests, Wake, WakeHandle,
};

/// Number of partitions that are read at once. Each may take [`FETCHED_KIB`].
const RESTORES_MAX: usize = 4;
const FETCHED_KIB: u64 = 16 << 10;
/// Bytes in the queues of the stores at which reading pauses.
const QUEUED_MAX: usize = 64 << 20;
/// Timeout of the request for the end of a log.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an error.
const PAUSE: Duration = Duration::from_millis(500);
/// Interval between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Sleep while the stores are busy.
const STORE_PAUSE: Duration = Duration::from_millis(5);

/// The parameters of a reader.
pub struct ReaderSpec {
    /// Properties of a consumer that reads committed records. Fetch limits are set here.
    pub properties: Properties,
    /// The changelogs, in the order of the handler's topics.
    pub changelogs: Vec<CString>,
    /// The stores, in the same order.
    pub stores: Vec<Arc<LocalStore>>,
    /// The version of the component's states.
    pub version: u32,
}

/// A partition to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreRequest {
    /// Index of the changelog.
    pub topic: u16,
    /// The partition.
    pub partition: i32,
    /// The session of the store.
    pub session: SessionId,
    /// The first offset that the store does not have; `None`: it is empty.
    pub resume: Option<i64>,
}

/// What happens to a restore.
#[derive(Debug)]
pub enum RestoreEvent {
    /// The progress of a restore that takes longer than a second.
    Progress {
        /// The restore.
        request: RestoreRequest,
        /// Number of records so far.
        records: u64,
        /// The next offset to read.
        next: i64,
        /// The offset to reach.
        end: i64,
    },
    /// Everything was passed to the store.
    Restored {
        /// The restore.
        request: RestoreRequest,
        /// Number of records.
        records: u64,
        /// Whether the changelog has, or had, any record.
        any: bool,
        /// The time that it took.
        took: Duration,
    },
    /// The changelog can't be read at the moment. It is tried again.
    Unavailable {
        /// The restore.
        request: RestoreRequest,
        /// The error.
        reason: String,
    },
    /// The last record of a key can't be used: the partition can't start.
    Damaged {
        /// The restore.
        request: RestoreRequest,
        /// The first such record, and what is wrong.
        reason: String,
    },
}

/// The function that receives the events. It runs on the reader's thread.
pub type OnRestore = Box<dyn Fn(RestoreEvent) + Send>;

/// The reader of the changelogs of one handler.
pub struct ChangelogReader {
    commands: Arc<Commands>,
    thread: Option<JoinHandle<()>>,
}

struct Commands {
    queue: Mutex<VecDeque<Command>>,
    wake: WakeHandle,
}

enum Command {
    Restore(RestoreRequest),
    /// Ends the restore of this partition, if there is one.
    Cancel {
        topic: u16,
        partition: i32,
    },
    Stop,
}

impl ChangelogReader {
    /// Starts the thread.
    ///
    /// # Errors
    /// The client rejects its properties, or the thread can't be created.
    pub fn start(spec: ReaderSpec, on_event: OnRestore) -> Result<ChangelogReader, StartError> {
        let wake = Wake::new()?;
        let commands = Arc::new(Commands { queue: Mutex::new(VecDeque::new()), wake: Arc::clone(&wake) });
        let mut thread = ReaderThread::new(spec, on_event, Arc::clone(&commands))?;
        let thread =
            std::thread::Builder::new().name("keylane-restore".to_owned()).spawn(move || thread.run())?;
        Ok(ChangelogReader { commands, thread: Some(thread) })
    }

    /// Restores a partition.
    pub fn restore(&self, request: RestoreRequest) {
        self.commands.put(Command::Restore(request));
    }

    /// Ends the restore of a partition, if there is one. Events of it may still arrive.
    pub fn cancel(&self, topic: u16, partition: i32) {
        self.commands.put(Command::Cancel { topic, partition });
    }
}

impl Drop for ChangelogReader {
    fn drop(&mut self) {
        self.commands.put(Command::Stop);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            tracing::error!(?panic, "thread of the changelog reader panicked");
        }
    }
}

impl Commands {
    fn put(&self, command: Command) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        self.wake.wake();
    }

    fn next(&self) -> Option<Command> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Why a reader can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The client rejects its properties.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The thread can't be created.
    #[error("the reader of changelogs can't start: {0}")]
    System(#[from] std::io::Error),
}

struct ReaderThread {
    changelogs: Vec<CString>,
    stores: Vec<Arc<LocalStore>>,
    version: u32,
    on_event: OnRestore,
    commands: Arc<Commands>,
    requests: Requests,
    /// Errors of the client, which are only drained: each partition has its own.
    events: Queue,
    consumer: Consumer,
    restores: Vec<Restore>,
    started: Instant,
    reported: Duration,
}

impl ReaderThread {
    fn new(spec: ReaderSpec, on_event: OnRestore, commands: Arc<Commands>) -> Result<Self, ClientError> {
        let mut properties = spec.properties;
        properties.set("fetch.wait.max.ms", 10);
        properties.set("queued.max.messages.kbytes", FETCHED_KIB);
        let consumer = Consumer::new(&properties)?;
        let responses = Queue::new(consumer.client()).with_wake(&commands.wake);
        Ok(ReaderThread {
            changelogs: spec.changelogs,
            stores: spec.stores,
            version: spec.version,
            on_event,
            requests: Requests::new(consumer.client(), responses),
            events: consumer.main_queue(),
            consumer,
            commands,
            restores: Vec::new(),
            started: monotonic(),
            reported: Duration::ZERO,
        })
    }

    fn run(&mut self) {
        loop {
            while let Some(command) = self.commands.next() {
                match command {
                    Command::Stop => return,
                    Command::Cancel { topic, partition } => self.cancel(topic, partition),
                    Command::Restore(request) => {
                        self.cancel(request.topic, request.partition);
                        self.restores.push(Restore::new(request, self.now()));
                    }
                }
            }
            while self.events.poll(Duration::ZERO).is_some() {}
            self.ask_for_ends();
            self.take_ends();
            let full = self.stores.iter().any(|store| store.queued() >= QUEUED_MAX);
            let busy = !full && self.read();
            self.report();
            if !busy {
                let sleep = if full { STORE_PAUSE } else { SLEEP_MAX };
                self.commands.wake.wait(Some(sleep));
            }
        }
    }

    fn cancel(&mut self, topic: u16, partition: i32) {
        let is_it =
            |restore: &Restore| (restore.request.topic, restore.request.partition) == (topic, partition);
        if let Some(at) = self.restores.iter().position(is_it) {
            let restore = self.restores.remove(at);
            self.unassign(&restore);
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn list(&self, request: RestoreRequest, offset: i64) -> Option<PartitionList> {
        let mut list = PartitionList::with_capacity(1);
        list.push(self.changelogs.get(usize::from(request.topic))?, request.partition, offset);
        Some(list)
    }

    /// Requests the ends of the logs of the first restores.
    fn ask_for_ends(&mut self) {
        let now = self.now();
        for at in 0..self.restores.len().min(RESTORES_MAX) {
            let Some(restore) = self.restores.get(at) else { return };
            let Phase::Waiting { again_at } = restore.phase else { continue };
            if again_at > now {
                continue;
            }
            let Some(list) = self.list(restore.request, END) else { continue };
            let request = self.requests.log_offsets(list, Isolation::Uncommitted, END_TIMEOUT);
            if let Some(restore) = self.restores.get_mut(at) {
                restore.phase = Phase::Asking { request };
            }
        }
    }

    fn take_ends(&mut self) {
        while let Some(response) = self.requests.next_response() {
            let number = response.request();
            let is_it =
                |restore: &Restore| matches!(restore.phase, Phase::Asking { request } if request == number);
            let Some(at) = self.restores.iter().position(is_it) else { continue };
            let end = response.log_offsets().and_then(|list| {
                let entry = list.first().ok_or(ErrorCode::UNKNOWN_PARTITION)?;
                entry.error.into_result()?;
                if entry.offset < 0 { Err(ErrorCode::UNKNOWN_PARTITION) } else { Ok(entry.offset) }
            });
            match end {
                Ok(end) => self.begin(at, end),
                Err(code) => self.pause(at, format!("the end of the log is unknown: {code}")),
            }
        }
    }

    /// Begins to read, unless the store has everything.
    fn begin(&mut self, at: usize, end: i64) {
        let Some(restore) = self.restores.get(at) else { return };
        let request = restore.request;
        let from = restore.next;
        if end == 0 || from.is_some_and(|from| from >= end) {
            return self.finish(at, end);
        }
        let topic = self.changelogs.get(usize::from(request.topic));
        let queue = topic.and_then(|topic| {
            PartitionQueue::open(self.consumer.client(), topic, request.partition, &self.commands.wake)
        });
        let assigned =
            self.list(request, from.unwrap_or(BEGINNING)).map(|list| self.consumer.incremental_assign(&list));
        match (queue, assigned) {
            (Some(queue), Some(Ok(()))) => {
                if let Some(restore) = self.restores.get_mut(at) {
                    restore.phase = Phase::Reading { queue, end };
                }
            }
            (_, Some(Err(code))) => self.pause(at, format!("can't be assigned: {code}")),
            (_, _) => self.pause(at, "the client does not know the partition".to_owned()),
        }
    }

    /// Tries a restore again later. Meanwhile, others have its place.
    fn pause(&mut self, at: usize, reason: String) {
        let mut restore = self.restores.remove(at);
        restore.phase = Phase::Waiting { again_at: self.now() + PAUSE };
        let request = restore.request;
        self.restores.push(restore);
        (self.on_event)(RestoreEvent::Unavailable { request, reason });
    }

    /// Reads what has arrived. Returns whether there may be more.
    fn read(&mut self) -> bool {
        let mut busy = false;
        for at in (0..self.restores.len()).rev() {
            busy |= self.read_one(at);
        }
        busy
    }

    fn read_one(&mut self, at: usize) -> bool {
        let version = self.version;
        let Some(restore) = self.restores.get_mut(at) else { return false };
        let (mut end_seen, mut problem, mut damaged) = (None, None, false);
        if !matches!(restore.phase, Phase::Reading { .. }) {
            return false;
        }
        let placeholder = Phase::Waiting { again_at: Duration::ZERO };
        let Phase::Reading { queue, end } = std::mem::replace(&mut restore.phase, placeholder) else {
            return false;
        };
        let read = queue.read(&mut |entry| match entry {
            QueueEntry::Record(record) => match restore.take(&record, version) {
                Taken::Continue => ControlFlow::Continue(()),
                Taken::Batch => ControlFlow::Break(()),
                Taken::Damaged => {
                    damaged = true;
                    ControlFlow::Break(())
                }
            },
            QueueEntry::Error { code: ErrorCode::PARTITION_EOF, offset, .. } => {
                end_seen = Some(offset);
                ControlFlow::Continue(())
            }
            QueueEntry::Error { code, text, .. } => {
                problem = Some(format!("{code}: {text}"));
                ControlFlow::Break(())
            }
        });
        restore.phase = Phase::Reading { queue, end };
        self.store(at);
        match problem {
            _ if damaged => self.finish(at, end),
            Some(reason) => {
                if let Some(restore) = self.restores.get(at) {
                    self.unassign(restore);
                }
                self.pause(at, reason);
            }
            None if end_seen.is_some_and(|seen| seen >= end) => self.finish(at, end_seen.unwrap_or(end)),
            None => return read == crate::librdkafka::ReadEnd::Stopped,
        }
        true
    }

    /// Passes the records that were read to the store.
    fn store(&mut self, at: usize) {
        let Some(restore) = self.restores.get_mut(at) else { return };
        let request = restore.request;
        // A file must not be taken for complete beyond a record that can't be used.
        let next = restore.next.filter(|_| restore.unusable.is_empty());
        let entries = restore.take_batch();
        if let Some(store) = self.stores.get(usize::from(request.topic))
            && !entries.is_empty()
        {
            store.apply(request.partition, request.session, entries, next);
        }
    }

    /// Ends a restore: everything was read, or too much can't be used.
    fn finish(&mut self, at: usize, end: i64) {
        let restore = self.restores.remove(at);
        self.unassign(&restore);
        let request = restore.request;
        if let Some(reason) = restore.unusable.first() {
            return (self.on_event)(RestoreEvent::Damaged { request, reason });
        }
        if let Some(store) = self.stores.get(usize::from(request.topic)) {
            store.apply(request.partition, request.session, Vec::new(), Some(end));
        }
        let took = self.now().saturating_sub(restore.began);
        let any = restore.records > 0 || request.resume.is_some_and(|resume| resume > 0);
        (self.on_event)(RestoreEvent::Restored { request, records: restore.records, any, took });
    }

    fn unassign(&self, restore: &Restore) {
        if let Phase::Reading { .. } = restore.phase
            && let Some(list) = self.list(restore.request, BEGINNING)
        {
            // It is not assigned only if the client has ended.
            let _unassigned: Result<(), ErrorCode> = self.consumer.incremental_unassign(&list);
        }
    }

    fn report(&mut self) {
        let now = self.now();
        if self.restores.is_empty() || now < self.reported + REPORT_EVERY {
            return;
        }
        self.reported = now;
        for restore in self.restores.iter().filter(|restore| now > restore.began + REPORT_EVERY) {
            let (next, end) = restore.progress();
            let (request, records) = (restore.request, restore.records);
            (self.on_event)(RestoreEvent::Progress { request, records, next, end });
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread has no loop that could pass the time")]
fn monotonic() -> Instant {
    Instant::now()
}
