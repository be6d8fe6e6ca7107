//! The cost of an outage of the dead-letter topic or of the broker. Nothing is lost.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::progress::Progress;
use keylane_tests::wait;

use crate::load::{self, BATCHES_PER_SECOND};
use crate::numbers::{float, format_number};
use crate::options::Options;
use crate::{keylane, pairs, report, topic};

const HEALTHY_PER_SECOND: usize = 5_000;
const REJECTED_PER_SECOND: usize = 50;
const EVENTS: usize = 200_000;

/// The dead-letter topic is unavailable while events are rejected. Healthy lanes continue
/// unaffected, no commit passes an event whose dead letter is not stored, and every dead letter is
/// stored once the topic is available again.
pub(crate) fn dead_letters(options: &Options) -> Result<()> {
    let baseline = healthy(options, false)?;
    let measured = healthy(options, true)?;
    report::line(&format!(
        "healthy events/s, relative to the run without an outage: {}",
        format_number(measured / baseline, 3)
    ));
    Ok(())
}

fn healthy(options: &Options, unavailable: bool) -> Result<f64> {
    let cluster = pairs::broker()?;
    let flow = Flow::new(&cluster, topic::PARTITIONS, &[]);
    let mut running = Keylane::run(&flow.settings(&guest("failing"), "t"), &[]);
    running.wait_for("the partitions", |line| keylane::has_message(line, keylane::ASSIGNED));
    if unavailable {
        cluster.admin().delete_topic(&flow.dead_letters);
    }
    let (producer, mut rejected) = (flow.producer(), 0);
    let took = load::steady(&producer, &flow.input, (HEALTHY_PER_SECOND, options.seconds), |batch| {
        if !unavailable || batch % (BATCHES_PER_SECOND / REJECTED_PER_SECOND) != 0 {
            return Ok(());
        }
        rejected += 1;
        producer.enqueue(&flow.input, [Record::new("failing", "reject")])
    })?;
    let done: i64 = cluster.admin().watermarks(&flow.output).iter().map(|watermarks| watermarks.high).sum();
    report::line(&format!(
        "{done} healthy events done in {took:.1} s, dead-letter topic unavailable: {unavailable}"
    ));
    if unavailable {
        let inputs = kafka::read_all(&cluster.bootstrap(), &flow.input);
        let first = inputs.iter().find(|record| record.value.as_deref() == Some(b"reject"));
        let first = first.context("events were rejected")?;
        let of_partition = |committed: &&kafka::Committed| committed.partition == first.partition;
        let committed = flow.committed().iter().find(of_partition).and_then(|committed| committed.offset);
        let (partition, offset) = (first.partition, first.offset);
        report::line(&format!("partition {partition}: rejected first {offset}, committed {committed:?}"));
        ensure!(
            committed.is_none_or(|committed| committed <= offset),
            "a commit passed an event without its dead letter"
        );
        cluster.admin().create_topic(&flow.dead_letters, topic::PARTITIONS, &[]);
    }
    producer.flush()?;
    flow.wait_until_committed();
    if unavailable {
        let dead_letters = kafka::read_all(&cluster.bootstrap(), &flow.dead_letters).len();
        report::line(&format!(
            "{rejected} events rejected, {dead_letters} dead letters once the topic was back"
        ));
        ensure!(dead_letters == rejected, "dead letters are missing, or there are too many");
    }
    running.terminate();
    running.expect_exit(0);
    Ok(float(u64::try_from(done)?) / took)
}

/// The default of brokers and clients, instead of the short timeout of the tests.
const SESSION_TIMEOUT_MS: u64 = 45_000;

/// The broker is unavailable while outputs are in flight. Nothing is lost, and nothing is out of
/// order. An outage within the session timeout causes no repeats. A longer one ends the membership,
/// and calls in flight are repeated.
pub(crate) fn broker(options: &Options) -> Result<()> {
    let cluster = pairs::broker()?;
    let flow = Flow::new(&cluster, topic::PARTITIONS, &[]);
    let event = |number: usize| Record::new(format!("key-{}", number % 1_000), format!("event {number}"));
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event))?;
    let settings = flow.settings(&guest("echo"), "t");
    let settings = settings.set("kafka.client", "session.timeout.ms", SESSION_TIMEOUT_MS);
    let mut running = Keylane::run(&settings, &[]);
    let mut progress = Progress::of(&flow);
    let mut until = |goal: usize| {
        wait::until("outputs", wait::STATE_TIMEOUT, || {
            progress.advance();
            progress.done() >= goal
        });
    };
    until(EVENTS / 5);
    cluster.kill(1);
    sleep(Duration::from_secs(options.seconds));
    ensure!(!running.has_ended(), "keylane ended while the broker was unavailable");
    cluster.restart(1);
    until(EVENTS);
    flow.wait_until_committed();
    running.terminate();
    running.expect_exit(0);
    let checked = check::check(&flow.history());
    report::line(&format!("{EVENTS} events, the broker unavailable for {} s: {checked}", options.seconds));
    checked.assert_clean();
    Ok(())
}
