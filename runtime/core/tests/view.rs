//! What a view shows of a core, from the start of an ownership to its end.

mod shell;

use std::time::Duration;

use keylane_core::{
    BlockedOn, Config, Input, Notice, OutOfRange, OwnershipState, PartitionView, ReadLimit, RetryPolicy,
    Verdict,
};
use shell::{P0, P1, REQUEST, Shell};

fn partition(shell: &Shell) -> PartitionView {
    *shell.core.view().partitions.first().expect("a partition is owned")
}

/// What blocks a partition, and the offset.
fn blocked(view: PartitionView) -> (i64, BlockedOn) {
    let stall = view.blocked.expect("something is left");
    (stall.offset.expect("the ownership has begun"), stall.blocked_on)
}

/// What blocks a partition.
fn reason(view: PartitionView) -> BlockedOn {
    view.blocked.expect("something is left").blocked_on
}

#[test]
fn a_partition_is_shown_from_its_start_to_its_end() {
    let mut shell = Shell::new(Config::default());
    assert_eq!(shell.core.view().partitions, [], "nothing is owned");
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    assert_eq!(partition(&shell).state, OwnershipState::Starting);
    assert_eq!(reason(partition(&shell)), BlockedOn::StartLookup);

    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 2), (2, 2)]);
    let view = partition(&shell);
    assert_eq!((view.state, view.committable_offset, view.next_offset), (OwnershipState::Active, 0, 3));
    assert_eq!((view.open, view.completed_beyond, view.running_lanes), (3, 0, 1));
    assert!(view.queued_bytes > 0 && view.stalled_since.is_none());
    assert_eq!(blocked(view), (0, BlockedOn::Guest), "the reason is known before it is reported");
    let core = shell.core.view();
    assert_eq!((core.lanes, core.ready_lanes, core.unterminated_calls), (2, 1, 1));

    shell.wait(Duration::from_secs(20));
    assert!(partition(&shell).stalled_since.is_some());

    shell.end_all();
    shell.store_until(P0, 3);
    let view = partition(&shell);
    assert_eq!((view.open, view.committed, view.unclaimed), (0, Some(3), 0));
    assert_eq!((view.blocked, view.stalled_since), (None, None), "nothing is left");

    shell.give(Input::Lost { request: REQUEST, partitions: &[P0] });
    let view = shell.core.view();
    assert_eq!(view.partitions, [], "the partition has another owner");
    assert_eq!((view.counters.settled, view.counters.ownerships, view.counters.losses), (3, 1, 1));
}

#[test]
fn a_drain_is_shown_with_its_deadline() {
    let mut shell = Shell::reading(Config::default(), &[P0, P1], 1);
    shell.fetch(P0, &[(0, 1)]);
    let deadline = shell.uptime + Duration::from_secs(5);
    shell.give(Input::Drain { deadline });
    let view = shell.core.view();
    assert_eq!(view.drain_until, Some(deadline));
    assert_eq!(partition(&shell).state, OwnershipState::Closing, "its call may finish");
    assert_eq!(reason(partition(&shell)), BlockedOn::Guest, "it waits for the call");

    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 2)]);
    shell.end_with(Verdict::Retry { after: None });
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P0] });
    assert_eq!(blocked(partition(&shell)), (0, BlockedOn::Release), "the next owner processes it");
}

#[test]
fn a_partition_waits_for_the_starts_of_others_and_shows_that_it_has_stopped() {
    let mut shell = Shell::new(Config { out_of_range: OutOfRange::Fail, ..Config::default() });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0, P1] });
    shell.start_at(P0, 0, b"");
    let reasons =
        |shell: &Shell| -> Vec<BlockedOn> { shell.core.view().partitions.into_iter().map(reason).collect() };
    assert_eq!(reasons(&shell), [BlockedOn::Rebalance, BlockedOn::StartLookup]);
    shell.start_at(P1, 2_000_000, b"");
    let view = shell.core.view();
    let blocked: Vec<_> = view.partitions.iter().map(|partition| partition.blocked).collect();
    assert_eq!(blocked.first(), Some(&None), "nothing is left to read");
    assert_eq!(blocked.last().copied().flatten().map(|blocked| blocked.blocked_on), Some(BlockedOn::Stopped));
}

/// Two partitions, one call: each is blocked by its own event.
#[test]
fn each_partition_shows_what_blocks_it() {
    let retry = RetryPolicy { initial_interval: Duration::from_secs(60), ..RetryPolicy::default() };
    let retry = RetryPolicy { max_interval: Duration::from_secs(60), ..retry };
    let mut shell = Shell::reading(Config { retry, ..Config::default() }, &[P0, P1], 1);
    shell.fetch(P0, &[(0, 1)]);
    shell.fetch(P1, &[(0, 2)]);
    let views = |shell: &Shell| -> Vec<(i64, BlockedOn)> {
        shell.core.view().partitions.into_iter().map(blocked).collect()
    };
    assert_eq!(views(&shell), [(0, BlockedOn::Guest), (0, BlockedOn::Undispatched)], "there is one worker");
    shell.end_with(Verdict::Retry { after: None });
    assert_eq!(views(&shell), [(0, BlockedOn::Retry), (0, BlockedOn::Guest)]);
}

/// The number of reported pauses of reading.
fn pauses(shell: &Shell) -> usize {
    let paused = Notice::ReadingPaused { partition: P0, limit: ReadLimit::Events };
    shell.notices.iter().filter(|notice| **notice == paused).count()
}

#[test]
fn a_pause_of_reading_is_shown_and_reported_once() {
    let config = Config { max_queued: 4, ..Config::default() };
    let mut shell = Shell::reading(config, &[P0], 0);
    shell.fetch(P0, &[(0, 1), (1, 1), (2, 1), (3, 1)]);
    assert_eq!(partition(&shell).read_limit, Some(ReadLimit::Events));
    shell.wait(Duration::from_secs(10));
    assert_eq!(pauses(&shell), 0, "not for a short pause");
    shell.wait(Duration::from_secs(60));
    assert_eq!(pauses(&shell), 1);
    shell.give(Input::CapacityAdded { calls: 1 });
    while !shell.notices.contains(&Notice::ReadingResumed { partition: P0 }) {
        shell.end_all();
    }
    assert_eq!(partition(&shell).read_limit, None);
}
