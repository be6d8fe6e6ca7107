//! One partition of the store: its buffer, its file, and the work that waits while the file fails.

use std::collections::VecDeque;
use std::mem;
use std::path::Path;
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::file::{Fault, File, Reader, Trust};
use super::header::Header;
use super::restore::Restore;
use super::scan::{Found, Scan};
use super::storage::{Located, Storage};
use super::types::{Entry, FileIdentity, SessionId, StoreEvent, StoreSpec};
use crate::KeyBytes;

/// How long entries are collected before they are written. After a crash, this much more of the changelog is read.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// The time between two attempts with a file that fails.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The time of completeness is written without entries when it is this part of `trusted_for` old.
const REFRESH_PART: u32 = 8;

/// One call of `load`.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) token: u64,
    pub(super) keys: Vec<KeyBytes>,
}

/// One call of `open`.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) partition: i32,
    pub(super) session: SessionId,
    pub(super) identity: FileIdentity,
    pub(super) now_ms: i64,
}

#[derive(Debug)]
enum Stage {
    /// The file of another run is not opened yet; since when.
    Opening(Instant),
    Open(File),
    /// The file was open and must be opened again.
    Closed,
}

/// How the attempt to do all waiting work ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// The file fails, and the work waits.
    Waiting,
    /// The session is over.
    Lost,
}

pub(super) struct Partition {
    open: Open,
    stage: Stage,
    storage: Option<Storage>,
    cache_bytes: usize,
    buffer: Buffer,
    /// The records of a restore that are not in the file.
    restore: Option<Restore>,
    /// The header of the next commit.
    header: Header,
    /// The header of the last commit.
    written: Option<Header>,
    /// Since when there has been something to write.
    unwritten_since: Option<Instant>,
    loads: VecDeque<Load>,
    scan: Option<Scan>,
    /// The file fails; the next attempt is at this time.
    retry_at: Option<Instant>,
    /// Reports that are delayed while the file fails.
    held: Vec<StoreEvent>,
}

impl Partition {
    pub(super) fn new(open: Open, cache_bytes: usize, now: Instant) -> Partition {
        Partition {
            stage: Stage::Opening(now),
            storage: None,
            cache_bytes,
            buffer: Buffer::default(),
            restore: None,
            header: Header::new(open.partition, open.identity),
            written: None,
            unwritten_since: None,
            loads: VecDeque::new(),
            scan: None,
            retry_at: None,
            held: Vec::new(),
            open,
        }
    }

    pub(super) fn session(&self) -> SessionId {
        self.open.session
    }

