//! Statistics of a client: a JSON document that the library delivers every `statistics.interval.ms`.
//!
//! A document is an event of the client's main queue, not a callback: the thread that polls the queue only moves the
//! event; the reader parses its text.
use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{ClientEvent, EventKind, sys};

/// The default of `statistics.interval.ms` while statistics are on. A stopped broker is visible after one interval, a
/// hanging one about ten seconds later: both before the session timeout.
pub const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);

/// The latest statistics of one client. The thread that polls the client puts them here, and another thread takes them.
#[derive(Debug, Default)]
pub struct LatestStatistics(Mutex<Option<Statistics>>);

/// The statistics of one client at one time.
#[derive(Debug)]
pub struct Statistics(ClientEvent);

impl LatestStatistics {
    /// Replaces the statistics that nobody has taken. Ignores other events. Waits only for another swap.
    pub fn put(&self, event: ClientEvent) {
        if event.kind() == EventKind::Statistics {
            // The replaced ones are freed after the lock is released.
            let _replaced = self.swap(Some(Statistics(event)));
        }
    }

    /// Takes the latest statistics; `None`: there are none since the last call.
    pub fn take(&self) -> Option<Statistics> {
        self.swap(None)
    }

    fn swap(&self, statistics: Option<Statistics>) -> Option<Statistics> {
        // No code panics while it holds the lock.
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), statistics)
    }
}

impl Statistics {
    /// Returns the JSON document: see STATISTICS.md of librdkafka. Names in it are not escaped, so a client id with a
    /// quotation mark makes it invalid.
    pub fn json(&self) -> &[u8] {
        // SAFETY: the event is live and has statistics, which `put` has checked. The string ends with a NUL, belongs to
        // the event, and is never changed.
        unsafe { CStr::from_ptr(sys::rd_kafka_event_stats(self.0.raw())) }.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Producer, Properties};

    /// Returns the next statistics of a client that connects to nothing.
    fn next_of(producer: &Producer) -> ClientEvent {
        let queue = producer.main_queue();
        let events = std::iter::from_fn(|| queue.poll(Duration::from_secs(20)));
        events.into_iter().find(|event| event.kind() == EventKind::Statistics).expect("statistics arrive")
    }

    #[test]
    fn the_latest_statistics_are_kept_and_outlive_their_client() {
        let mut properties = Properties::default();
        properties.set("statistics.interval.ms", 10);
        let producer = Producer::new(&properties).expect("the properties are valid");
        let latest = LatestStatistics::default();
        assert!(latest.take().is_none());
        latest.put(next_of(&producer));
        let first = latest.take().expect("statistics were put");
        latest.put(next_of(&producer));
        latest.put(next_of(&producer));
        drop(producer);
        let last = latest.take().expect("statistics were put");
        assert!(latest.take().is_none(), "they are taken once");
        let age = |statistics: &Statistics| {
            let document: serde_json::Value = serde_json::from_slice(statistics.json()).expect("JSON");
            assert_eq!(document["type"], "producer");
            document["age"].as_i64().expect("a time")
        };
        assert!(age(&last) > age(&first));
    }
}
