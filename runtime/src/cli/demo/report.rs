//! The report of the demo. Events are counted in the feed, and their order is checked with the published outputs, not
//! by the handler.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use anyhow::Context as _;

use crate::app::RunEnd;
use crate::config::{Checked, Cluster, FeedSource};
use crate::librdkafka::Record;
use crate::source::embedded::for_each_record;

/// The events of the feeds.
#[derive(Debug, Default)]
pub(super) struct Fed {
    pub(super) events: u64,
    keys: HashSet<Vec<u8>>,
    without_key: u64,
}

/// The published outputs.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Records per topic.
    topics: BTreeMap<String, u64>,
    /// The partition and offset of the event of the last record, by topic and key.
    last: HashMap<(String, Vec<u8>), (i64, i64)>,
    checked: u64,
    violations: u64,
}

impl Fed {
    /// Counts the events by reading the feeds separately from the embedded broker.
    pub(super) fn count(config: &Checked) -> anyhow::Result<Fed> {
        let mut fed = Fed::default();
        let Cluster::Embedded(embedded) = &config.kafka.cluster else { return Ok(fed) };
        for feed in &embedded.feeds {
            if let FeedSource::File(path) = &feed.source {
                fed.count_file(&feed.source)
                    .with_context(|| format!("{} can't be counted", path.display()))?;
            }
        }
        Ok(fed)
    }

    fn count_file(&mut self, source: &FeedSource) -> anyhow::Result<()> {
        for_each_record(source, |record| {
            self.events += 1;
            match &record.key {
                Some(key) if !self.keys.contains(key) => {
                    self.keys.insert(key.clone());
                }
                Some(_) => {}
                None => self.without_key += 1,
            }
        })?;
        Ok(())
    }
}

impl Published {
    /// Counts a record and checks its order. The records of a partition must be taken in order.
    pub(super) fn take(&mut self, topic: &str, record: &Record<'_>) {
        *self.topics.entry(topic.to_owned()).or_default() += 1;
        let (Some(key), Some(origin)) = (record.key(), origin(record)) else { return };
        self.checked += 1;
        let before = self.last.insert((topic.to_owned(), key.to_vec()), origin);
        // One key is in one partition, and one event may publish several records.
        if before.is_some_and(|before| before.0 != origin.0 || before.1 > origin.1) {
            self.violations += 1;
        }
    }

    /// Returns the number of records whose event precedes that of the previous record of the same key, or is in another
    /// partition.
    pub(super) fn violations(&self) -> u64 {
        self.violations
    }
}

/// Returns the text of the report.
pub(super) fn text(fed: &Fed, end: &RunEnd, published: &Published) -> String {
    let seconds = end.totals.active.as_secs_f64();
    let done = end.totals.done;
    #[expect(clippy::cast_precision_loss, reason = "an approximate rate")]
    let rate = done as f64 / seconds.max(0.001);
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _infallible = writeln!(text, "{label:<12} {value}");
    };
    line("events", format!("{done} of {} processed, in {} guest calls", fed.events, end.totals.calls));
    line("keys", format!("{} planes; {} events without a key", fed.keys.len(), fed.without_key));
    for (topic, records) in &published.topics {
        line("published", format!("{records} to {topic}"));
    }
    let order_result = if published.violations == 0 {
        "in order".to_owned()
    } else {
        format!("{} OUT OF ORDER", published.violations)
    };
    line(
        "order",
        format!(
            "{} outputs compared with the previous event of their plane: {order_result}",
            published.checked
        ),
    );
    line("rate", format!("{rate:.0} events/s over {seconds:.2} s, from the first read to the last commit"));
    for failure in &end.failures {
        line("FAILED", failure.clone());
    }
    text
}

fn origin(record: &Record<'_>) -> Option<(i64, i64)> {
    let number = |name: &[u8]| {
        let (_, value) = record.headers().find(|(known, _)| *known == name)?;
        std::str::from_utf8(value?).ok()?.parse().ok()
    };
    Some((number(b"keylane-origin-partition")?, number(b"keylane-origin-offset")?))
}
