//! Promise: with `ordering = "partition"` the events of a partition are handled strictly in the
//! order of its log, whatever their keys, through a rebalance and a kill. With `"unordered"`, even
//! events of one key are handled at the same time. No order is promised, nothing is lost, and a
//! rebalance without a failure repeats nothing.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use keylane_tests::check::{self, History};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Committed, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::load::Load;
use keylane_tests::service::Service;
use keylane_tests::skip::print_line;

const PARTITIONS: i32 = 4;
const BACKLOG: usize = 1_500;
const SOME_EVENTS: usize = 500;

/// A second instance joins, and the first one is killed (-9) with uncommitted work.
#[test]
fn a_partition_keeps_its_order_through_a_join_and_a_kill() {
    let Some(cluster) = kafka::shared() else { return };
    // There is one output partition, in which the outputs of an input partition keep their order,
    // whatever their keys.
    let flow = Flow::new(cluster, PARTITIONS, &[]).again();
    let mut load = Load::new(&flow, BACKLOG, strict_event);
    let mut first = Keylane::run(&ordered(&flow, "first"), &[]);
    load.until_more("the first instance to work", SOME_EVENTS);
    let mut second = Keylane::run(&ordered(&flow, "second"), &[]);
    load.until("both to be members", |_| is_settled(&flow, &["first", "second"]));
    load.until("uncommitted work of the first instance", |progress| {
        let owned = flow.members.state().partitions_of("first");
        let committed: Vec<Committed> = flow.committed();
        let of_first = committed.iter().filter(|committed| owned.contains(&committed.partition));
        of_first.map(|committed| progress.unclaimed(committed)).sum::<usize>() > 50
    });
    first.kill();
    let mut third = Keylane::run(&ordered(&flow, "third"), &[]);
    load.until("the other two instances to have all partitions", |_| is_settled(&flow, &["second", "third"]));
    load.finish();
    flow.wait_until_committed();
    for keylane in [&mut second, &mut third] {
        keylane.terminate();
        keylane.expect_exit(0);
    }
    let by_key = flow.history();
    check::check(&by_key).assert_clean();
    let report = check::check(&with_keys(by_key, Some(b"the whole partition")));
    print_line(&format!("in the order of partitions: {report}"));
    report.assert_clean();
    assert!(report.repeated() > 0, "the kill caused no repeat: the run proves nothing");
}

/// Four events of one key run at the same time: the service answers no request before all four have
/// arrived.
#[test]
fn unordered_events_of_one_key_are_handled_at_the_same_time() {
    const TOGETHER: usize = 4;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let (requests, together) = (AtomicUsize::new(0), Barrier::new(TOGETHER));
    let service = Service::start(move |_| {
        if requests.fetch_add(1, Ordering::SeqCst) < TOGETHER {
            together.wait();
        }
        Some((200, "done".to_owned()))
    });
    let url = format!("http://{}/", service.host());
    let records = (0..3 * TOGETHER).map(|_| Record::new("one key", url.clone()));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    let settings = flow
        .settings(&guest("http-client"), "unordered")
        .set("handlers.t.lanes", "ordering", "unordered")
        .set("handlers.t.grants", "http", vec![service.host()])
        // One attempt each, because the requests of a second attempt would also arrive four at a
        // time.
        .set("handlers.t.retry", "max_attempts", 1)
        .set("handlers.t.retry", "on_exhausted", "stop");
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    assert!(outputs.iter().all(|output| output.value.as_deref() == Some(b"200 done")), "{outputs:?}");
    let report = check::check(&with_keys(flow.history(), None));
    report.assert_clean();
    assert_eq!((report.outcomes, report.repeats), (3 * TOGETHER, [].into()));
}

/// A few keys, an instance that joins and leaves, and calls that end in a different order than they began.
#[test]
fn unordered_loses_nothing_and_a_rebalance_repeats_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let settings = |client: &str| {
        flow.settings(&guest("sleepy"), client)
            .set("handlers.t.lanes", "ordering", "unordered")
            .set("handlers.t.lanes", "max_concurrency", 16)
            // No process fails here. A slow machine must not cause the eviction of a member, and a
            // call must end before its partition is revoked.
            .set("kafka.client", "session.timeout.ms", 30_000)
            .set("handlers.t", "max_batch", 1)
    };
    let mut load = Load::new(&flow, BACKLOG, event);
    let mut staying = Keylane::run(&settings("staying"), &[]);
    load.until_more("the first instance to work", SOME_EVENTS);
    let mut visiting = Keylane::run(&settings("visiting"), &[]);
    load.until("both to be members", |_| is_settled(&flow, &["staying", "visiting"]));
    load.until_more("both to work", SOME_EVENTS);
    visiting.terminate();
    visiting.expect_exit(0);
    load.until("the first instance to have all partitions", |_| is_settled(&flow, &["staying"]));
    load.until_more("the first instance to work", SOME_EVENTS);
    load.finish();
    flow.wait_until_committed();
    staying.terminate();
    staying.expect_exit(0);
    let history = flow.history();
    let overtaken = check::check(&history).violations.len();
    let report = check::check(&with_keys(history, None));
    print_line(&format!("unordered: {overtaken} events overtook one of their key; {report}"));
    report.assert_clean();
    assert_eq!(report.repeats, [].into(), "a rebalance without a failure repeats nothing");
    assert!(
        report.ownerships.len() > usize::try_from(PARTITIONS).expect("few partitions"),
        "no partition changed its owner"
    );
    assert!(overtaken > 0, "no event overtook another event of its key: they did not run concurrently");
}

fn ordered(flow: &Flow<'_>, client: &str) -> Settings {
    flow.settings(&guest("sleepy"), client)
        .set("handlers.t.lanes", "ordering", "partition")
        .set("handlers.t.commit", "interval", "5s")
        .set("handlers.t.commit", "every", 1_000_000)
}

/// One event in fifty takes 20 ms: events that are not held back by the order of their partition overtake it.
fn strict_event(number: usize) -> Record {
    let millis = if number.is_multiple_of(50) { "20" } else { "0" };
    Record::new(format!("key-{}", number % 199), "v").with("sleep-ms", millis).with("emit", "")
}

/// An event of one of three keys. Later events are often faster than earlier ones.
fn event(number: usize) -> Record {
    let millis = number * 7 % 40;
    Record::new(format!("key-{}", number % 3), "v").with("sleep-ms", millis.to_string()).with("emit", "")
}

fn is_settled(flow: &Flow<'_>, clients: &[&str]) -> bool {
    flow.members.state().is_settled(clients, usize::try_from(PARTITIONS).expect("few partitions"))
}

/// The same history with this key everywhere: the lane of the checker is then the whole partition, or none.
fn with_keys(mut history: History, key: Option<&[u8]>) -> History {
    history.inputs.iter_mut().for_each(|input| input.key = key.map(<[u8]>::to_vec));
    history.outputs.iter_mut().for_each(|outcome| outcome.key = key.map(<[u8]>::to_vec));
    history
}
