//! The last log lines of level INFO and above, for the admin server: what happened before an operator looked.
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

impl<S: Subscriber> Layer<S> for RecentLayer {
    #[expect(clippy::disallowed_methods, reason = "the time of a log line; nothing depends on it")]
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, fields } = fields;
        let at = SystemTime::now();
        LINES.add(RecentLine { id: 0, at, level: *event.metadata().level(), message, fields });
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
            message: "ownership started".to_owned(),
            fields: BTreeMap::new(),
        };
        (0..=LINES_MAX).for_each(|_| lines.add(line.clone()));
        let ids: Vec<u64> = lines.after(0).iter().map(|line| line.id).collect();
        assert_eq!(ids, (2..=LINES_MAX as u64 + 1).collect::<Vec<_>>());
        assert_eq!(lines.after(LINES_MAX as u64).len(), 1);
        assert!(lines.after(LINES_MAX as u64 + 1).is_empty());
    }
}
