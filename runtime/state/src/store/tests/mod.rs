mod failing;
mod files;
mod model;
mod restores;
mod scans;
mod sessions;
mod thread;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::partition::{Load, Open};
use super::partitions::{Partitions, Task};
use super::types::{Entry, FileIdentity, SessionId, StoreEvent, StoreSpec};

const IDENTITY: FileIdentity = FileIdentity { changelog_id: Some([1; 16]), input_id: Some([2; 16]) };
const TRUSTED_FOR: Duration = Duration::from_secs(3600);
const START_MS: i64 = 1_800_000_000_000;

/// A folder that is deleted at the end of the test.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("keylane-state-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        TempDir(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) fn entry(key: &str, value: Option<&str>) -> Entry {
    entry_at(START_MS, key, value)
}

fn entry_at(changed_ms: i64, key: &str, value: Option<&str>) -> Entry {
    Entry::new(key.as_bytes(), value.map(str::as_bytes), Some(changed_ms))
}

fn spec(dir: Option<&TempDir>, cache_bytes: usize) -> StoreSpec {
    StoreSpec { dir: dir.map(|dir| dir.path().to_owned()), cache_bytes, trusted_for: TRUSTED_FOR }
}

/// A store without its thread, on a clock that the test moves.
struct Store {
    partitions: Partitions,
    events: Arc<Mutex<Vec<StoreEvent>>>,
    now: Instant,
    now_ms: i64,
    session: u64,
}

impl Store {
    fn new(dir: &TempDir) -> Store {
        Store::with(spec(Some(dir), 1 << 20))
    }

    fn with(spec: StoreSpec) -> Store {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let on_event = move |event| sink.lock().expect("no test panics with the lock").push(event);
        let partitions = Partitions::new(spec, Box::new(on_event));
        Store { partitions, events, now: super::clock::now(), now_ms: START_MS, session: 0 }
    }

    /// Returns the events since the last call.
    fn events(&self) -> Vec<StoreEvent> {
        std::mem::take(&mut *self.events.lock().expect("no test panics with the lock"))
    }

    fn do_task(&mut self, task: Task) -> Vec<StoreEvent> {
        self.partitions.handle(task, self.now);
        while self.partitions.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.partitions.tick(self.now);
        }
        self.events()
    }

    fn advance(&mut self, by: Duration) -> Vec<StoreEvent> {
        self.now += by;
        self.now_ms += i64::try_from(by.as_millis()).expect("a short time");
        self.partitions.tick(self.now);
        self.events()
    }

    fn current(&self) -> SessionId {
        SessionId(self.session)
    }

    /// Opens partition 3 in a new session.
    fn open(&mut self) -> Vec<StoreEvent> {
        self.open_as(3, IDENTITY)
    }

    fn open_as(&mut self, partition: i32, identity: FileIdentity) -> Vec<StoreEvent> {
        self.session += 1;
        let (session, now_ms) = (self.current(), self.now_ms);
        self.do_task(Task::Open(Open { partition, session, identity, now_ms }))
    }

    /// Opens partition 3 and returns `resume` and `note`.
    fn opened(&mut self) -> (Option<i64>, Option<String>) {
        match self.open().as_slice() {
            [StoreEvent::Opened { partition: 3, session, resume, note }] if *session == self.current() => {
                (*resume, note.clone())
            }
            events => panic!("{events:?}"),
        }
    }

    fn apply(&mut self, entries: Vec<Entry>, through: Option<i64>) -> Vec<StoreEvent> {
        let session = self.current();
        self.do_task(Task::Apply { partition: 3, session, entries, through })
    }

    fn at_log_end(&mut self) {
        let (session, now_ms) = (self.current(), self.now_ms);
        assert_eq!(self.do_task(Task::AtLogEnd { partition: 3, session, now_ms }), []);
    }

    fn load(&mut self, token: u64, keys: &[&str]) -> Vec<StoreEvent> {
        let keys = keys.iter().map(|key| key.as_bytes().into()).collect();
        let session = self.current();
        self.do_task(Task::Load { partition: 3, session, load: Load { token, keys } })
    }

    fn loaded(&self, token: u64, values: &[Option<&str>]) -> StoreEvent {
        let values = values.iter().map(|value| value.map(|value| value.as_bytes().into())).collect();
        StoreEvent::Loaded { partition: 3, session: self.current(), token, values }
    }

    #[track_caller]
    fn check_values(&mut self, keys: &[&str], values: &[Option<&str>]) {
        let events = self.load(99, keys);
        assert_eq!(events, [self.loaded(99, values)]);
    }

    fn close(&mut self) -> Vec<StoreEvent> {
        let session = self.current();
        self.do_task(Task::Close { partition: 3, session })
    }

    /// Applies one entry, complete to the end of the log at this offset, and closes the partition.
    fn fill(&mut self, through: i64) {
        assert_eq!(self.opened().0, None);
        self.apply(vec![entry("ada", Some("1"))], Some(through));
        self.at_log_end();
        assert_eq!(self.close(), [StoreEvent::Closed { partition: 3, session: self.current() }]);
    }
}
