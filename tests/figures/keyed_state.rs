//! Keyed state: the cost of an event whose state changes, with all states in the cache and with a small cache, and the rate
//! at which lost files are restored.
//!
//! The first event of each key needs its file, whatever the cache. Therefore a second topic has only these events, and the
//! cost of a later event is the difference between the two topics, divided by the number of later events.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use keylane_tests::janitor;
use keylane_tests::kafka::unique;
use keylane_tests::keylane::Settings;
use serde_json::Value;

use crate::keylane::{self, Run};
use crate::numbers::{Median, float, format_number, mebibytes, micros_each, rate};
use crate::options::Options;
use crate::report::{self, Table};
use crate::transactional::transactional;
use crate::{pairs, topic};

/// Sizes of the cache: all states, and the default.
const CACHES: [&str; 2] = ["1GiB", "64MiB"];

/// Each round, with each cache: all events, then a restart without files.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    anyhow::ensure!(options.events > options.keys, "more `--events` than `--keys` are needed");
    let topic = pairs::write_topic(&cluster, options.events, options.keys)?;
    let first = pairs::write_topic(&cluster, options.keys, options.keys)?;
    let settings = |input: &str, cache: &str| {
        let name = unique("figures-state");
        let folder = janitor::folder(&name);
        let settings = transactional(keylane::settings(&cluster.bootstrap(), input, "latest", options))
            .set("handlers.t.lanes", "no_key", "reject")
            .set("handlers.t.state", "version", 1)
            .set("handlers.t.keys", "topic", name.clone())
            .set("handlers.t.keys", "cache", cache)
            .set("handlers.t.keys", "dir", folder.display().to_string());
        (settings, name, folder)
    };
    keylane::warm_up(&settings(&topic::empty(&cluster), CACHES[0]).0, options)?;
    let titles = [
        "round",
        "cache",
        "events/s",
        "µs CPU",
        "later",
        "peak MiB",
        "others",
        "restored",
        "records/s",
        "µs CPU",
    ];
    let mut table = Table::new(&titles);
    let mut measured = Vec::new();
    for round in 1..=options.pairs {
        for cache in CACHES {
            let (first_settings, first_changelog, first_folder) = settings(&first.name, cache);
            let first_run = keylane::until_end(&first_settings, options)?;
            let (settings, changelog, folder) = settings(&topic.name, cache);
            let run = keylane::until_end(&settings, options)?;
            let restored = restore(&settings, &folder, options)?;
            for (changelog, folder) in [(first_changelog, first_folder), (changelog, folder)] {
                cluster.admin().delete_topic(&changelog);
                std::fs::remove_dir_all(&folder).context("the files of the states")?;
            }
            let later = run.usage.cpu.saturating_sub(first_run.usage.cpu);
            let later = micros_each(topic.events - first.events, later);
            measured.push((cache, later, run, restored));
            let mut cells = vec![round.to_string(), cache.to_owned()];
            cells.extend(row(topic.events, later, &run, &restored));
            table.row(cells);
        }
    }
    table.print();
    for cache in CACHES {
        let of_cache = || measured.iter().filter(|(known, ..)| *known == cache);
        let median = |decimals, of: fn(&(&str, f64, Run, Restored)) -> f64| {
            Median::of(of_cache().map(of)).map_or_else(String::new, |median| median.text(decimals))
        };
        report::line(&format!(
            "median, cache {cache}: {} µs of CPU per later event, {} peak MiB, {} records/s restored",
            median(2, |(_, later, ..)| *later),
            median(0, |(_, _, run, _)| mebibytes(run.usage.peak_memory)),
            median(0, |(.., restored)| rate(restored.records, restored.took)),
        ));
    }
    Ok(())
}

fn row(events: u64, later: f64, run: &Run, restored: &Restored) -> [String; 8] {
    [
        format_number(rate(events, run.working), 0),
        format_number(micros_each(events, run.usage.cpu), 2),
        format_number(later, 2),
        format_number(mebibytes(run.usage.peak_memory), 0),
        format_number(run.usage.others, 2),
        format_number(float(restored.records), 0),
        format_number(rate(restored.records, restored.took), 0),
        format_number(micros_each(restored.records, restored.cpu), 2),
    ]
}

/// A restore of all partitions.
#[derive(Debug, Clone, Copy)]
struct Restored {
    records: u64,
    /// From the assignment of the partitions until the last one is restored.
    took: Duration,
    /// The CPU time of the whole process.
    cpu: Duration,
}

/// Runs Keylane again after its files were deleted. There is no event left.
fn restore(settings: &Settings, folder: &Path, options: &Options) -> Result<Restored> {
    std::fs::remove_dir_all(folder).context("the files of the states")?;
    std::fs::create_dir(folder)?;
    let (run, lines) = keylane::until_end_with_log(settings, options)?;
    let restored: Vec<&Value> =
        lines.iter().filter(|line| keylane::has_message(line, "keyed state restored")).collect();
    let number = |line: &Value, field: &str| line.get(field).and_then(Value::as_u64).unwrap_or(0);
    let records = restored.iter().map(|line| number(line, "records")).sum();
    anyhow::ensure!(records > 0, "nothing was restored");
    let took = restored.iter().map(|line| number(line, "took_ms")).max().unwrap_or(0);
    Ok(Restored { records, took: Duration::from_millis(took), cpu: run.usage.cpu })
}
