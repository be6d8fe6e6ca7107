//! Promise: what is done beyond the committed offset is not done again, even after a kill. What the commit's
//! metadata has no room for may be done again; it is never lost.

use std::collections::BTreeSet;

use keylane_tests::check::{self, Report, claims};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::progress::Progress;
use keylane_tests::skip::say;
use keylane_tests::wait;

/// Long enough for everything else to be done and claimed meanwhile; the second instance has to sit it out.
const SLOW_MILLIS: &str = "20000";

/// One slow event holds the offset while thousands behind it are done and claimed; kill -9; none of those runs again.
#[test]
fn what_is_claimed_is_not_done_again() {
    let Some(cluster) = kafka::shared() else { return };
    let case = Case { events: 3_000, slow: &[0], metadata_limit: 4096 };
    let (claimed, report) = case.run(&Flow::new(cluster, 1, &[]));
    assert_eq!(claimed.len(), 2_999);
    assert_eq!(report.repeats, [].into(), "all that was done was claimed");
}

/// Open events strewn among the done ones, and room for few of them: the longest leading part is claimed, and
/// exactly that is not done again.
#[test]
fn what_does_not_fit_is_done_again_and_not_lost() {
    let Some(cluster) = kafka::shared() else { return };
    let slow: Vec<i64> = (0..6_000).step_by(40).collect();
    let case = Case { events: 6_000, slow: &slow, metadata_limit: 128 };
    let (claimed, report) = case.run(&Flow::new(cluster, 1, &[]));
    let done = 6_000 - slow.len();
    assert!(!claimed.is_empty() && claimed.len() < done, "{} of {done} fitted", claimed.len());
    assert_eq!(report.repeated(), done - claimed.len(), "what was not claimed, and only that, is done again");
}

/// Events in one partition, some of them slow, each with a key of its own.
struct Case<'c> {
    events: i64,
    slow: &'c [i64],
    metadata_limit: usize,
}

impl Case<'_> {
    /// Lets one instance do all quick events, kills it, and lets the next one finish. Returns what was claimed at the
    /// kill and what the checker says in the end.
    fn run(&self, flow: &Flow<'_>) -> (BTreeSet<i64>, Report) {
        flow.producer()
            .send_all(&flow.input, (0..self.events).map(|number| self.event(number)))
            .expect("acknowledged");
        let mut first = Keylane::run(&self.settings(flow), &[]);
        let mut progress = Progress::of(flow);
        let mut last = None;
        wait::until("all quick events to be done, and a last commit to say so", wait::PATIENCE, || {
            progress.advance();
            let committed = flow.committed();
            let stands_still = last.as_ref() == Some(&committed);
            let all_done = progress.done() == self.done();
            last = all_done.then_some(committed);
            all_done && stands_still && claimed(flow).len() >= self.claims_at_least()
        });
        first.kill();
        progress.advance();
        assert_eq!(progress.done(), self.done(), "a slow event was not slow enough");
        let claimed = claimed(flow);

        let mut second = Keylane::run(&self.settings(flow), &["--until-end"]);
        second.expect_exit(0);
        assert_eq!(flow.lag(), 0);
        let report = check::check(&flow.history());
        say(&format!("{} claimed of {}: {report}", claimed.len(), self.done()));
        report.assert_clean();
        let again: Vec<_> = report.repeats.keys().filter(|(_, offset)| claimed.contains(offset)).collect();
        assert!(again.is_empty(), "claimed, and yet done again: {again:?}");
        (claimed, report)
    }

    fn done(&self) -> usize {
        usize::try_from(self.events).expect("a small number") - self.slow.len()
    }

    /// With one open event everything else is one run: it always fits.
    fn claims_at_least(&self) -> usize {
        if self.slow.len() == 1 { self.done() } else { 1 }
    }

    fn settings(&self, flow: &Flow<'_>) -> Settings {
        flow.settings(&guest("sleepy"), "worker")
            .set("handlers.t", "timeout", "60s")
            // One event a call: a quick one must not sit in a call behind a slow one.
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
    assert_eq!(offset, 0, "the slow first event holds the offset");
    claims(&committed.metadata, offset).expect("Keylane's own metadata").into_iter().flatten().collect()
}
