//! Scans of the lanes, the load, and the times of events.

mod shell;

use std::time::Duration;

use keylane_core::{Config, LaneProgress, LaneScan, LaneView, RetryPolicy, Verdict};
use shell::{P0, Shell};

/// All lanes by their first offset, in steps of one lane.
fn lanes(shell: &Shell) -> Vec<LaneView> {
    let (mut scan, mut lanes) = (LaneScan::default(), Vec::new());
    while !shell.core.scan_lanes(&mut scan, 1, |lane| lanes.push(lane)) {}
    lanes.sort_by_key(|lane| lane.offset);
    lanes
}

/// Its offset, number of events, attempt and progress.
fn shown(lane: &LaneView) -> (i64, u32, u32, LaneProgress) {
    (lane.offset, lane.events, lane.attempt, lane.progress)
}

#[test]
fn a_scan_shows_each_lane_with_its_first_unsettled_event() {
    let minute = Duration::from_secs(60);
    let retry = RetryPolicy { initial_interval: minute, max_interval: minute, ..RetryPolicy::default() };
    let mut shell = Shell::reading(Config { retry, ..Config::default() }, &[P0], 1);
    assert_eq!(lanes(&shell), [], "there are no events");
    shell.fetch(P0, &[(0, 1), (1, 2), (2, 1), (3, 1)]);
    shell.wait(Duration::from_secs(3));
    let shown_now: Vec<_> = lanes(&shell).iter().map(shown).collect();
    assert_eq!(shown_now, [(0, 3, 1, LaneProgress::Running), (1, 1, 1, LaneProgress::Ready)]);
    assert!(lanes(&shell).iter().all(|lane| lane.age >= Duration::from_secs(3)));
    let load = shell.core.load();
    assert_eq!((load.lanes, load.ready_lanes, load.calls, load.delayed_lanes), (2, 1, 1, 0));

    shell.end_with(Verdict::Retry { after: None });
    let first = lanes(&shell).remove(0);
    assert_eq!((first.offset, first.events, first.attempt), (0, 3, 2));
    assert!(matches!(first.progress, LaneProgress::Delayed(until) if until > shell.uptime), "{first:?}");
    assert_eq!(shell.core.load().delayed_lanes, 1);

    shell.end(&[0]);
    let second = lanes(&shell).remove(1);
    assert_eq!(shown(&second), (1, 1, 1, LaneProgress::Unacked));
    shell.wait(minute + minute);
    assert_eq!(shell.core.load().delayed_lanes, 0, "its next attempt has begun");
}

#[test]
fn waits_and_ages_are_counted_once_per_event() {
    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 1), (2, 2)]);
    while !shell.calls.is_empty() {
        shell.end_all();
    }
    let times = shell.core.view().times;
    assert_eq!((times.lane_wait.count(), times.event_age.count()), (3, 3));
}
