//! The memory cost of a suspended call.

use anyhow::Result;

use crate::keylane::Run;
use crate::numbers::{Median, format_number, mebibytes};
use crate::options::Options;
use crate::report::{self, Table};
use crate::{keylane, pairs, topic};

const FEW: u64 = 100;
const MANY: u64 = 5_000;
/// Enough for this many calls to wait at once for several seconds.
const EVENTS: u64 = 50_000;

/// Peak memory with few and with many suspended calls, in interleaved pairs.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let topic = pairs::write_topic(&cluster, EVENTS, EVENTS)?;
    let bootstrap = cluster.bootstrap();
    let run = |topic: &str, calls: u64, pause_ms: &str| -> Result<Run> {
        let settings = keylane::settings(&bootstrap, topic, "pauses", options)
            .set("handlers.t.lanes", "max_concurrency", calls)
            .set("handlers.t.grants", "env", ["PAUSE_MS"]);
        keylane::until_end_with(&settings, options, &[("PAUSE_MS", pause_ms)])
    };
    run(&topic::empty(&cluster), FEW, "0")?;
    let mut table = Table::new(&["pair", "MiB, 100 calls", "MiB, 5,000 calls", "KiB per call"]);
    let mut costs = Vec::new();
    for pair in 1..=options.pairs {
        let few = mebibytes(run(&topic.name, FEW, "10")?.usage.peak_memory);
        let many = mebibytes(run(&topic.name, MANY, "1000")?.usage.peak_memory);
        let each = (many - few) * 1024.0 / crate::numbers::float(MANY - FEW);
        costs.push(each);
        table.row(vec![
            pair.to_string(),
            format_number(few, 1),
            format_number(many, 1),
            format_number(each, 1),
        ]);
    }
    table.print();
    if let Some(median) = Median::of(costs) {
        report::line(&format!("median KiB per suspended call: {}", median.text(1)));
    }
    Ok(())
}
