//! The figures that Keylane's documents give, measured on this machine against a real broker.
//!
//! `cargo run --release -p keylane-tests --bin figures -- <workload> [--events N] [--keys N] [--pairs N] …`
//!
//! A figure counts only as a ratio inside one run: the limit that librdkafka itself sets ([`raw`]) and Keylane
//! ([`keylane`]) read the same topic ([`topic`]) from the same broker, one after the other, several times over. Both
//! are child processes, and what they used is what the kernel says of them at their end ([`child`]). Beside each
//! run stands how much of the machine anybody else used meanwhile ([`machine`]): a figure from a busy machine shows
//! that it is one.

mod away;
mod beside;
mod child;
mod embedded;
mod emit;
mod guests;
mod idle;
mod keylane;
mod keys;
mod load;
mod machine;
mod numbers;
mod options;
mod pairs;
mod raw;
mod report;
mod serve;
mod storm;
mod suspended;
mod topic;

use std::process::ExitCode;

use anyhow::Result;

use options::Options;

const USAGE: &str = "\
usage: figures <workload> [--events N] [--keys N] [--pairs N] [--seconds N] [--workers N] [--binary FILE]

  w1        a no-op handler against a plain librdkafka loop, in interleaved pairs
  emit      a handler that emits one output per event against a plain consume-produce loop
  keys      peak memory with 100,000 and with 1,000,000 distinct keys
  idle      processor time with 8 partitions assigned and nothing to do
  waits     a handler that waits 10 ms over each event, 1,000 at a time (use --keys 1000)
  suspended  memory of 5,000 calls that wait at once
  traps     a handler that traps over each event, one and 64 a call
  storm     the same for minutes, its memory looked at every second (use --seconds 300)
  filter    99.6 % of the events dropped by a header, against reading alone
  poison    a key that fails among healthy ones, through its whole schedule (use --seconds 130)
  neighbours  a handler that spins, and one that hoards, beside a healthy one
  letters-away  the dead-letter topic is away, beside a healthy load
  broker-away  the broker is away while outputs are on their way to it
  embedded  from the start of the process to the first event, on the embedded broker
  serve     a broker with the topic, until standard input ends: for a profiler";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            keylane_tests::skip::say(&format!("figures: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (workload, rest) =
        arguments.split_first().map_or(("", arguments), |(first, rest)| (first.as_str(), rest));
    match workload {
        "w1" => pairs::measure(&Options::parse(rest)?),
        "emit" => emit::measure(&Options::parse(rest)?),
        "keys" => keys::measure(&Options::parse(rest)?),
        "idle" => idle::measure(&Options::parse(rest)?),
        "embedded" => embedded::measure(&Options::parse(rest)?),
        "waits" => guests::waits(&Options::parse(rest)?),
        "suspended" => suspended::measure(&Options::parse(rest)?),
        "storm" => storm::measure(&Options::parse(rest)?),
        "traps" => guests::traps(&Options::parse(rest)?),
        "filter" => guests::filter(&Options::parse(rest)?),
        "poison" => beside::poison(&Options::parse(rest)?),
        "neighbours" => beside::neighbours(&Options::parse(rest)?),
        "letters-away" => away::letters(&Options::parse(rest)?),
        "broker-away" => away::broker(&Options::parse(rest)?),
        "serve" => serve::serve(&Options::parse(rest)?),
        raw::WORKLOAD => raw::run(rest),
        emit::WORKLOAD => emit::run(rest),
        other => anyhow::bail!("there is no workload {other:?}\n{USAGE}"),
    }
}
