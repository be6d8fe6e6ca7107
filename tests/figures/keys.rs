//! Memory grows with the events in flight, not with the number of keys.

use anyhow::Result;

use crate::numbers::{Median, format_number, mebibytes, micros_each, rate};
use crate::options::Options;
use crate::report::{self, Table};
use crate::{keylane, pairs, topic};

const FEW: u64 = 100_000;
const MANY: u64 = 1_000_000;

/// Peak memory with few and with many distinct keys, in interleaved pairs.
pub(crate) fn measure(options: &Options) -> Result<()> {
    anyhow::ensure!(options.events >= MANY, "at least {MANY} events are needed for {MANY} keys");
    let cluster = pairs::broker()?;
    let bootstrap = cluster.bootstrap();
    let topics = [
        (FEW, pairs::write_topic(&cluster, options.events, FEW)?),
        (MANY, pairs::write_topic(&cluster, options.events, MANY)?),
    ];
    keylane::warm_up(&keylane::settings(&bootstrap, &topic::empty(&cluster), "noop", options), options)?;
    let mut table = Table::new(&["pair", "keys", "peak MiB", "µs CPU", "events/s", "others"]);
    let mut peaks = Vec::new();
    for pair in 1..=options.pairs {
        for (keys, topic) in &topics {
            let run =
                keylane::until_end(&keylane::settings(&bootstrap, &topic.name, "noop", options), options)?;
            let peak = mebibytes(run.usage.peak_memory);
            peaks.push((*keys, peak));
            table.row(vec![
                pair.to_string(),
                keys.to_string(),
                format_number(peak, 1),
                format_number(micros_each(topic.events, run.usage.cpu), 3),
                format_number(rate(topic.events, run.working), 0),
                format_number(run.usage.others, 2),
            ]);
        }
    }
    table.print();
    for (keys, _) in &topics {
        let of_keys = peaks.iter().filter(|(with, _)| with == keys).map(|(_, peak)| *peak);
        if let Some(median) = Median::of(of_keys) {
            report::line(&format!("median peak MiB with {keys} keys: {}", median.text(1)));
        }
    }
    Ok(())
}
