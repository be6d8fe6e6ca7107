//! The memory of an event that is early for its gate: all events but the first one of each key come before that one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use keylane_tests::janitor;
use keylane_tests::kafka::{Cluster, Producer, Record, unique};
use keylane_tests::keylane::Settings;

use crate::keylane;
use crate::numbers::{Median, float, format_number};
use crate::options::Options;
use crate::pairs;
use crate::report::{self, Table};
use crate::topic::Events;
use crate::transactional::transactional;

const PARTITIONS: i32 = 16;

/// With transactions, a quarter of the memory budget is for queued events: a million of them must fit.
const VALUE_BYTES: usize = 100;

/// The header with the version of an event.
const VERSION: &str = "row-version";

/// Bytes of a record besides its key, its value and its headers, as Keylane counts them.
const RECORD_BYTES: usize = 84;
/// Bytes of a header besides its name and its value, as Keylane counts them.
const HEADER_BYTES: usize = 8;

/// Peak memory with and without a gate, in interleaved pairs.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let empty = || {
        let name = unique("figures-early");
        cluster.admin().create_topic(&name, PARTITIONS, &[]);
        name
    };
    let name = empty();
    let (early, bytes) = write(&cluster, &name, options)?;
    keylane::warm_up(&settings(&cluster, &empty(), true, options).0, options)?;
    let mut table = Table::new(&["pair", "MiB, no gate", "MiB, gate", "bytes per early event"]);
    let mut costs = Vec::new();
    for pair in 1..=options.pairs {
        let peak = |gate: bool| -> Result<u64> {
            let (settings, folder) = settings(&cluster, &name, gate, options);
            let run = keylane::until_end(&settings, options)?;
            std::fs::remove_dir_all(&folder).context("the files of the marks")?;
            Ok(run.usage.peak_memory)
        };
        let (without, with) = (peak(false)?, peak(true)?);
        let each = (float(with) - float(without)) / float(early);
        costs.push(each);
        table.row(vec![
            pair.to_string(),
            format_number(crate::numbers::mebibytes(without), 1),
            format_number(crate::numbers::mebibytes(with), 1),
            format_number(each, 1),
        ]);
    }
    table.print();
    let counted = float(bytes) / float(early);
    if let Some(median) = Median::of(costs) {
        report::line(&format!("median per early event: {} bytes; counted: {counted:.1}", median.text(1)));
    }
    Ok(())
}

/// Writes the events, and at last the first one of each key. Returns the number of early events and their bytes.
fn write(cluster: &Cluster, topic: &str, options: &Options) -> Result<(u64, u64)> {
    let mut versions: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut bytes = 0;
    let early = Events::new(options.events, options.keys).map(|record| {
        let version = versions.entry(record.key.clone().unwrap_or_default()).or_insert(1);
        *version += 1;
        let mut record = record.with(VERSION, version.to_string());
        record.value.iter_mut().for_each(|value| value.truncate(VALUE_BYTES));
        bytes += counted(&record);
        record
    });
    let producer = Producer::new(&cluster.bootstrap());
    producer.send_all(topic, early)?;
    let first = versions.into_keys().map(|key| Record::new(key, "first").with(VERSION, "1"));
    producer.send_all(topic, first)?;
    Ok((options.events, bytes as u64))
}

fn counted(record: &Record) -> usize {
    let lengths = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = record.headers.iter().map(|(name, value)| HEADER_BYTES + name.len() + lengths(value));
    RECORD_BYTES + lengths(&record.key) + lengths(&record.value) + headers.sum::<usize>()
}

fn settings(cluster: &Cluster, input: &str, gate: bool, options: &Options) -> (Settings, std::path::PathBuf) {
    let name = unique("figures-early");
    let folder = janitor::folder(&name);
    let settings = transactional(keylane::settings(&cluster.bootstrap(), input, "noop", options))
        .set("kafka", "create_topics", true)
        .set("runtime", "memory_budget", "2GiB")
        .set("handlers.t.lanes", "no_key", "reject");
    if !gate {
        return (settings, folder);
    }
    let gate = [("rule", "consecutive"), ("by", &format!("header:{VERSION}")), ("gap_timeout", "never")]
        .into_iter()
        .fold(settings, |settings, (name, value)| settings.set("handlers.t.gate", name, value));
    let keys = gate.set("handlers.t.gate", "first", 1).set("handlers.t.keys", "topic", name);
    (keys.set("handlers.t.keys", "dir", folder.display().to_string()), folder)
}
