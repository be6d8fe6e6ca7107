//! The memory of an event that waits in its gate: all events but the first one of each key come before that one. With a
//! window, they wait until the end of the log. With `consecutive`, transactions keep effects of events meanwhile.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use keylane_tests::janitor;
use keylane_tests::kafka::{Cluster, Producer, Record, unique};
use keylane_tests::keylane::Settings;

use crate::numbers::{Median, float, format_number, mebibytes};
use crate::options::Options;
use crate::report::{self, Table};
use crate::topic::Events;
use crate::transactional::transactional;
use crate::{gates, keylane, pairs};

const PARTITIONS: i32 = 16;

/// With transactions, a quarter of the memory budget is for queued events: a million of them must fit.
const VALUE_BYTES: usize = 100;

/// What is compared with no gate: a name, and the settings of the gate.
const GATES: [(&str, &[(&str, &str)]); 2] = [
    (
        "window, session",
        &[
            ("rule", "window"),
            ("window", "1h"),
            ("max_waiting", "10000000"),
            ("max_waiting_bytes", "1GiB"),
            ("max_ahead", "1000000"),
            ("marks_memory", "64MiB"),
        ],
    ),
    ("consecutive, durable", &[("rule", "consecutive"), ("first", "1"), ("gap_timeout", "never")]),
];

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
    for (_, gate) in GATES {
        keylane::warm_up(&settings(&cluster, &empty(), gate, gate, options).0, options)?;
    }
    let mut table = Table::new(&["pair", "gate", "MiB, no gate", "MiB, gate", "bytes per waiting event"]);
    let mut costs: Vec<(&str, f64)> = Vec::new();
    for pair in 1..=options.pairs {
        for (rule, gate) in GATES {
            let peak = |used: &[(&str, &str)]| -> Result<u64> {
                let (settings, folder) = settings(&cluster, &name, gate, used, options);
                let run = keylane::until_end(&settings, options)?;
                std::fs::remove_dir_all(&folder).context("the files of the marks")?;
                Ok(run.usage.peak_memory)
            };
            let (without, with) = (peak(&[])?, peak(gate)?);
            let each = (float(with) - float(without)) / float(early);
            costs.push((rule, each));
            table.row(vec![
                pair.to_string(),
                rule.to_owned(),
                format_number(mebibytes(without), 1),
                format_number(mebibytes(with), 1),
                format_number(each, 1),
            ]);
        }
    }
    table.print();
    let counted = float(bytes) / float(early);
    for (rule, _) in GATES {
        let of_rule = costs.iter().filter(|(of, _)| *of == rule).map(|&(_, each)| each);
        let text = Median::of(of_rule).map_or_else(String::new, |median| median.text(1));
        report::line(&format!(
            "median, {rule}: {text} bytes per waiting event, which counts as {counted:.1}"
        ));
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

/// `gate`: selects the delivery. `used`: its settings, or none.
fn settings(
    cluster: &Cluster,
    input: &str,
    gate: &[(&str, &str)],
    used: &[(&str, &str)],
    options: &Options,
) -> (Settings, std::path::PathBuf) {
    let name = unique("figures-early");
    let folder = janitor::folder(&name);
    let is_durable = gate.contains(&("rule", "consecutive"));
    let mut settings = keylane::settings(&cluster.bootstrap(), input, "noop", options)
        .set("kafka", "create_topics", true)
        .set("runtime", "memory_budget", "2GiB")
        .set("handlers.t.lanes", "no_key", "reject");
    if is_durable {
        settings = transactional(settings);
    }
    if !used.is_empty() {
        settings = settings.set("handlers.t.gate", "by", format!("header:{VERSION}"));
        if is_durable {
            let dir = folder.display().to_string();
            settings = settings.set("handlers.t.keys", "topic", name).set("handlers.t.keys", "dir", dir);
        }
    }
    let set = |settings: Settings, &(name, value): &(&str, &str)| {
        settings.set("handlers.t.gate", name, gates::number_or(value))
    };
    (used.iter().fold(settings, set), folder)
}
