//! Two sides that do the same work, alternately and several times: a plain librdkafka loop and
//! Keylane.

use std::time::Duration;

use anyhow::{Context as _, Result};
use keylane_tests::kafka::{self, Cluster, Options as Brokers};

use crate::child::Usage;
use crate::numbers::{Median, format_number, mebibytes, micros_each, rate};
use crate::options::Options;
use crate::report::{self, Table};
use crate::topic::{self, Topic};
use crate::{keylane, machine, raw};

/// W1: the cost of dispatch. A no-op handler, compared with a loop that drops every record.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = broker()?;
    let topic = write_topic(&cluster, options.events, options.keys)?;
    let bootstrap = cluster.bootstrap();
    keylane::warm_up(&keylane::settings(&bootstrap, &topic::empty(&cluster), "noop", options), options)?;
    raw::measure(&bootstrap, &topic, raw::Inspect::Nothing)?;
    let pairs = Pairs::run(
        options.pairs,
        || raw::measure(&bootstrap, &topic, raw::Inspect::Nothing),
        || keylane::until_end(&keylane::settings(&bootstrap, &topic.name, "noop", options), options),
    )?;
    pairs.print("raw loop", topic.events)
}

/// A broker owned by this process.
pub(crate) fn broker() -> Result<Cluster> {
    report::line(&machine::describe());
    kafka::dedicated(&Brokers::default()).context("a figure needs a broker: see above")
}

/// Writes a topic with this many events, and reports it.
pub(crate) fn write_topic(cluster: &Cluster, events: u64, keys: u64) -> Result<Topic> {
    let topic = topic::write(cluster, events, keys)?;
    let (count, distinct) =
        (format_number(crate::numbers::float(events), 0), format_number(crate::numbers::float(keys), 0));
    report::line(&format!(
        "{count} events of {distinct} keys, written in {:.1} s",
        topic.written_in.as_secs_f64()
    ));
    Ok(topic)
}

/// The usage of both sides, pair by pair.
#[derive(Debug)]
pub(crate) struct Pairs {
    measured: Vec<(Side, Side)>,
}

/// The usage of one side.
#[derive(Debug, Clone, Copy)]
struct Side {
    working: Duration,
    usage: Usage,
}

impl Pairs {
    /// Measures `count` pairs, the limit first.
    pub(crate) fn run(
        count: usize,
        mut limit: impl FnMut() -> Result<(Duration, Usage)>,
        mut ours: impl FnMut() -> Result<keylane::Run>,
    ) -> Result<Self> {
        let mut measured = Vec::new();
        for _ in 0..count {
            let (working, usage) = limit()?;
            let run = ours()?;
            measured.push((Side { working, usage }, Side { working: run.working, usage: run.usage }));
        }
        Ok(Self { measured })
    }

    /// Prints a row for each pair, then the medians.
    pub(crate) fn print(&self, limit: &str, events: u64) -> Result<()> {
        let titles = [
            "pair", limit, "µs CPU", "MiB", "others", "keylane", "µs CPU", "MiB", "others", "whole", "ratio",
        ];
        let mut table = Table::new(&titles);
        for (number, (limit, ours)) in self.measured.iter().enumerate() {
            let mut cells = vec![(number + 1).to_string()];
            cells.extend(limit.cells(events));
            cells.extend(ours.cells(events));
            cells.push(format_number(rate(events, ours.usage.wall), 0));
            cells.push(format_number(ratio(limit, ours), 3));
            table.row(cells);
        }
        table.print();
        report::line(
            "Rates are events per second: of the raw side from its first record to its last, of Keylane from the \
             assignment of the partitions to the commit of the last event; `whole` counts its process from start to \
             exit. CPU per event and peak memory are those of the whole process. `others`: cores that other processes \
             (except the brokers) used meanwhile.",
        );
        self.medians(limit, events)
    }

    fn medians(&self, limit: &str, events: u64) -> Result<()> {
        self.median(&format!("{limit}, events/s"), 0, |limit, _| rate(events, limit.working))?;
        self.median("keylane, events/s", 0, |_, ours| rate(events, ours.working))?;
        self.median("ratio of a pair", 3, ratio)?;
        self.median(&format!("{limit}, µs of CPU per event"), 3, |limit, _| {
            micros_each(events, limit.usage.cpu)
        })?;
        self.median("keylane, µs of CPU per event", 3, |_, ours| micros_each(events, ours.usage.cpu))?;
        self.median("ratio of CPU per event", 3, |limit, ours| {
            ours.usage.cpu.as_secs_f64() / limit.usage.cpu.as_secs_f64()
        })?;
        self.median("keylane, peak MiB", 0, |_, ours| mebibytes(ours.usage.peak_memory))
    }

    fn median(&self, name: &str, decimals: usize, of: impl Fn(&Side, &Side) -> f64) -> Result<()> {
        let measured = self.measured.iter().map(|(limit, ours)| of(limit, ours));
        let median = Median::of(measured).context("no pair was measured")?;
        report::line(&format!("median {name}: {}", median.text(decimals)));
        Ok(())
    }
}

impl Side {
    fn cells(&self, events: u64) -> [String; 4] {
        [
            format_number(rate(events, self.working), 0),
            format_number(micros_each(events, self.usage.cpu), 3),
            format_number(mebibytes(self.usage.peak_memory), 0),
            format_number(self.usage.others, 2),
        ]
    }
}

/// Keylane's share of the limit's rate.
fn ratio(limit: &Side, ours: &Side) -> f64 {
    limit.working.as_secs_f64() / ours.working.as_secs_f64()
}
