//! Transactional delivery: its rate and CPU time against at-least-once delivery, with many keys and with one, and the time
//! from producing an event to its visible output.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keylane_tests::kafka::{Cluster, Follower, Producer, Record, unique};
use keylane_tests::keylane::{Keylane, Settings};

use crate::numbers::format_number;
use crate::options::Options;
use crate::pairs::{self, Pairs};
use crate::report;
use crate::{keylane, topic};

/// Events of the hot key, for each of the other events: with at-least-once delivery, each waits for an acknowledgement.
const HOT_SHARE: u64 = 20;
/// Events per second while the time to visible outputs is measured: far below the limit of the machine.
const STEADY: u64 = 1_000;
/// Time for the first calls, which are slower.
const WARM_UP: Duration = Duration::from_secs(5);

/// All three.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let many = pairs::write_topic(&cluster, options.events, options.keys)?;
    compare(&cluster, &many, options)?;
    let hot = pairs::write_topic(&cluster, options.events.div_ceil(HOT_SHARE), 1)?;
    compare(&cluster, &hot, options)?;
    visible(&cluster, options)
}

/// A handler that emits each event unchanged.
fn echo(cluster: &Cluster, (input, output): (&str, &str), options: &Options) -> Settings {
    keylane::settings(&cluster.bootstrap(), input, "echo", options).set(
        "handlers.t.outputs.out",
        "topic",
        output,
    )
}

pub(crate) fn transactional(settings: Settings) -> Settings {
    settings.set("handlers.t", "delivery", "transactional")
}

/// At-least-once and transactional delivery of the same events, in interleaved pairs.
fn compare(cluster: &Cluster, input: &topic::Topic, options: &Options) -> Result<()> {
    let (nothing, nowhere) = (topic::empty(cluster), topic::empty(cluster));
    keylane::warm_up(&echo(cluster, (&nothing, &nowhere), options), options)?;
    // The output is deleted after each run: it must not occupy the disk during the next one.
    let run = |with: fn(Settings) -> Settings| {
        let output = topic::empty(cluster);
        let run = keylane::until_end(&with(echo(cluster, (&input.name, &output), options)), options);
        cluster.admin().delete_topic(&output);
        run
    };
    let pairs = Pairs::run(
        options.pairs,
        || run(|settings| settings).map(|run| (run.working, run.usage)),
        || run(transactional),
    )?;
    pairs.print("at least once", input.events)
}

/// The time from the call that produces an event until a reader of committed records has its output.
#[expect(clippy::disallowed_methods, reason = "measuring time is the purpose of this program")]
fn visible(cluster: &Cluster, options: &Options) -> Result<()> {
    let (input, output) = (topic::empty(cluster), topic::empty(cluster));
    let mut keylane = Keylane::run(&transactional(echo(cluster, (&input, &output), options)), &[]);
    keylane.wait_for("the partitions", |line| keylane::has_message(line, keylane::ASSIGNED));
    let producer = Producer::new(&cluster.bootstrap());
    let mut reader = Follower::of_committed(&cluster.bootstrap(), &output);
    let start = Instant::now();
    let end = WARM_UP + Duration::from_secs(options.seconds);
    let (mut produced, mut times, mut received) = (Vec::new(), Vec::new(), 0);
    let salt = unique("visible");
    while received < produced.len() || start.elapsed() < end {
        let due = u64::try_from(start.elapsed().min(end).as_millis())? * STEADY / 1_000;
        let first = produced.len();
        let new = (first..usize::try_from(due)?)
            .map(|number| Record::new(format!("{salt}-{number}"), number.to_string()));
        let new: Vec<Record> = new.inspect(|_| produced.push(start.elapsed())).collect();
        producer.enqueue(&input, new)?;
        for record in reader.take() {
            let number =
                std::str::from_utf8(record.value.as_deref().unwrap_or_default())?.parse::<usize>()?;
            let sent: &Duration = produced.get(number).context("an output of no event")?;
            received += 1;
            if *sent >= WARM_UP {
                times.push(start.elapsed().saturating_sub(*sent));
            }
        }
        ensure!(start.elapsed() < end * 2, "{received} of {} outputs are visible", produced.len());
    }
    keylane.terminate();
    keylane.expect_exit(0);
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 1_000).min(times.len().saturating_sub(1)));
    let text =
        |share: usize| at(share).map_or_else(String::new, |time| format_number(time.as_secs_f64() * 1e3, 1));
    report::line(&format!(
        "from producing to a visible output, {STEADY} events/s, ms: median {}, p99 {}, p99.9 {}, of {} events",
        text(500),
        text(990),
        text(999),
        times.len()
    ));
    Ok(())
}
