//! Promise: an instance that is frozen for longer than its session timeout loses nothing and breaks
//! no order. Another instance takes over its partitions. After the frozen instance is resumed, its
//! late work causes at most repeats.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Committed, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::load::Load;
use keylane_tests::progress::Progress;
use keylane_tests::skip::print_line;

const PARTITIONS: i32 = 4;
const NAMES: [&str; 2] = ["one", "two"];
const BACKLOG: usize = 2_000;
const UNCLAIMED: usize = 300;

/// Each of two instances is frozen in turn, with calls in flight and work that is neither committed
/// nor claimed.
#[test]
fn a_frozen_instance_loses_nothing_and_breaks_no_order() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut load = Load::new(&flow, BACKLOG, event);
    let mut instances = NAMES.map(|name| Keylane::run(&settings(&flow, name), &[]));
    load.until("both to be members", |_| is_settled(&flow, &NAMES));
    for frozen in [0, 1] {
        let (name, other) = (NAMES[frozen], NAMES[1 - frozen]);
        load.until("calls in flight and uncommitted work", |progress| {
            is_worth_freezing(&flow, progress, name)
        });
        instances[frozen].freeze();
        load.until("the other instance to have all partitions", |_| is_settled(&flow, &[other]));
        load.until_more("the other instance to continue", 2 * UNCLAIMED);
        instances[frozen].thaw();
        load.until("the frozen instance to be a member again", |_| is_settled(&flow, &NAMES));
        assert!(!instances[frozen].has_ended(), "{}", instances[frozen].tail());
    }
    load.finish();
    flow.wait_until_committed();
    for keylane in &mut instances {
        keylane.terminate();
        keylane.expect_exit(0);
    }
    let report = check::check(&flow.history());
    print_line(&format!("{} events, each of two instances frozen: {report}", load.produced()));
    report.assert_clean();
    assert!(report.repeated() > 0, "no freeze caused a repeat: the run proves nothing");
}

fn settings(flow: &Flow<'_>, client: &str) -> Settings {
    flow.settings(&guest("sleepy"), client)
        .set("handlers.t.commit", "interval", "5s")
        .set("handlers.t.commit", "every", 1_000_000)
        // At most 800 events per second, because throughput is not the subject of this test.
        .set("handlers.t.lanes", "max_concurrency", 16)
}

fn is_settled(flow: &Flow<'_>, clients: &[&str]) -> bool {
    flow.members.state().is_settled(clients, usize::try_from(PARTITIONS).expect("few partitions"))
}

fn is_worth_freezing(flow: &Flow<'_>, progress: &Progress, name: &str) -> bool {
    let owned = flow.members.state().partitions_of(name);
    let open: usize = owned.iter().map(|partition| progress.open(*partition)).sum();
    let committed: Vec<Committed> = flow.committed();
    let of_it = committed.iter().filter(|committed| owned.contains(&committed.partition));
    open > 0 && of_it.map(|committed| progress.unclaimed(committed)).sum::<usize>() > UNCLAIMED
}

/// Calls are in flight at every freeze.
fn event(number: usize) -> Record {
    Record::new(format!("key-{}", number * 7 % 499), "v").with("sleep-ms", "20").with("emit", "")
}
