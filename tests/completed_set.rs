//! Promise: events done beyond the committed offset are not run again, even after a kill. Events that do not fit into the
//! commit's metadata may run again; they are never lost.

use std::collections::BTreeSet;

use keylane_tests::check::{self, Report, claims};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::progress::Progress;
use keylane_tests::skip::print_line;
use keylane_tests::wait;

/// Long enough for all other events to be done and claimed meanwhile. The second instance must wait
/// for the same time.
const SLOW_MILLIS: &str = "20000";

/// One slow event holds back the committed offset while thousands of events behind it are done and
/// claimed. After `kill -9`, none of them runs again.
#[test]
fn claimed_events_do_not_run_again() {
    let Some(cluster) = kafka::shared() else { return };
    let case = Case { events: 3_000, slow: &[0], metadata_limit: 4096 };
    let (claimed, report) = case.run(&Flow::new(cluster, 1, &[]));
    assert_eq!(claimed.len(), 2_999);
    assert_eq!(report.repeats, [].into(), "all done events were claimed");
}

/// Open events are scattered among the done ones, and the metadata has capacity for few claims. The
/// first claims that fit are stored, and exactly those events do not run again.
#[test]
fn unclaimed_events_run_again_and_are_not_lost() {
    let Some(cluster) = kafka::shared() else { return };
    let slow: Vec<i64> = (0..6_000).step_by(40).collect();
    let case = Case { events: 6_000, slow: &slow, metadata_limit: 128 };
    let (claimed, report) = case.run(&Flow::new(cluster, 1, &[]));
    let done = 6_000 - slow.len();
    assert!(!claimed.is_empty() && claimed.len() < done, "{} of {done} were claimed", claimed.len());
    assert_eq!(report.repeated(), done - claimed.len(), "exactly the unclaimed events run again");
}

/// Events in one partition, some of them slow, each with a key of its own.
struct Case<'c> {
    events: i64,
    slow: &'c [i64],
    metadata_limit: usize,
}

impl Case<'_> {
    /// Lets one instance handle all fast events, kills it, and lets the next one finish. Returns the claims at the
    /// kill and the report of the checker.
    fn run(&self, flow: &Flow<'_>) -> (BTreeSet<i64>, Report) {
        flow.producer()
            .send_all(&flow.input, (0..self.events).map(|number| self.event(number)))
            .expect("acknowledged");
        let mut first = Keylane::run(&self.settings(flow), &[]);
        let mut progress = Progress::of(flow);
        let mut last = None;
        wait::until("all fast events to be done and committed", wait::STATE_TIMEOUT, || {
            progress.advance();
            let committed = flow.committed();
            let unchanged = last.as_ref() == Some(&committed);
            let all_done = progress.done() == self.done();
            last = all_done.then_some(committed);
            all_done && unchanged && claimed(flow).len() >= self.claims_at_least()
        });
        first.kill();
        progress.advance();
        assert_eq!(progress.done(), self.done(), "a slow event was not slow enough");
        let claimed = claimed(flow);

        let mut second = Keylane::run(&self.settings(flow), &["--until-end"]);
        second.expect_exit(0);
        assert_eq!(flow.lag(), 0);
        let report = check::check(&flow.history());
        print_line(&format!("{} claimed of {}: {report}", claimed.len(), self.done()));
        report.assert_clean();
        let again: Vec<_> = report.repeats.keys().filter(|(_, offset)| claimed.contains(offset)).collect();
        assert!(again.is_empty(), "claimed events ran again: {again:?}");
        (claimed, report)
    }

    fn done(&self) -> usize {
        usize::try_from(self.events).expect("a small number") - self.slow.len()
    }

    /// With one open event, all others form one run, which always fits.
    fn claims_at_least(&self) -> usize {
        if self.slow.len() == 1 { self.done() } else { 1 }
    }

    fn settings(&self, flow: &Flow<'_>) -> Settings {
        flow.settings(&guest("sleepy"), "worker")
            .set("handlers.t", "timeout", "60s")
            // One event per call: a fast event must not share a call with a slow one.
            .set("handlers.t", "max_batch", 1)
            .set("handlers.t.lanes", "max_concurrency", 256)
            .set("handlers.t.commit", "interval", "200ms")
            .set("handlers.t.commit", "metadata_limit", self.metadata_limit)
    }

    fn event(&self, number: i64) -> Record {
        let (key, millis) = match self.slow.binary_search(&number) {
            Ok(_) => (format!("slow-{number}"), SLOW_MILLIS),
            Err(_) => (format!("key-{}", number % 500), "0"),
        };
        Record::new(key, format!("event {number}")).with("sleep-ms", millis).with("emit", "")
    }
}

fn claimed(flow: &Flow<'_>) -> BTreeSet<i64> {
    let committed = flow.committed().remove(0);
    let offset = committed.offset.expect("the start is committed before the first call");
    assert_eq!(offset, 0, "the slow first event holds back the offset");
    claims(&committed.metadata, offset).expect("Keylane's own metadata").into_iter().flatten().collect()
}
