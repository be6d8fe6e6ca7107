//! Two sides that do the same work, alternately and several times: a plain librdkafka loop and
//! Keylane.

use std::time::Duration;

use anyhow::{Context as _, Result};
use keylane_tests::kafka::{self, Cluster, Options as Brokers};

use crate::child::Used;
use crate::numbers::{Median, mebibytes, micros_each, rate, write};
use crate::options::Options;
use crate::report::{self, Table};
use crate::topic::{self, Topic};
use crate::{keylane, machine, raw};

/// W1: the cost of dispatch. A no-op handler, compared with a loop that drops every record.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = broker()?;
    let topic = written(&cluster, options.events, options.keys)?;
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
    kafka::own(&Brokers::default()).context("a figure needs a broker: see above")
}

/// Writes a topic with this many events, and reports it.
pub(crate) fn written(cluster: &Cluster, events: u64, keys: u64) -> Result<Topic> {
    let topic = topic::write(cluster, events, keys)?;
    let (count, distinct) = (write(crate::numbers::float(events), 0), write(crate::numbers::float(keys), 0));
    report::line(&format!(
        "{count} events of {distinct} keys, written in {:.1} s",
        topic.written_in.as_secs_f64()
    ));
    Ok(topic)
}

/// The usage of both sides, pair by pair.
#[derive(Debug)]
pub(crate) struct Pairs {
    taken: Vec<(Side, Side)>,
}

/// The usage of one side.
#[derive(Debug, Clone, Copy)]
struct Side {
    working: Duration,
    used: Used,
}

impl Pairs {
    /// Measures `count` pairs, the limit first.
    pub(crate) fn run(
        count: usize,
        mut limit: impl FnMut() -> Result<(Duration, Used)>,
        mut ours: impl FnMut() -> Result<keylane::Run>,
    ) -> Result<Self> {
        let mut taken = Vec::new();
        for _ in 0..count {
            let (working, used) = limit()?;
            let run = ours()?;
            taken.push((Side { working, used }, Side { working: run.working, used: run.used }));
        }
        Ok(Self { taken })
    }

    /// Prints a row for each pair, then the medians.
    pub(crate) fn print(&self, limit: &str, events: u64) -> Result<()> {
        let titles = [
            "pair", limit, "µs CPU", "MiB", "others", "keylane", "µs CPU", "MiB", "others", "whole", "ratio",
        ];
        let mut table = Table::new(&titles);
        for (number, (limit, ours)) in self.taken.iter().enumerate() {
            let mut cells = vec![(number + 1).to_string()];
            cells.extend(limit.cells(events));
            cells.extend(ours.cells(events));
            cells.push(write(rate(events, ours.used.wall), 0));
            cells.push(write(ratio(limit, ours), 3));
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
            micros_each(events, limit.used.cpu)
        })?;
        self.median("keylane, µs of CPU per event", 3, |_, ours| micros_each(events, ours.used.cpu))?;
        self.median("ratio of CPU per event", 3, |limit, ours| {
            ours.used.cpu.as_secs_f64() / limit.used.cpu.as_secs_f64()
        })?;
        self.median("keylane, peak MiB", 0, |_, ours| mebibytes(ours.used.peak_memory))
    }

    fn median(&self, name: &str, decimals: usize, of: impl Fn(&Side, &Side) -> f64) -> Result<()> {
        let measured = self.taken.iter().map(|(limit, ours)| of(limit, ours));
        let median = Median::of(measured).context("no pair was measured")?;
        report::line(&format!("median {name}: {}", median.text(decimals)));
        Ok(())
    }
}

impl Side {
    fn cells(&self, events: u64) -> [String; 4] {
        [
            write(rate(events, self.working), 0),
            write(micros_each(events, self.used.cpu), 3),
            write(mebibytes(self.used.peak_memory), 0),
            write(self.used.others, 2),
        ]
    }
}

/// Keylane's share of the limit's rate.
fn ratio(limit: &Side, ours: &Side) -> f64 {
    limit.working.as_secs_f64() / ours.working.as_secs_f64()
}