    pub(super) fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.bytes()
    }

    /// Returns when [`Partition::work`] must be called next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let write_at = || match &self.restore {
            Some(restore) => restore.merging_since(),
            None => self.unwritten_since.map(|since| since + WRITE_INTERVAL),
        };
        self.retry_at.or_else(write_at)
    }

    pub(super) fn apply(&mut self, entries: Vec<Entry>, through: Option<i64>, now: Instant) {
        for entry in entries {
            self.buffer.add(entry);
        }
        self.header.through = self.header.through.max(through);
        self.unwritten_since.get_or_insert(now);
    }

    /// The file and its buffer were complete to the end of the changelog at this time.
    pub(super) fn at_log_end(&mut self, now_ms: i64, trusted_for: Duration, now: Instant) {
        if let Some(restore) = &mut self.restore {
            restore.begin_merge(now);
        }
        self.header.at_end_ms = self.header.at_end_ms.max(Some(now_ms));
        let refresh_ms = i64::try_from((trusted_for / REFRESH_PART).as_millis()).unwrap_or(i64::MAX);
        let written = self.written.and_then(|header| header.at_end_ms);
        if written.is_none_or(|written| now_ms.saturating_sub(written) >= refresh_ms) {
            self.unwritten_since.get_or_insert(now);
        }
    }

    pub(super) fn load(&mut self, load: Load, now: Instant) {
        if let Some(restore) = &mut self.restore {
            restore.begin_merge(now);
        }
        self.loads.push_back(load);
    }

    /// The step is done with the next work.
    pub(super) fn scan(&mut self, scan: Scan) {
        self.scan = Some(scan);
    }

    /// Delays a report until the file works again.
    pub(super) fn hold(&mut self, event: StoreEvent) {
        self.held.push(event);
    }

    /// Does all waiting work: opens the file, writes the buffer if that is due or `write` is set, and answers loads.
    pub(super) fn work(
        &mut self,
        write: bool,
        spec: &StoreSpec,
        now: Instant,
        emit: &dyn Fn(StoreEvent),
    ) -> Progress {
        let due = self.unwritten_since.is_some_and(|since| now >= since + WRITE_INTERVAL);
        // An attempt after an error must show that the file can be written.
        let write = write || due || self.is_failing();
        let (partition, session) = (self.open.partition, self.open.session);
        let error = match self.attempt(write, spec, now, emit) {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    emit(StoreEvent::Recovered { partition, session });
                    self.held.drain(..).for_each(emit);
                }
                return Progress::Done;
            }
            Err(Fault::Damaged(error)) => {
                emit(StoreEvent::Lost { partition, session, error });
                return Progress::Lost;
            }
            Err(Fault::Io(error)) => error,
        };
        if matches!(self.stage, Stage::Open(_)) {
            // redb accepts no more work after an I/O error. Dropping the database writes nothing.
            self.stage = Stage::Closed;
        }
        if let Some(restore) = &mut self.restore {
            restore.repeat_merge();
        }
        if self.retry_at.replace(now + RETRY_INTERVAL).is_none() {
            emit(StoreEvent::Failed { partition, session, error });
        }
        Progress::Waiting
    }

    fn attempt(
        &mut self,
        write: bool,
        spec: &StoreSpec,
        now: Instant,
        emit: &dyn Fn(StoreEvent),
    ) -> Result<(), Fault> {
        let mut file = match mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Open(file) => file,
            Stage::Opening(since) => self.first_open(since, spec, now, emit).inspect_err(|_| {
                self.stage = Stage::Opening(since);
            })?,
            Stage::Closed => {
                let storage = self.storage.as_ref().expect("a file that was open has its storage");
                File::reopen(storage, self.cache_bytes, self.written)?
            }
        };
        let done = self.use_file(write, &mut file, emit);
        self.stage = Stage::Open(file);
        done
    }

    fn first_open(
        &mut self,
        since: Instant,
        spec: &StoreSpec,
        now: Instant,
        emit: &dyn Fn(StoreEvent),
    ) -> Result<File, Fault> {
        let Open { partition, session, identity, now_ms } = self.open;
        let located = match &spec.dir {
            None => Located { storage: Storage::in_memory(), note: None },
            Some(dir) => locate(dir, partition)?,
        };
        let waited_ms = i64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(i64::MAX);
        let now_ms = now_ms.saturating_add(waited_ms);
        let trust = Trust { partition, identity, now_ms, trusted_for: spec.trusted_for };
        let (file, resume, note) = File::open(&located.storage, self.cache_bytes, &trust)?;
        self.written = file.header();
        self.header = self.written.unwrap_or(self.header);
        self.storage = Some(located.storage);
        // Without a folder, there is no place for a temporary file.
        self.restore = spec.dir.clone().map(|dir| Restore::new(dir, partition));
        emit(StoreEvent::Opened { partition, session, resume, note: located.note.or(note) });
        Ok(file)
    }

    fn use_file(&mut self, write: bool, file: &mut File, emit: &dyn Fn(StoreEvent)) -> Result<(), Fault> {
        let mut write = write;
        if let Some(restore) = &mut self.restore {
            if restore.merging_since().is_none() {
                return if write { restore.add(&mut self.buffer) } else { Ok(()) };
            }
            if !restore.step(file)? {
                return Ok(());
            }
            write = true;
        }
        if write {
            if self.has_unwritten() {
                file.write(&self.buffer.sorted(), self.header)?;
                self.written = Some(self.header);
                self.buffer.clear();
            }
            self.unwritten_since = None;
            // The temporary file is needed until its entries are durable.
            self.restore = None;
        }
        if self.loads.is_empty() && self.scan.is_none() {
            return Ok(());
        }
        self.read(&file.reader()?, emit)
    }

    /// Answers all loads, and does the step of a search.
    fn read(&mut self, reader: &Reader, emit: &dyn Fn(StoreEvent)) -> Result<(), Fault> {
        let (partition, session) = (self.open.partition, self.open.session);
        while let Some(load) = self.loads.front() {
            let values = load.keys.iter().map(|key| match self.buffer.get(key) {
                Some(value) => Ok(value.clone()),
                None => reader.get(key),
            });
            let (values, token) = (values.collect::<Result<_, Fault>>()?, load.token);
            emit(StoreEvent::Loaded { partition, session, token, values });
            self.loads.pop_front();
        }
        if let Some(scan) = &self.scan {
            let Found { expired, next } = scan.step(reader, &self.buffer)?;
            emit(StoreEvent::Scanned { partition, session, expired, next });
            self.scan = None;
        }
        Ok(())
    }

    fn has_unwritten(&self) -> bool {
        !self.buffer.is_empty() || self.written.map_or(self.header.through.is_some(), |w| w != self.header)
    }

    /// Opens the file again if its cache is larger than the share, or much smaller.
    pub(super) fn fit_cache(&mut self, share: usize) {
        if self.cache_bytes <= share && self.cache_bytes.saturating_mul(4) > share {
            return;
        }
        self.cache_bytes = share;
        if matches!(self.stage, Stage::Open(_))
            && let Stage::Open(file) = mem::replace(&mut self.stage, Stage::Closed)
            && !file.close()
            && let Some(restore) = &mut self.restore
        {
            restore.repeat_merge();
        }
    }

    /// Writes everything and closes the file, or leaves it as it was at its last commit.
    pub(super) fn close(mut self, spec: &StoreSpec, now: Instant, emit: &dyn Fn(StoreEvent)) {
        // Loads of a session that ends are not answered.
        self.loads.clear();
        self.scan = None;
        let held = mem::take(&mut self.held);
        let silent = |_: StoreEvent| {};
        // An interrupted restore leaves the file as it was, and begins again.
        let merging = self.restore.as_ref().is_none_or(|restore| restore.merging_since().is_some());
        while merging && !matches!(self.stage, Stage::Opening(_)) {
            if self.work(true, spec, now, &silent) != Progress::Done || self.restore.is_none() {
                break;
            }
        }
        held.into_iter().for_each(emit);
        self.end(emit);
    }

    /// Ends a partition whose file is damaged. An empty file is not verified at the next open.
    pub(super) fn discard(mut self, emit: &dyn Fn(StoreEvent)) {
        self.stage = Stage::Closed;
        if let Some(storage) = &self.storage {
            // If this fails, too, the next open finds the damage.
            storage.clear().ok();
        }
        self.end(emit);
    }

    fn end(self, emit: &dyn Fn(StoreEvent)) {
        if let Stage::Open(file) = self.stage {
            file.close();
        }
        self.held.into_iter().for_each(emit);
    }

    #[cfg(test)]
    pub(super) fn faults(&self) -> super::faults::Faults {
        self.storage.as_ref().expect("an open partition").faults.clone()
    }
}

fn locate(dir: &Path, partition: i32) -> Result<Located, Fault> {
    Storage::locate(dir, partition)
        .map_err(|error| Fault::Io(format!("can't open {}/{partition}.redb: {error}", dir.display())))
}
