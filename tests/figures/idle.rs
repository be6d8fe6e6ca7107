//! The cost of a process with partitions and without events.

use std::time::Duration;

use anyhow::{Context as _, Result};
use keylane_tests::keylane::Keylane;

use crate::numbers::float;
use crate::options::Options;
use crate::{keylane, pairs, report, topic};

/// The time from the assignment until fetches and timers are in a steady state.
const SETTLING: Duration = Duration::from_secs(5);

/// CPU time of an idle process, in hundredths of a second as the kernel counts it.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let topic = topic::empty(&cluster);
    let settings = keylane::settings(&cluster.bootstrap(), &topic, "noop", options);
    let mut running = Keylane::run(&settings, &[]);
    running.wait_for("the partitions", |line| keylane::has_message(line, keylane::ASSIGNED));
    std::thread::sleep(SETTLING);
    let before = running.cpu_ticks().context("keylane ended")?;
    std::thread::sleep(Duration::from_secs(options.seconds));
    let ticks = running.cpu_ticks().context("keylane ended")? - before;
    let share = float(ticks) / float(options.seconds);
    let memory = running.resident_bytes().context("keylane ended")?;
    report::line(&format!(
        "idle with {} partitions for {} s: {ticks} ticks of 10 ms, {share:.2} % of a core, {:.0} MiB resident",
        topic::PARTITIONS,
        options.seconds,
        crate::numbers::mebibytes(memory),
    ));
    Ok(())
}
