//! Promise: the lanes of a partition share the workers. If one partition has most of the events, all workers handle them, and
//! the order of each key is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Received, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::skip::print_line;

/// The events of each partition.
const EVENTS: [usize; 3] = [100, 200, 2_700];
/// The number of keys of each partition.
const KEYS: usize = 50;
const WORKERS: usize = 2;
/// The time for which an event computes.
const WORK: Duration = Duration::from_millis(1);

#[test]
fn all_workers_handle_the_events_of_a_large_partition() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    let event = |partition: i32, number: usize| {
        Record::new(format!("{partition}-{}", number % KEYS), WORK.as_micros().to_string()).to(partition)
    };
    let events =
        (0..).zip(EVENTS).flat_map(|(partition, events)| (0..events).map(move |n| event(partition, n)));
    flow.send(events.collect());
    let settings = flow.settings(&guest("computes"), "skewed").set("runtime", "workers", WORKERS);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);

    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!((report.outcomes, report.repeats), (EVENTS.iter().sum(), [].into()), "each event once");
    let outputs = kafka::read_all(&cluster.bootstrap(), &flow.output);
    let all = outputs.iter().map(handled).collect::<Vec<_>>();
    let of_large = outputs.iter().filter(|output| output.number("keylane-origin-partition") == Some(2));
    let of_large = of_large.map(handled).collect::<Vec<_>>();
    let shared = while_all_workers(&of_large);
    print_line(&format!(
        "{} events of {WORK:?} on {WORKERS} workers: {:?} from the first to the last; {shared} of {} events of the large \
         partition shared the workers",
        all.len(),
        length(&all),
        of_large.len()
    ));
    assert!(
        2 * shared > of_large.len(),
        "all workers had events of the partition during only {shared} of them"
    );
}

/// When an event was handled: the begin and the end, in nanoseconds since 1970.
type Handled = (u64, u64);

fn handled(output: &Received) -> Handled {
    let times = std::str::from_utf8(output.value.as_deref().unwrap_or_default()).expect("text");
    let (begin, end) = times.split_once(' ').expect("two times");
    (begin.parse().expect("a number"), end.parse().expect("a number"))
}

/// The number of events that were handled while every worker handled one of these events, for a while at least.
fn while_all_workers(handled: &[Handled]) -> usize {
    let begins = handled.iter().enumerate().map(|(event, (begin, _))| (*begin, true, event));
    let ends = handled.iter().enumerate().map(|(event, (_, end))| (*end, false, event));
    let mut changes: Vec<(u64, bool, usize)> = begins.chain(ends).collect();
    changes.sort_unstable(); // at the same time, ends are first
    let (mut now, mut found) = (BTreeSet::new(), BTreeSet::new());
    for (_, begins, event) in changes {
        if begins {
            now.insert(event);
        } else {
            now.remove(&event);
        }
        assert!(now.len() <= WORKERS, "a worker that computes handles one event at a time");
        if now.len() == WORKERS {
            found.extend(now.iter().copied());
        }
    }
    found.len()
}

fn length(handled: &[Handled]) -> Duration {
    let begin = handled.iter().map(|(begin, _)| *begin).min().unwrap_or_default();
    let end = handled.iter().map(|(_, end)| *end).max().unwrap_or_default();
    Duration::from_nanos(end - begin)
}
