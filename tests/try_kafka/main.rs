//! `make kafka`: Apache Kafka for experiments with Keylane, with the events of the flights example.
//!
//! It runs until Ctrl-C and prints the state whenever it changes: the committed offsets of the group, the published
//! outputs, their repeats, and whether any plane's legs are out of order. Kill instances of
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
    for topic in ["flights", "flights.dlq", "flight-delays", "flight-oddities"] {
        cluster.admin().create_topic(topic, PARTITIONS, &[]);
    }
    let events = events()?;
    println!("Kafka runs at {bootstrap}. In other terminals, one or more times:");
    println!("  KAFKA={bootstrap} target/debug/keylane run -c examples/flights/kafka.toml");
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
    let group = Group::new(bootstrap, "flights");
    let mut delays = Follower::new(bootstrap, "flight-delays");
    let mut seen = Seen::default();
    let mut printed = String::new();
    loop {
        for record in delays.take() {
            seen.take(record.key.as_deref(), record.value.as_deref().unwrap_or_default())?;
        }
        let committed: i64 =
            group.committed("flights", PARTITIONS).iter().filter_map(|part| part.offset).sum();
        let members = group.state().members.len();
        if members > 0 || count > 0 {
            let next: Vec<Record> = events.by_ref().take(EVENTS_AT_ONCE).collect();
            count += next.len();
            producer.send_all("flights", next)?;
        }
        let Seen { published, repeated, out_of_order, .. } = seen;
        let line = format!(
            "{members} members, committed {committed} of {count}; {published} delays published, {repeated} of them repeated, \
             {out_of_order} out of order"
        );
        if line != printed {
            println!("{line}");
            printed = line;
        }
        std::thread::park_timeout(PAUSE);
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
