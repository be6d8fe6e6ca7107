//! What a view shows of a core, from the start of an ownership to its end.

mod shell;

use std::time::Duration;

use keylane_core::{BlockedOn, Config, Input, PartitionStatus, PartitionView};
use shell::{P0, P1, REQUEST, Shell};

fn partition(shell: &Shell) -> PartitionView {
    *shell.core.view().partitions.first().expect("a partition is owned")
}

#[test]
fn a_partition_is_shown_from_its_start_to_its_end() {
    let mut shell = Shell::new(Config::default());
    assert_eq!(shell.core.view().partitions, [], "nothing is owned");
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P0] });
    assert_eq!(partition(&shell).status, PartitionStatus::Starting);

    let mut shell = Shell::reading(Config::default(), &[P0], 1);
    shell.fetch(P0, &[(0, 1), (1, 2), (2, 2)]);
    let view = partition(&shell);
    assert_eq!((view.status, view.committable_offset, view.next_offset), (PartitionStatus::Active, 0, 3));
    assert_eq!((view.open, view.settled_beyond, view.running_lanes), (3, 0, 1));
    assert!(view.queued_bytes > 0 && view.stall.is_none());
    let core = shell.core.view();
    assert_eq!((core.lanes, core.ready_lanes, core.unterminated_calls), (2, 1, 1));

    shell.wait(Duration::from_secs(20));
    let stall = partition(&shell).stall.expect("a stall was reported");
    assert_eq!((stall.offset, stall.blocked_on), (0, BlockedOn::Guest));

    shell.end_all();
    shell.store_until(P0, 3);
    let view = partition(&shell);
    assert_eq!((view.open, view.committed, view.unclaimed), (0, Some(3), 0));

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
    assert_eq!(partition(&shell).status, PartitionStatus::Closing, "its call may finish");
}
