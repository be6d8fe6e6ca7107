//! A handler that traps on every event, for minutes. Memory must not grow.

use anyhow::{Context as _, Result};
use keylane_tests::guests::guest;
use keylane_tests::kafka::{Cluster, Producer, unique};
use keylane_tests::keylane::{Keylane, Settings};

use crate::load::{self, BATCHES_PER_SECOND};
use crate::numbers::{Median, float, format_number, mebibytes};
use crate::options::Options;
use crate::report::{self, Table};
use crate::{keylane, pairs, topic};

/// More than the target of 10,000, and less than the machine's maximum. The rest is for the broker
/// and the load.
const EVENTS_PER_SECOND: usize = 12_000;
const MINUTE: usize = 60;

/// Traps per second and resident memory of the first and of the last minute, with one and with 64 events per call.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let mut table =
        Table::new(&["events per call", "traps/s", "MiB, first minute", "MiB, last minute", "peak"]);
    for batch in [1, 64] {
        table.row(run(&cluster, options, batch)?);
    }
    table.print();
    Ok(())
}

fn run(cluster: &Cluster, options: &Options, batch: u64) -> Result<Vec<String>> {
    let input = unique("storm");
    cluster.admin().create_topic(&input, topic::PARTITIONS, &[]);
    let settings = Settings::new(&cluster.bootstrap())
        .handler(&guest("traps"), &input, &unique("storm"))
        .set("handlers.t", "max_batch", batch)
        .set("handlers.t.retry", "max_attempts", 1)
        .set("handlers.t.retry", "on_exhausted", "skip")
        .set("runtime", "cache_dir", keylane::cache().display().to_string());
    let mut running = Keylane::run(&settings, &[]);
    running.wait_for("the partitions", |line| keylane::has_message(line, keylane::ASSIGNED));
    let producer = Producer::new(&cluster.bootstrap());
    let mut memory = Vec::new();
    let took = load::steady(&producer, &input, (EVENTS_PER_SECOND, options.seconds), |batch| {
        if batch % BATCHES_PER_SECOND == 0 {
            memory.push(mebibytes(running.resident_bytes().context("keylane ended")?));
        }
        Ok(())
    })?;
    running.terminate();
    running.wait_for("the summary", |line| keylane::has_message(line, "handler totals"));
    let skipped = running
        .lines()
        .iter()
        .rev()
        .find_map(|line| line.get("skipped").and_then(|skipped| skipped.as_u64()));
    let skipped = skipped.context("the summary has no count of skipped events")?;
    report::line(&format!("{skipped} events trapped in {took:.1} s"));
    let peak = memory.iter().copied().fold(0.0, f64::max);
    let minute =
        |samples: &[f64]| Median::of(samples.iter().copied()).map_or(String::new(), |median| median.text(1));
    let (first, last) = (memory.len().min(MINUTE), memory.len().saturating_sub(MINUTE));
    Ok(vec![
        batch.to_string(),
        format_number(float(skipped) / took, 0),
        minute(memory.get(..first).unwrap_or_default()),
        minute(memory.get(last..).unwrap_or_default()),
        format_number(peak, 1),
    ])
}
