//! The store: a local cache of the changelogs, on a thread of its own.
//!
//! `StateStore` (the handle) sends tasks to the thread → `partitions` (all partitions and their memory) → `partition`
//! (one partition) → `buffer` (entries that are not written yet) and `file` (a redb database with a `header`) → `storage`
//! (a locked file, or memory). The file has a `row` for each
//! key, and `scan` finds old ones. Until a partition has been
//! read to the end of its changelog, its entries are in `restore` and its `runs`.
//!
//! A file is never ahead of its changelog: only records of committed transactions are applied. It may be behind, by what
//! is not written yet, and it may be deleted at any time. It is used again only if nothing speaks against it; otherwise
//! the changelog is read from its beginning.

mod buffer;
mod clock;
mod file;
mod header;
mod partition;
mod partitions;
mod restore;
mod row;
mod runs;
mod scan;
mod storage;
mod types;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use crate::KeyBytes;

use self::partition::{Load, Open};
use self::partitions::{Partitions, Task};
use self::scan::Scan;
pub use self::types::{Entry, FileIdentity, SessionId, StoreEvent, StoreSpec};

/// A store of states, and the thread that does its I/O. No call waits for it.
///
/// The queue to the thread is limited by the caller: by [`StoreEvent::Applied`], which reports the bytes that have left
/// it, and by one `open` and `close` for each session and one `load` for each lane that waits.
///
/// A session has two parts. At first the caller restores the partition: it reads the changelog from `resume` to its end
/// and applies all records. [`StateStore::at_log_end`], or the first `load`, ends the restore. From then on, it applies
/// the records of its own transactions.
///
/// Dropping the store does all queued work, closes all files and ends the thread. `on_event` must not wait for the thread
/// that drops the store.
#[derive(Debug)]
pub struct StateStore {
    /// `None` only while it is dropped.
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl StateStore {
    /// Starts the thread. `on_event` is called on that thread and must not block.
    ///
    /// # Errors
    /// The system has no thread left. Errors of files are reported as events.
    pub fn start(spec: StoreSpec, on_event: Box<dyn Fn(StoreEvent) + Send>) -> std::io::Result<StateStore> {
        let (tasks, queue) = channel();
        let partitions = Partitions::new(spec, on_event);
        let builder = std::thread::Builder::new().name("keylane-state".to_owned());
        let thread = builder.spawn(move || run(&queue, partitions))?;
        Ok(StateStore { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Opens a partition: [`StoreEvent::Opened`]. An older session of it ends: its loads that are not answered will not
    /// be, and its file is closed first.
    ///
    /// `now_ms`: the time in milliseconds since 1970, to decide whether a file is too old.
    pub fn open(&self, partition: i32, session: SessionId, identity: FileIdentity, now_ms: i64) {
        self.send(Task::Open(Open { partition, session, identity, now_ms }));
    }

    /// Applies records of committed transactions, newest last: [`StoreEvent::Applied`].
    ///
    /// `through`: with these entries, every record of the changelog below this offset has been applied. `None`: not
    /// known yet.
    pub fn apply(&self, partition: i32, session: SessionId, entries: Vec<Entry>, through: Option<i64>) {
        self.send(Task::Apply { partition, session, entries, through });
    }

    /// Notes that everything applied so far was complete to the end of the changelog at this time, in milliseconds since
    /// 1970. Without this, a file is not used again.
    ///
    /// To be called once at the end of a restore, with the time at which the changelog's end was requested: the records
    /// are then moved to the file, and loads wait for that. Later, to be called at least every
    /// [`StoreSpec::trusted_for`] ÷ 8 and before `close`, with a time at which the partition was certainly owned, such as
    /// that of the last commit.
    pub fn at_log_end(&self, partition: i32, session: SessionId, now_ms: i64) {
        self.send(Task::AtLogEnd { partition, session, now_ms });
    }

    /// Reads the newest values of keys, everything applied before included: [`StoreEvent::Loaded`]. A load of a session
    /// that is over, or ends before the answer, is not answered.
    pub fn load(&self, partition: i32, session: SessionId, token: u64, keys: Vec<KeyBytes>) {
        self.send(Task::Load { partition, session, load: Load { token, keys } });
    }

    /// Does one step of a search for values that were changed before a time, in milliseconds since 1970, in the order of
    /// the keys: [`StoreEvent::Scanned`]. `after`: where the step before has ended; `None`: from the beginning. What was
    /// applied less than 10 s ago may be left out. Answered as a load is, and one at a time for
    /// each partition.
    pub fn scan(&self, partition: i32, session: SessionId, after: Option<KeyBytes>, changed_before_ms: i64) {
        self.send(Task::Scan { partition, session, scan: Scan { after, changed_before_ms } });
    }

    /// Writes everything, and closes and unlocks the file: [`StoreEvent::Closed`]. If the file fails, it is tried once
    /// more, and then left as it was at its last commit. During a restore, it is left as it was at `open`, so that a
    /// partition is released at once.
    pub fn close(&self, partition: i32, session: SessionId) {
        self.send(Task::Close { partition, session });
    }

    fn send(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // The thread ends before the handle only by a panic, which is reported where it occurs.
            tasks.send(task).ok();
        }
    }
}

impl Drop for StateStore {
    fn drop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            // Files are consistent also after a panic.
            drop(thread.join());
        }
    }
}

/// The tasks between two steps of a merge, so that loads are not slowed down by one step each.
const TASKS_PER_TICK: usize = 1000;

fn run(queue: &Receiver<Task>, mut partitions: Partitions) {
    loop {
        let task = match partitions.deadline() {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => queue.recv_timeout(deadline.saturating_duration_since(clock::now())),
        };
        match task {
            Ok(task) => {
                partitions.handle(task, clock::now());
                for task in queue.try_iter().take(TASKS_PER_TICK) {
                    partitions.handle(task, clock::now());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        partitions.tick(clock::now());
    }
    partitions.close_all(clock::now());
}
