//! Measures the figures of Keylane's documentation on this machine with a real broker.
//!
//! `cargo run --release -p keylane-tests --bin figures -- <workload> [--events N] [--keys N] [--pairs N] …`
//!
//! A figure counts only as a ratio within one run: librdkafka alone as the limit ([`raw`]) and
//! Keylane ([`keylane`]) read the same topic ([`topic`]) from the same broker, alternately and
//! several times. Both are child processes, and the kernel reports their usage at their end
//! ([`child`]). Each run also shows how much of the machine other processes used meanwhile
//! ([`machine`]), so that a figure from a busy machine is recognizable.

mod before;
mod child;
mod early;
mod embedded;
mod emit;
mod gates;
mod guests;
mod idle;
mod interference;
mod keyed_state;
mod keylane;
mod keys;
mod load;
mod machine;
mod numbers;
mod options;
mod outage;
mod pairs;
mod raw;
mod report;
mod scrape;
mod serve;
mod status;
mod storm;
mod suspended;
mod topic;
mod transactional;

use std::process::ExitCode;

use anyhow::Result;

use options::Options;

const USAGE: &str = "\
usage: figures <workload> [--events N] [--keys N] [--pairs N] [--seconds N] [--workers N] [--binary FILE]

  w1        a no-op handler, compared with a plain librdkafka loop, in interleaved pairs
  before    a no-op handler, compared with the same under another build of Keylane (use --binary FILE)
  emit      a handler that emits one output per event, compared with a plain consume-produce loop
  keys      peak memory with 100,000 and with 1,000,000 distinct keys
  idle      CPU time with 8 partitions assigned and no events
  waits     a handler that waits 10 ms for each event, 1,000 calls in flight (use --keys 1000)
  suspended  memory of 5,000 suspended calls
  traps     a handler that traps on each event, with one and with 64 events per call
  storm     the same for minutes, with its memory sampled every second (use --seconds 300)
  filter    99.6 % of the events dropped by a header, compared with reading only
  poison    a key that fails among healthy ones, until its retries are exhausted (use --seconds 130)
  neighbours  a handler that spins, and one that exhausts memory, next to a healthy one
  dead-letter-outage  an outage of the dead-letter topic, under a healthy load
  broker-outage  an outage of the broker while outputs are in flight
  embedded  from the start of the process to the first event, on the embedded broker
  transactional  the same under transactional delivery, compared with at-least-once delivery: many keys, one hot key, and
            the time until outputs are visible (use --seconds 30)
  keyed-state  a handler whose event changes the state of its key, with all states in the cache and with the default cache,
            and the restore of lost files (use --keys 1000000 --events 3000000)
  gates     a no-op handler with each rule of a gate, compared with none; 5 % of the events are displaced
  early     peak memory with events that are early for their gate, compared with no gate (use --events 1000000)
  scrape    a no-op handler with a scrape of its metrics every second, compared with its admin server off
  status    the status of 1,000 partitions, as a request, in the event loop, and with `keylane status`
  serve     a broker with the topic, until standard input ends, for use with a profiler";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            keylane_tests::skip::print_line(&format!("figures: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (workload, rest) =
        arguments.split_first().map_or(("", arguments), |(first, rest)| (first.as_str(), rest));
    match workload {
        "w1" => pairs::measure(&Options::parse(rest)?),
        "before" => before::measure(&Options::parse(rest)?),
        "emit" => emit::measure(&Options::parse(rest)?),
        "keys" => keys::measure(&Options::parse(rest)?),
        "idle" => idle::measure(&Options::parse(rest)?),
        "embedded" => embedded::measure(&Options::parse(rest)?),
        "waits" => guests::waits(&Options::parse(rest)?),
        "suspended" => suspended::measure(&Options::parse(rest)?),
        "storm" => storm::measure(&Options::parse(rest)?),
        "traps" => guests::traps(&Options::parse(rest)?),
        "filter" => guests::filter(&Options::parse(rest)?),
        "poison" => interference::poison(&Options::parse(rest)?),
        "neighbours" => interference::neighbours(&Options::parse(rest)?),
        "dead-letter-outage" => outage::dead_letters(&Options::parse(rest)?),
        "broker-outage" => outage::broker(&Options::parse(rest)?),
        "transactional" => transactional::measure(&Options::parse(rest)?),
        "gates" => gates::measure(&Options::parse(rest)?),
        "early" => early::measure(&Options::parse(rest)?),
        "keyed-state" => keyed_state::measure(&Options::parse(rest)?),
        "scrape" => scrape::measure(&Options::parse(rest)?),
        "status" => status::measure(&Options::parse(rest)?),
        "serve" => serve::serve(&Options::parse(rest)?),
        raw::WORKLOAD => raw::run(rest),
        emit::WORKLOAD => emit::run(rest),
        other => anyhow::bail!("unknown workload {other:?}\n{USAGE}"),
    }
}
