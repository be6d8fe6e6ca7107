//! The time to the first event: from the start of the process, with the embedded broker.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::{guests, janitor, wait};

use crate::numbers::Median;
use crate::options::Options;
use crate::report;

/// The handler prints when it receives this value.
const VALUE: &str = "print";

/// The first run compiles the component; the others load it from the cache.
pub(crate) fn measure(options: &Options) -> Result<()> {
    report::line(&crate::machine::describe());
    let folder = janitor::folder("embedded");
    fs::write(folder.join("events.jsonl"), format!("{{\"key\": \"k\", \"value\": \"{VALUE}\"}}\n"))?;
    let file = folder.join("keylane.toml");
    let settings = Settings::default()
        .set("kafka", "bootstrap_servers", "embedded")
        .set("runtime", "cache_dir", crate::keylane::cache().display().to_string())
        .handler(&guests::guest("failing"), "t", "embedded")
        .set("handlers.t.outputs.out", "topic", "out");
    let feed = "[[embedded.feed]]\ntopic = \"t\"\nfile = \"events.jsonl\"\n";
    fs::write(&file, settings.to_toml() + feed)?;
    let first = start_to_event(&file);
    report::line(&format!("first start, with compilation: {:.2} s", first.as_secs_f64()));
    let later = (0..options.pairs).map(|_| start_to_event(&file).as_secs_f64());
    if let Some(median) = Median::of(later) {
        report::line(&format!("median of {} later starts: {} s", options.pairs, median.text(2)));
    }
    Ok(())
}

/// The time until the output of the handler for its first event appears; polled every 20 ms.
fn start_to_event(file: &std::path::Path) -> Duration {
    // The binary is built before the measurement.
    keylane_tests::keylane::binary();
    let (mut running, took) = wait::timed(|| {
        let mut running = Keylane::run_file(file, &[], Stdio::null());
        running.wait_for("the first event", |line| line.to_string().contains("at offset 0"));
        running
    });
    running.kill();
    took
}
