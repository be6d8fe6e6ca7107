//! `make kafka`: Apache Kafka for experiments with Keylane, with the events of the flights examples.
//!
//! It runs until Ctrl-C and prints the state of each example whenever it changes: the committed offsets of the group, the
//! published outputs, their repeats, and whether any plane's legs are out of order. Kill instances of
//! `keylane run -c examples/flights/kafka.toml` meanwhile to see the effect.

#![expect(clippy::print_stdout, reason = "the state is the output of this program")]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use keylane_tests::kafka::{self, Cluster, Follower, Group, Options, Producer, Record};
use keylane_tests::keylane::workspace;
use serde_json::Value;

const PARTITIONS: i32 = 8;
const EVENTS: &str = "examples/flights/flights.jsonl.zst";
/// The interval between two checks and two batches of events.
const PAUSE: Duration = Duration::from_millis(250);
const EVENTS_AT_ONCE: usize = 500;

fn main() -> ExitCode {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return ExitCode::FAILURE };
    match run(&cluster) {
        Ok(never) => never,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cluster: &Cluster) -> Result<ExitCode> {
    let bootstrap = cluster.bootstrap();
    for topic in ["flights", "flights.dlq", "flight-delays", "flight-oddities", "flight-knock-ons"] {
        cluster.admin().create_topic(topic, PARTITIONS, &[]);
    }
    let events = events()?;
    println!("Kafka runs at {bootstrap}. In other terminals, one or more times:");
    println!("  KAFKA={bootstrap} target/debug/keylane run -c examples/flights/kafka.toml");
    println!("or, with a state for each plane:");
    println!("  KAFKA={bootstrap} target/debug/keylane run -c examples/flights-rotation/kafka.toml");
    println!("{} events are produced within a minute after the first instance has joined.", events.len());
    watch(&bootstrap, events)
}

/// The example's events, as records.
fn events() -> Result<Vec<Record>> {
    let file = File::open(workspace().join(EVENTS)).context(EVENTS)?;
    let lines = BufReader::new(zstd::stream::read::Decoder::new(file)?).lines();
    lines.map(|line| record(&line?)).collect()
}

fn record(line: &str) -> Result<Record> {
    let event: Value = serde_json::from_str(line)?;
    let bytes = |name: &str| event.get(name).and_then(Value::as_str).map(|text| text.as_bytes().to_vec());
    Ok(Record { key: bytes("key"), value: bytes("value"), ..Record::default() })
}

/// Produces the events, and prints the observed state whenever it changes.
fn watch(bootstrap: &str, events: Vec<Record>) -> Result<ExitCode> {
    let producer = Producer::new(bootstrap);
    let mut events = events.into_iter();
    let mut count = 0;
    let mut jobs = [
        Job::new(bootstrap, "flights", "delays", Follower::new(bootstrap, "flight-delays")),
        Job::new(
            bootstrap,
            "flights-rotation",
            "knock-on delays",
            Follower::of_committed(bootstrap, "flight-knock-ons"),
        ),
    ];
    loop {
        for job in &mut jobs {
            job.report(count)?;
        }
        if count > 0 || jobs.iter().any(Job::has_started) {
            let next: Vec<Record> = events.by_ref().take(EVENTS_AT_ONCE).collect();
            count += next.len();
            producer.send_all("flights", next)?;
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// One example that may be running.
struct Job {
    name: &'static str,
    group: Group,
    outputs: &'static str,
    follower: Follower,
    seen: Seen,
    /// The last line; empty until the group had a member.
    printed: String,
}

impl Job {
    /// The name of an example is that of its group.
    fn new(bootstrap: &str, name: &'static str, outputs: &'static str, follower: Follower) -> Self {
        let group = Group::new(bootstrap, name);
        Self { name, group, outputs, follower, seen: Seen::default(), printed: String::new() }
    }

    fn has_started(&self) -> bool {
        !self.printed.is_empty()
    }

    /// Prints the state of the example if it has changed since its group had the first member.
    fn report(&mut self, count: usize) -> Result<()> {
        for record in self.follower.take() {
            self.seen.take(record.key.as_deref(), record.value.as_deref().unwrap_or_default())?;
        }
        let members = self.group.state().members.len();
        if members == 0 && !self.has_started() {
            return Ok(());
        }
        let committed: i64 =
            self.group.committed("flights", PARTITIONS).iter().filter_map(|part| part.offset).sum();
        let Self { name, outputs, .. } = self;
        let Seen { published, repeated, out_of_order, .. } = self.seen;
        let line = format!(
            "{name}: {members} members, committed {committed} of {count}; {published} {outputs} published, {repeated} of them \
             repeated, {out_of_order} out of order"
        );
        if line != self.printed {
            println!("{line}");
            self.printed = line;
        }
        Ok(())
    }
}

/// The outputs so far. Repeats after a kill are allowed; the *first* outputs of a plane's legs
/// must be in the order of the legs.
#[derive(Default)]
struct Seen {
    published: usize,
    repeated: usize,
    out_of_order: usize,
    outputs: HashSet<(i64, i64)>,
    highest: HashMap<Vec<u8>, i64>,
}

impl Seen {
    fn take(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        let value: Value = serde_json::from_slice(value)?;
        let number = |name: &str| value.pointer(&format!("/source/{name}")).and_then(Value::as_i64);
        let (partition, offset) =
            number("partition").zip(number("offset")).context("an output without its source")?;
        self.published += 1;
        if !self.outputs.insert((partition, offset)) {
            self.repeated += 1;
        } else if let Some(key) = key {
            let before = self.highest.insert(key.to_vec(), offset);
            self.out_of_order += usize::from(before.is_some_and(|before| before > offset));
        }
        Ok(())
    }
}
