//! Measures the status of 1,000 partitions: as a request, in the event loop, and with the command `keylane status`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keylane_tests::admin::Admin;
use keylane_tests::kafka::unique;
use keylane_tests::keylane::{Keylane, binary};

use crate::numbers::Median;
use crate::options::Options;
use crate::{keylane, pairs, report};

/// The number of partitions.
const PARTITIONS: i32 = 1_000;
/// The number of requests.
const REQUESTS: usize = 50;

/// Measures one process without events.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let topic = unique("status");
    cluster.admin().create_topic(&topic, PARTITIONS, &[]);
    let settings = keylane::settings(&cluster.bootstrap(), &topic, "noop", options);
    let settings = settings.set("admin", "listen", "127.0.0.1:0");
    let mut running = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut running);
    for _ in 0..PARTITIONS {
        running.wait_for("all partitions", |line| keylane::has_message(line, keylane::ASSIGNED));
    }
    let bounds = ["0.00061", "0.001525"];
    let before = bounds.map(|bound| turns_above(bound, &admin));
    let requests = (0..REQUESTS).map(|_| timed(|| Ok(admin.get("/v1/status").0 == 200)));
    report("a status of 1,000 partitions, in ms", &requests.collect::<Result<Vec<_>>>()?)?;
    for (bound, before) in bounds.iter().zip(before) {
        let turns = turns_above(bound, &admin) - before;
        report::line(&format!("turns of the event loop above {bound} s during {REQUESTS} requests: {turns}"));
    }
    let commands = (0..REQUESTS).map(|_| {
        timed(|| {
            let binary = options.binary.as_deref().unwrap_or_else(|| binary());
            let mut command = Command::new(binary);
            command.args(["status", "--admin", &admin.url]).stdin(Stdio::null()).stdout(Stdio::null());
            Ok(command.status()?.success())
        })
    });
    report("`keylane status`, in ms", &commands.collect::<Result<Vec<_>>>()?)
}

/// The number of turns of the event loop that took longer than this bound of a bucket, in seconds.
fn turns_above(bound: &str, admin: &Admin) -> u64 {
    let metrics = admin.metrics();
    let number = |is_it: &dyn Fn(&str) -> bool| -> u64 {
        let value = metrics.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value);
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let bucket = format!("le=\"{bound}\"");
    let all = number(&|name| name.starts_with("keylane_loop_turn_seconds_count"));
    all - number(&|name| name.starts_with("keylane_loop_turn_seconds_bucket") && name.contains(&bucket))
}

#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this program")]
fn timed(work: impl FnOnce() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    ensure!(work()?, "the request failed");
    Ok(start.elapsed())
}

fn report(name: &str, times: &[Duration]) -> Result<()> {
    let median = Median::of(times.iter().map(|time| time.as_secs_f64() * 1e3)).context("no request")?;
    report::line(&format!("{name}: {}", median.text(2)));
    Ok(())
}
