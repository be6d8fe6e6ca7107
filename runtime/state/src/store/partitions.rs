//! All partitions of a store, and the memory that they share.

use std::collections::BTreeMap;
use std::time::Instant;

use super::partition::{Load, Open, Partition, Progress};
use super::scan::Scan;
use super::types::{Entry, SessionId, StoreEvent, StoreSpec};

/// The least cache of a file, in bytes. Below it, even the upper pages of the tree are read again and again.
const CACHE_MIN: usize = 256 << 10;

/// A call of the store's owner.
#[derive(Debug)]
pub(super) enum Task {
    Open(Open),
    Apply { partition: i32, session: SessionId, entries: Vec<Entry>, through: Option<i64> },
    AtLogEnd { partition: i32, session: SessionId, now_ms: i64 },
    Load { partition: i32, session: SessionId, load: Load },
    Scan { partition: i32, session: SessionId, scan: Scan },
    Close { partition: i32, session: SessionId },
}

/// The open partitions. Three quarters of the memory are for buffers: those of working files, and again those of failing
/// ones. A write of a larger buffer changes more entries of each page, while most reads of pages find them in the cache of
/// the operating system. The last quarter is for the caches of files, in equal shares: a share is the quarter divided by the
/// next power of two of the number of files. A file is opened again when its share changes to the half or less, or to the
/// fourfold, so that this is rare.
pub(super) struct Partitions {
    spec: StoreSpec,
    partitions: BTreeMap<i32, Partition>,
    on_event: Box<dyn Fn(StoreEvent) + Send>,
}

impl Partitions {
    pub(super) fn new(spec: StoreSpec, on_event: Box<dyn Fn(StoreEvent) + Send>) -> Partitions {
        Partitions { spec, partitions: BTreeMap::new(), on_event }
    }

    pub(super) fn handle(&mut self, task: Task, now: Instant) {
        match task {
            Task::Open(open) => self.open(open, now),
            Task::Apply { partition, session, entries, through } => {
                self.apply(partition, session, entries, through, now);
            }
            Task::AtLogEnd { partition, session, now_ms } => {
                let trusted_for = self.spec.trusted_for;
                if let Some(current) = self.current(partition, session) {
                    current.at_log_end(now_ms, trusted_for, now);
                }
            }
            Task::Load { partition, session, load } => {
                let Some(current) = self.current(partition, session) else { return };
                current.load(load, now);
                if !current.is_failing() {
                    self.work(partition, false, now);
                }
            }
            Task::Scan { partition, session, scan } => {
                let Some(current) = self.current(partition, session) else { return };
                current.scan(scan);
                if !current.is_failing() {
                    self.work(partition, false, now);
                }
            }
            Task::Close { partition, session } => {
                if self.current(partition, session).is_some() {
                    self.close(partition, now);
                }
                (self.on_event)(StoreEvent::Closed { partition, session });
            }
        }
    }

    /// Returns when [`Partitions::tick`] must be called next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.partitions.values().filter_map(Partition::deadline).min()
    }

    /// Writes what is due, and tries failing files again.
    pub(super) fn tick(&mut self, now: Instant) {
        let is_due = |partition: &Partition| partition.deadline().is_some_and(|deadline| deadline <= now);
        let due = self.partitions.iter().filter(|(_, partition)| is_due(partition)).map(|(&id, _)| id);
        for id in due.collect::<Vec<i32>>() {
            self.work(id, false, now);
        }
    }

    /// Closes all partitions.
    pub(super) fn close_all(&mut self, now: Instant) {
        while let Some((_, partition)) = self.partitions.pop_first() {
            partition.close(&self.spec, now, &self.on_event);
        }
    }

    /// Returns the partition, if this is its current session.
    fn current(&mut self, partition: i32, session: SessionId) -> Option<&mut Partition> {
        self.partitions.get_mut(&partition).filter(|current| current.session() == session)
    }

    fn open(&mut self, open: Open, now: Instant) {
        let id = open.partition;
        // The file of an older session must be closed first.
        self.close(id, now);
        let files = self.partitions.len() + 1;
        let share = (self.spec.cache_bytes / 4 / files.next_power_of_two()).max(CACHE_MIN);
        for partition in self.partitions.values_mut() {
            partition.fit_cache(share);
        }
        self.partitions.insert(id, Partition::new(open, share, now));
        self.work(id, false, now);
    }

    fn close(&mut self, id: i32, now: Instant) {
        if let Some(partition) = self.partitions.remove(&id) {
            partition.close(&self.spec, now, &self.on_event);
        }
    }

    fn apply(
        &mut self,
        id: i32,
        session: SessionId,
        entries: Vec<Entry>,
        through: Option<i64>,
        now: Instant,
    ) {
        let bytes = entries.iter().map(Entry::bytes).sum();
        let applied = StoreEvent::Applied { partition: id, session, through, bytes };
        if let Some(current) = self.current(id, session) {
            current.apply(entries, through, now);
            self.write_largest(now);
        }
        let is_full = self.buffered_bytes(true) > self.buffers_max();
        match self.current(id, session).filter(|current| current.is_failing() && is_full) {
            Some(current) => current.hold(applied),
            None => (self.on_event)(applied),
        }
    }

    /// Writes the largest buffers of working files until the rest is within the limit.
    fn write_largest(&mut self, now: Instant) {
        while self.buffered_bytes(false) > self.buffers_max() {
            let working = self.partitions.iter().filter(|(_, partition)| !partition.is_failing());
            let largest = working.max_by_key(|(_, partition)| partition.buffered_bytes());
            let Some((&id, _)) = largest else { return };
            self.work(id, true, now);
        }
    }

    fn buffers_max(&self) -> usize {
        self.spec.cache_bytes / 4 * 3
    }

    /// Returns the memory of the buffers of all failing, or of all working, partitions.
    fn buffered_bytes(&self, failing: bool) -> usize {
        let partitions = self.partitions.values().filter(|partition| partition.is_failing() == failing);
        partitions.map(Partition::buffered_bytes).sum()
    }

    fn work(&mut self, id: i32, write: bool, now: Instant) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let progress = partition.work(write, &self.spec, now, &self.on_event);
        if progress == Progress::Lost
            && let Some(partition) = self.partitions.remove(&id)
        {
            partition.discard(&self.on_event);
        }
    }

    #[cfg(test)]
    pub(super) fn set_failing(&self, id: i32, failing: bool) {
        self.partitions.get(&id).expect("an open partition").faults().set(failing);
    }

    /// Ends as if the process were killed: what is not in a file is lost.
    #[cfg(test)]
    pub(super) fn crash(&mut self) {
        self.partitions.clear();
    }
}
