//! The last warnings and errors, and Keylane's own lines of level INFO, for the admin server: what happened before an
//! operator looked.
//!
//! Lines of handlers are not kept, because they may contain payloads.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The number of lines that are kept.
const LINES_MAX: usize = 256;
/// Maximum size of a value, in bytes. Longer values are truncated.
const VALUE_MAX: usize = 1 << 10;

/// The lines of this process.
static LINES: RecentLines = RecentLines(Mutex::new(Kept { next_id: 1, lines: VecDeque::new() }));

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentLine {
    /// Its number. Later lines have higher ones.
    pub id: u64,
    /// When it was logged.
    pub at: SystemTime,
    /// Its level.
    pub level: Level,
    /// How often it was logged. A line replaces the one that it repeats (see [`RecentLine::is_repeated_by`]), so that
    /// errors that are repeated during an outage leave room for others.
    pub times: u64,
    /// Its message.
    pub message: String,
    /// Its other fields.
    pub fields: BTreeMap<&'static str, String>,
}

/// Returns the kept lines after the line with this number, in order. 0: all of them.
pub fn recent_lines(after: u64) -> Vec<RecentLine> {
    LINES.after(after)
}

/// The layer that keeps the lines.
pub(super) struct RecentLayer;

struct RecentLines(Mutex<Kept>);

struct Kept {
    next_id: u64,
    lines: VecDeque<RecentLine>,
}

impl RecentLines {
    fn add(&self, mut line: RecentLine) {
        let mut kept = self.kept();
        line.id = kept.next_id;
        kept.next_id += 1;
        if let Some(index) = kept.lines.iter().rposition(|before| before.is_repeated_by(&line)) {
            line.times += kept.lines.remove(index).map_or(0, |before| before.times);
        }
        if kept.lines.len() == LINES_MAX {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line);
    }

    fn after(&self, id: u64) -> Vec<RecentLine> {
        let kept = self.kept();
        let first = kept.lines.partition_point(|line| line.id <= id);
        kept.lines.range(first..).cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic ends the process.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fields that identify the subject of a line.
const ABOUT: [&str; 3] = ["handler", "topic", "partition"];

impl RecentLine {
    /// Returns whether a later line repeats this one: it has the same level, message, handler, topic and partition. A
    /// line of level INFO must also have the same offset, so that each rebalance is kept.
    fn is_repeated_by(&self, later: &RecentLine) -> bool {
        let same_event =
            || self.fields.get("offset").is_some_and(|own| later.fields.get("offset") == Some(own));
        (self.level <= Level::WARN || same_event())
            && (self.level, &self.message) == (later.level, &later.message)
            && ABOUT.iter().all(|field| self.fields.get(field) == later.fields.get(field))
    }
}

impl<S: Subscriber> Layer<S> for RecentLayer {
    #[expect(clippy::disallowed_methods, reason = "the time of a log line; nothing depends on it")]
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, mut fields } = fields;
        // Lines that a limit has dropped before this one.
        let dropped = fields.remove("dropped").and_then(|dropped| dropped.parse().ok()).unwrap_or(0);
        let at = SystemTime::now();
        LINES.add(RecentLine {
            id: 0,
            at,
            level: *event.metadata().level(),
            times: 1 + dropped,
            message,
            fields,
        });
    }
}

/// Collects the fields of a line.
#[derive(Default)]
struct Fields {
    message: String,
    fields: BTreeMap<&'static str, String>,
}

impl Fields {
    fn add(&mut self, field: &Field, mut value: String) {
        if value.len() > VALUE_MAX {
            value.truncate(value.floor_char_boundary(VALUE_MAX));
            value.push('…');
        }
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.insert(field.name(), value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_with_rising_numbers() {
        let lines = RecentLines(Mutex::new(Kept { next_id: 1, lines: VecDeque::new() }));
        let line = RecentLine {
            id: 0,
            at: SystemTime::UNIX_EPOCH,
            level: Level::INFO,
            times: 1,
            message: "ownership started".to_owned(),
            fields: BTreeMap::new(),
        };
        (0..=LINES_MAX).for_each(|_| lines.add(line.clone()));
        let ids: Vec<u64> = lines.after(0).iter().map(|line| line.id).collect();
        assert_eq!(ids, (2..=LINES_MAX as u64 + 1).collect::<Vec<_>>());
        assert_eq!(lines.after(LINES_MAX as u64).len(), 1);
        assert!(lines.after(LINES_MAX as u64 + 1).is_empty());
    }

    #[test]
    fn a_repeated_warning_takes_one_place() {
        let lines = RecentLines(Mutex::new(Kept { next_id: 1, lines: VecDeque::new() }));
        let line = |level: Level, partition: &str| RecentLine {
            id: 0,
            at: SystemTime::UNIX_EPOCH,
            level,
            times: 1,
            message: "consumer error".to_owned(),
            fields: BTreeMap::from([("partition", partition.to_owned()), ("error", "x".to_owned())]),
        };
        for (level, partition) in
            [(Level::WARN, "1"), (Level::WARN, "2"), (Level::WARN, "1"), (Level::INFO, "1")]
        {
            lines.add(line(level, partition));
        }
        let kept: Vec<_> = lines.after(0).iter().map(|line| (line.id, line.level, line.times)).collect();
        assert_eq!(kept, [(2, Level::WARN, 1), (3, Level::WARN, 2), (4, Level::INFO, 1)]);
    }
}
