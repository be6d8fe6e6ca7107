//! Gates: the cost of an event with each rule, compared with the same events without a gate. Five of a hundred events are
//! displaced by up to a thousand places.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use anyhow::{Context as _, Result};
use keylane_tests::janitor;
use keylane_tests::kafka::{Cluster, Producer, Record, unique};
use keylane_tests::keylane::Settings;

use crate::keylane::{self, Run};
use crate::numbers::{Median, float, format_number, mebibytes, micros_each, rate};
use crate::options::Options;
use crate::pairs;
use crate::report::{self, Table};
use crate::topic::{self, Events, Random};
use crate::transactional::transactional;

/// Percentage of displaced events, and by how many places at most.
const DISPLACED: u64 = 5;
const PLACES: u64 = 1_000;

/// Memory for the marks of all keys.
const MARKS_MEMORY: &str = "64MiB";

/// The header with the version of an event.
const VERSION: &str = "row-version";

/// What is compared: a name, whether delivery is transactional, and the settings of the gate.
struct Variant {
    name: &'static str,
    transactional: bool,
    gate: &'static [(&'static str, &'static str)],
}

const VARIANTS: [Variant; 6] = [
    Variant { name: "no gate", transactional: false, gate: &[] },
    Variant {
        name: "newest, session",
        transactional: false,
        gate: &[("rule", "newest"), ("memory", "session")],
    },
    Variant {
        name: "window, session",
        transactional: false,
        gate: &[("rule", "window"), ("window", "1s"), ("max_ahead", "1000000")],
    },
    Variant { name: "no gate, transactional", transactional: true, gate: &[] },
    Variant { name: "newest, durable", transactional: true, gate: &[("rule", "newest")] },
    Variant {
        name: "consecutive, durable",
        transactional: true,
        gate: &[("rule", "consecutive"), ("first", "1")],
    },
];

/// In each round, every variant once.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let name = topic::empty(&cluster);
    Producer::new(&cluster.bootstrap()).send_all(&name, Displaced::new(options.events, options.keys))?;
    for variant in &VARIANTS {
        keylane::warm_up(&settings(&cluster, &topic::empty(&cluster), variant, options).0, options)?;
    }
    let mut table = Table::new(&["round", "gate", "events/s", "µs CPU", "ratio", "peak MiB", "others"]);
    let mut measured: Vec<(&str, f64, Run)> = Vec::new();
    for round in 1..=options.pairs {
        let mut without = [None; 2];
        for variant in &VARIANTS {
            let (settings, folder) = settings(&cluster, &name, variant, options);
            let run = keylane::until_end(&settings, options)?;
            std::fs::remove_dir_all(&folder).context("the files of the marks")?;
            let cpu = run.usage.cpu.as_secs_f64();
            let [at_least_once, once] = &mut without;
            let base = if variant.transactional { once } else { at_least_once };
            let ratio = cpu / *base.get_or_insert(cpu);
            measured.push((variant.name, ratio, run));
            table.row(vec![
                round.to_string(),
                variant.name.to_owned(),
                format_number(rate(options.events, run.working), 0),
                format_number(micros_each(options.events, run.usage.cpu), 2),
                format_number(ratio, 2),
                format_number(mebibytes(run.usage.peak_memory), 0),
                format_number(run.usage.others, 2),
            ]);
        }
    }
    table.print();
    for variant in &VARIANTS {
        let of_variant = || measured.iter().filter(|(name, ..)| *name == variant.name);
        let ratio = Median::of(of_variant().map(|(_, ratio, _)| *ratio));
        let cpu = Median::of(of_variant().map(|(.., run)| micros_each(options.events, run.usage.cpu)));
        let text = |median: Option<Median>| median.map_or_else(String::new, |median| median.text(2));
        report::line(&format!("median, {}: {} µs of CPU, ratio {}", variant.name, text(cpu), text(ratio)));
    }
    report::line(&format!("{} events", format_number(float(options.events), 0)));
    Ok(())
}

fn settings(
    cluster: &Cluster,
    input: &str,
    variant: &Variant,
    options: &Options,
) -> (Settings, std::path::PathBuf) {
    let name = unique("figures-gates");
    let folder = janitor::folder(&name);
    let mut settings = keylane::settings(&cluster.bootstrap(), input, "noop", options)
        .set("kafka", "create_topics", true)
        .set("runtime", "memory_budget", "1GiB")
        .set("handlers.t.lanes", "no_key", "reject");
    if variant.transactional {
        settings = transactional(settings);
    }
    if !variant.gate.is_empty() {
        settings = settings.set("handlers.t.gate", "by", format!("header:{VERSION}"));
        if !variant.transactional {
            settings = settings.set("handlers.t.gate", "marks_memory", MARKS_MEMORY);
        }
        if variant.transactional {
            settings = settings.set("handlers.t.keys", "topic", name).set(
                "handlers.t.keys",
                "dir",
                folder.display().to_string(),
            );
        }
    }
    let gate = variant.gate.iter();
    (
        gate.fold(settings, |settings, (name, value)| {
            settings.set("handlers.t.gate", name, number_or(value))
        }),
        folder,
    )
}

/// Numbers are written without quotes.
pub(crate) fn number_or(value: &str) -> serde_json::Value {
    value.parse::<i64>().map_or_else(|_| serde_json::Value::from(value), serde_json::Value::from)
}

/// The events of the other figures, with the versions of their keys, and some of them later than they should be.
struct Displaced {
    events: Events,
    versions: BTreeMap<Vec<u8>, u64>,
    random: Random,
    /// The events that were made, by their place.
    made: BinaryHeap<Reverse<(u64, u64)>>,
    records: BTreeMap<u64, Record>,
    next: u64,
}

impl Displaced {
    fn new(events: u64, keys: u64) -> Self {
        Self {
            events: Events::new(events, keys),
            versions: BTreeMap::new(),
            random: Random(0xD1B5_4A32_D192_ED03),
            made: BinaryHeap::new(),
            records: BTreeMap::new(),
            next: 0,
        }
    }
}

impl Iterator for Displaced {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        // The next place is known once every event that could take it is made.
        while self.made.peek().is_none_or(|Reverse((place, _))| *place >= self.next) {
            let Some(record) = self.events.next() else { break };
            let version = self.versions.entry(record.key.clone().unwrap_or_default()).or_default();
            *version += 1;
            let record = record.with(VERSION, version.to_string());
            let late = if self.random.below(100) < DISPLACED { 1 + self.random.below(PLACES) } else { 0 };
            self.made.push(Reverse((self.next + late, self.next)));
            self.records.insert(self.next, record);
            self.next += 1;
        }
        let Reverse((_, number)) = self.made.pop()?;
        self.records.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_events_are_late_and_none_is_missing() {
        let version = |record: &Record| {
            let header =
                record.headers.iter().find(|(name, _)| *name == VERSION.as_bytes()).expect("a version");
            String::from_utf8(header.1.clone().expect("a value"))
                .expect("text")
                .parse::<u64>()
                .expect("a number")
        };
        let records: Vec<Record> = Displaced::new(20_000, 10).collect();
        assert_eq!(records.len(), 20_000);
        let mut greatest: BTreeMap<Option<Vec<u8>>, u64> = BTreeMap::new();
        let mut late = 0;
        for record in &records {
            let greatest = greatest.entry(record.key.clone()).or_default();
            late += u64::from(version(record) < *greatest);
            *greatest = (*greatest).max(version(record));
        }
        assert_eq!(greatest.values().sum::<u64>(), 20_000, "every version of every key");
        assert!((800..1_200).contains(&late), "{late}");
    }
}
