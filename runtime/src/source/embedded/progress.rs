//! The read positions of the sources in their feed, and the ends of the feed.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use keylane_core::Partition;

use crate::librdkafka::WakeHandle;

/// The state shared by the feeder, which must not get far ahead of the sources, and the sources, which need the end of
/// the feed.
#[derive(Debug, Default)]
pub struct FeedProgress {
    state: Mutex<FeedState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FeedState {
    sources: Vec<SourceState>,
    /// Records per partition of every topic whose feed has ended.
    ends: BTreeMap<String, Vec<i64>>,
    failure: Option<String>,
    stopped: bool,
}

/// The state of one source.
#[derive(Debug)]
struct SourceState {
    wake: WakeHandle,
    topics: Vec<String>,
    /// The next offset to read in each partition; 0 if absent.
    next: BTreeMap<Partition, i64>,
    gone: bool,
}

/// The progress of one source. When it is dropped, the feed no longer waits for the source.
#[derive(Debug)]
pub struct SourceProgress {
    progress: Arc<FeedProgress>,
    index: usize,
    topics: Vec<String>,
}

impl FeedProgress {
    /// Creates the progress, before the first record is fed or read.
    pub fn new() -> Arc<FeedProgress> {
        Arc::default()
    }

    /// Adds a source, for which the feed waits from now on: start every source before the feed.
    pub(in crate::source) fn add_source(
        self: &Arc<Self>,
        topics: &[CString],
        wake: &WakeHandle,
    ) -> SourceProgress {
        let topics: Vec<String> = topics.iter().map(|topic| topic.to_string_lossy().into_owned()).collect();
        let mut state = self.lock();
        state.sources.push(SourceState {
            wake: Arc::clone(wake),
            topics: topics.clone(),
            next: BTreeMap::new(),
            gone: false,
        });
        SourceProgress { progress: Arc::clone(self), index: state.sources.len() - 1, topics }
    }

    /// Waits until every source of the topic is past this offset; `false` if the feed was stopped.
    pub(super) fn wait_until_past(&self, topic: &str, number: i32, offset: i64) -> bool {
        let mut state = self.lock();
        while !state.stopped && state.next(topic, number) <= offset {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stopped
    }

    /// Returns the next offset of the slowest source of the topic; 0 if there is no source.
    pub(super) fn next(&self, topic: &str, number: i32) -> i64 {
        self.lock().next(topic, number)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn end(&self, topic: &str, ends: Vec<i64>) {
        let mut state = self.lock();
        state.ends.insert(topic.to_owned(), ends);
        state.wake_sources();
    }

    pub(super) fn fail(&self, reason: String) {
        let mut state = self.lock();
        state.failure.get_or_insert(reason);
        state.wake_sources();
    }

    /// Locks the state. A poisoned lock is usable, because every change is a single step.
    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedState {
    fn next(&self, topic: &str, number: i32) -> i64 {
        let of_source = |source: &SourceState| {
            let index = source.topics.iter().position(|known| known == topic)?;
            let partition = Partition { topic: u16::try_from(index).ok()?, number };
            Some(source.next.get(&partition).copied().unwrap_or(0))
        };
        self.sources.iter().filter(|source| !source.gone).filter_map(of_source).min().unwrap_or(0)
    }

    fn wake_sources(&self) {
        for source in &self.sources {
            source.wake.wake();
        }
    }
}

impl SourceProgress {
    /// Records that everything below this offset of the partition was read.
    pub fn advance(&self, partition: Partition, next: i64) {
        let mut state = self.progress.lock();
        if let Some(source) = state.sources.get_mut(self.index) {
            let known = source.next.entry(partition).or_insert(0);
            *known = next.max(*known);
        }
        drop(state);
        self.progress.changed.notify_all();
    }

    /// Returns the end offset of the partition's feed, once it is known.
    pub fn end(&self, partition: Partition) -> Option<i64> {
        let topic = self.topics.get(usize::from(partition.topic))?;
        let number = usize::try_from(partition.number).ok()?;
        self.progress.lock().ends.get(topic)?.get(number).copied()
    }

    /// Returns the reason why the feed failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.progress.lock().failure.clone()
    }
}

impl Drop for SourceProgress {
    /// Removes this source from those that the feed waits for.
    fn drop(&mut self) {
        if let Some(source) = self.progress.lock().sources.get_mut(self.index) {
            source.gone = true;
        }
        self.progress.changed.notify_all();
    }
}
