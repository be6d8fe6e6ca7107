//! `make campaign`: a million events under a hundred faults with transactional delivery, on one broker and on three.
//!
//! It prints one line for each fault, then one line with the result. Environment variables change it:
//!
//! | variable | default | |
//! |---|---|---|
//! | `KEYLANE_CAMPAIGN_SEED` | 1 | determines events, faults and victims |
//! | `KEYLANE_CAMPAIGN_BROKERS` | both | `1` or `3`: only on a cluster of this size |
//! | `KEYLANE_CAMPAIGN_EVENTS` | 500000 | events on each cluster |
//! | `KEYLANE_CAMPAIGN_FAULTS` | 50 | faults on each cluster |
//! | `KEYLANE_CAMPAIGN_DELIVERY` | transactional | `at-least-once`: the checker must find repeats |
//! | `KEYLANE_CAMPAIGN_STATE` | 1 | 0: without keyed state |
//! | `KEYLANE_CAMPAIGN_LOGS` | – | an existing folder for the logs of all instances |

use std::path::PathBuf;
use std::process::ExitCode;

use keylane_tests::campaign::{self, Delivery, Fault, Options};
use keylane_tests::kafka;
use keylane_tests::skip::print_line;

fn main() -> ExitCode {
    let seed = number("KEYLANE_CAMPAIGN_SEED", 1);
    let only = number("KEYLANE_CAMPAIGN_BROKERS", 0);
    let mut is_clean = true;
    for brokers in [1, 3].into_iter().filter(|brokers| only == 0 || only == *brokers) {
        let faults = number("KEYLANE_CAMPAIGN_FAULTS", 50);
        let options = Options {
            seed: seed as u64,
            partitions: 24,
            events: number("KEYLANE_CAMPAIGN_EVENTS", 500_000),
            faults: Fault::mixed(faults, seed as u64),
            instances: 3,
            delivery: delivery(),
            state: delivery() == Delivery::Transactional && number("KEYLANE_CAMPAIGN_STATE", 1) > 0,
            timeout: None,
            logs: text("KEYLANE_CAMPAIGN_LOGS").map(PathBuf::from),
            verbose: true,
        };
        let Some(cluster) = kafka::dedicated(&cluster(brokers)) else { return ExitCode::FAILURE };
        let summary = campaign::run(&cluster, &options);
        if !summary.is_clean() {
            is_clean = false;
            print_line(&summary.report.to_string());
        }
        print_line(&format!("campaign of seed {seed} on {brokers} brokers: {summary}"));
    }
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Brokers that decide abandoned transactions as late as by default.
fn cluster(brokers: usize) -> kafka::Options {
    let interval = ("transaction.abort.timed.out.transaction.cleanup.interval.ms".into(), "10000".into());
    kafka::Options { brokers, properties: vec![interval], ..kafka::Options::default() }
}

fn delivery() -> Delivery {
    let Some(delivery) = text("KEYLANE_CAMPAIGN_DELIVERY") else { return Delivery::Transactional };
    let deliveries = [("transactional", Delivery::Transactional), ("at-least-once", Delivery::AtLeastOnce)];
    let found = deliveries.into_iter().find(|(name, _)| *name == delivery);
    found.expect("KEYLANE_CAMPAIGN_DELIVERY is a delivery").1
}

fn number(name: &str, default: usize) -> usize {
    text(name).map_or(default, |text| text.parse().expect("KEYLANE_CAMPAIGN_… variables are numbers"))
}

fn text(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok())
}
