//! `read_in_step`: partitions wait for slower ones, and for none for ever.

mod shell;

use std::time::Duration;

use keylane_core::{
    BlockedOn, Config, GateRule, Input, Late, Newest, Notice, Partition, ReadError, ReadLimit, Window,
};
use shell::gated::{event, gated};
use shell::{P0, P1, REQUEST, Shell, start};

const SECOND: i64 = 1_000;
const AHEAD_MAX: Duration = Duration::from_secs(30);

fn in_step() -> Config {
    Config { read_in_step: Some(AHEAD_MAX), max_batch: 1, ..Config::default() }
}

fn reading(config: Config, partitions: &[Partition]) -> Shell {
    let mut shell = Shell::new(config);
    shell.wall_ms = 100_000_000;
    shell.give(Input::CapacityAdded { calls: 4 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions });
    partitions.iter().for_each(|&partition| shell.start_at(partition, 0, b""));
    shell
}

/// Ends all calls. Returns the events in the order of their dispatch.
fn run_all(shell: &mut Shell) -> Vec<(Partition, i64)> {
    let mut order = Vec::new();
    while let Some(call) = shell.calls.first() {
        order.extend(call.rows.iter().copied());
        shell.end(&[]);
    }
    order
}

/// Returns what the view of a partition shows: the limit of its reads, and what blocks it.
fn shown(shell: &Shell, partition: Partition) -> (Option<ReadLimit>, Option<BlockedOn>) {
    let view = shell.core.view();
    let found = view.partitions.iter().find(|view| view.partition == partition).expect("it is owned");
    (found.read_limit, found.blocked.map(|blocked| blocked.blocked_on))
}

fn passed_over(shell: &Shell) -> Vec<Partition> {
    let name = |notice: &Notice| {
        if let Notice::PassedOver { partition, .. } = notice { Some(*partition) } else { None }
    };
    shell.notices.iter().filter_map(name).collect()
}

/// Nine records, ten seconds apart.
fn tens() -> Vec<(i64, i64)> {
    (0..9).map(|offset| (offset, offset * 10 * SECOND)).collect()
}

#[test]
fn one_partition_waits_for_nothing() {
    let mut shell = reading(in_step(), &[P0]);
    let hours: Vec<_> = (0..20).map(|offset| (offset, offset * 3600 * SECOND)).collect();
    shell.fetch_timed(P0, &hours, None);
    assert_eq!((shell.reads.contains(&P0), shown(&shell, P0).0), (true, None));
    assert_eq!(run_all(&mut shell).len(), 20);
}

#[test]
fn a_partition_waits_for_one_of_which_nothing_is_read() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P0, &tens(), None);
    assert!(shell.calls.is_empty() && !shell.reads.contains(&P0), "the first of P1 may be older");
    assert_eq!(shown(&shell, P0), (Some(ReadLimit::InStep), Some(BlockedOn::OtherPartitions)));
    shell.fetch_timed(P1, &[(0, 20 * SECOND)], None);
    assert_eq!(run_all(&mut shell).len(), 1 + 6, "up to 50 s");
    shell.store_until(P0, 6);
    shell.wait(Duration::from_mins(2));
    assert!(shell.stalls.is_empty(), "a partition that is ahead has no stall: {:?}", shell.stalls);
    shell.fetch_timed(P1, &[], Some(1));
    assert_eq!(run_all(&mut shell).len(), 3, "P1 is at its end");
}

#[test]
fn a_partition_waits_before_it_is_handled_not_only_read() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &tens(), Some(9));
    shell.fetch_timed(P0, &tens(), Some(9));
    // P1 has read everything, but its first call is not over.
    let of_p1 = shell.calls.iter().position(|call| call.rows[0].0 == P1).expect("it runs");
    let held = shell.calls.remove(of_p1);
    let order = run_all(&mut shell);
    assert_eq!(order.iter().filter(|(partition, _)| *partition == P0).count(), 4, "{order:?}: up to 30 s");
    shell.calls.push(held);
    assert_eq!(run_all(&mut shell).len(), 1 + 5 + 8);
}

#[test]
fn an_event_after_the_end_counts_again() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, 0)], Some(1));
    shell.fetch_timed(P0, &[(0, 0)], None);
    assert_eq!(run_all(&mut shell).len(), 2);
    shell.fetch_timed(P1, &[(1, SECOND), (2, 2 * SECOND)], None);
    let held = shell.calls.remove(0);
    shell.fetch_timed(P0, &[(1, 90 * SECOND)], None);
    assert!(run_all(&mut shell).is_empty());
    shell.calls.push(held);
    assert_eq!(run_all(&mut shell).len(), 2, "nothing more is known of P1");
    shell.fetch_timed(P1, &[], Some(3));
    assert_eq!(run_all(&mut shell), [(P0, 1)]);
}

#[test]
fn a_partition_that_can_not_be_read_is_passed_over_once() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, 0)], None);
    shell.fetch_timed(P0, &tens(), None);
    run_all(&mut shell);
    shell.wait(Duration::from_secs(595));
    assert!(passed_over(&shell).is_empty() && shell.calls.is_empty());
    shell.wait(Duration::from_secs(10));
    assert_eq!((passed_over(&shell), run_all(&mut shell).len()), (vec![P1], 5));
    assert_eq!(shell.core.counters().partitions_passed_over, 1);
    shell.fetch_timed(P0, &[(9, 900 * SECOND)], None);
    assert_eq!(run_all(&mut shell).len(), 1);
    // A read error does not change that, a record does.
    shell.give(Input::Fetched {
        partition: P1,
        rows: &[],
        orders: &[],
        end: None,
        error: Some(ReadError::Denied),
    });
    shell.fetch_timed(P0, &[(10, 950 * SECOND)], None);
    assert_eq!(run_all(&mut shell).len(), 1);
    shell.fetch_timed(P1, &[(1, SECOND)], None);
    shell.fetch_timed(P0, &[(11, 990 * SECOND)], None);
    assert_eq!(run_all(&mut shell), [(P1, 1)]);
    shell.wait(Duration::from_secs(605));
    assert_eq!((passed_over(&shell).len(), run_all(&mut shell).len()), (2, 1));
}

#[test]
fn a_suspended_process_passes_over_nothing() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, 0)], None);
    shell.fetch_timed(P0, &tens(), None);
    run_all(&mut shell);
    shell.wait(Duration::from_mins(5));
    shell.uptime += Duration::from_hours(10);
    shell.give(Input::Tick);
    shell.wait(Duration::from_mins(4));
    assert!(passed_over(&shell).is_empty());
    shell.wait(Duration::from_mins(2));
    assert_eq!(passed_over(&shell), [P1]);
}

#[test]
fn nothing_is_passed_over_while_nothing_waits() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, 0)], None);
    shell.fetch_timed(P0, &[(0, 20 * SECOND)], None);
    run_all(&mut shell);
    shell.wait(Duration::from_hours(2));
    shell.fetch_timed(P0, &[(1, 40 * SECOND)], None);
    assert!(shell.calls.is_empty() && passed_over(&shell).is_empty());
}

#[test]
fn a_few_clocks_that_are_ahead_stop_nothing() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, 0)], None);
    shell.fetch_timed(P0, &[(0, SECOND), (1, 90_000 * SECOND), (2, 90_000 * SECOND)], None);
    run_all(&mut shell);
    assert!(shell.reads.contains(&P0), "the next records may have other times");
    shell.fetch_timed(P0, &[(3, 2 * SECOND)], None);
    assert_eq!(run_all(&mut shell).len(), 3);
    shell.fetch_timed(P1, &[(1, 40 * SECOND)], None);
    assert!(run_all(&mut shell).is_empty(), "P0 is at 2 s");
    shell.fetch_timed(P0, &[(4, 39 * SECOND)], None);
    assert_eq!(run_all(&mut shell), [(P0, 4), (P1, 1)]);
}

#[test]
fn records_without_a_time_hold_nothing_and_are_not_held() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, -1), (1, 200_000_000)], None);
    shell.fetch_timed(P0, &tens(), None);
    assert_eq!(run_all(&mut shell).len(), 2 + 9);
}

#[test]
fn partitions_that_are_released_or_assigned_count() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, 0)], None);
    shell.fetch_timed(P0, &tens(), None);
    run_all(&mut shell);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P1] });
    assert_eq!(run_all(&mut shell).len(), 5, "P1 is not ours");
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P1] });
    shell.fetch_timed(P0, &[(9, 90 * SECOND)], None);
    assert!(shell.calls.is_empty(), "its start is being looked up");
    shell.give(Input::StartResolved { partition: P1, start: start() });
    shell.store();
    shell.fetch_timed(P1, &[(0, 80 * SECOND)], None);
    shell.fetch_timed(P0, &[(9, 90 * SECOND)], None);
    assert_eq!(run_all(&mut shell).len(), 2);
}

/// What is queued was allowed before the slower partition was known.
#[test]
fn a_slower_partition_stops_what_is_queued() {
    let mut shell = reading(in_step(), &[P0, P1]);
    shell.fetch_timed(P1, &[(0, 0)], Some(1));
    shell.fetch_timed(P0, &tens(), None);
    shell.end(&[]);
    shell.end(&[]);
    assert_eq!(shell.call().rows, [(P0, 1)], "P1 is at its end");
    shell.fetch_timed(P1, &[(1, SECOND), (2, SECOND)], None);
    let held = shell.calls.remove(1);
    assert_eq!(run_all(&mut shell), [(P0, 1), (P0, 2), (P0, 3)], "up to 31 s");
    shell.calls.push(held);
    shell.fetch_timed(P1, &[], Some(3));
    assert_eq!(run_all(&mut shell).len(), 2 + 5);
}

#[test]
fn until_end_waits_for_the_ends_only() {
    let mut shell = reading(in_step(), &[P0, P1]);
    for (partition, offset) in [(P0, 9), (P1, 2)] {
        shell.give(Input::EndKnown { partition, offset });
    }
    shell.fetch_timed(P0, &tens(), None);
    shell.fetch_timed(P1, &[(0, 0), (1, 10 * SECOND)], None); // the client does not report this end
    assert_eq!(run_all(&mut shell).len(), 9 + 2);
    shell.store_until(P0, 9);
    assert_eq!(shell.count("EndReached"), 1);
}

/// An event that waits for its window was read, and what it waits for must be.
#[test]
fn events_that_wait_in_a_gate_hold_no_partition() {
    let rule = GateRule::Window(Window {
        window: Duration::from_mins(5),
        consecutive: false,
        late: Late::Deliver,
        max_waiting: 1_000,
        max_waiting_bytes: 1 << 20,
        releases_on_overflow: true,
    });
    let mut shell = reading(Config { read_in_step: Some(AHEAD_MAX), ..gated(rule) }, &[P0, P1]);
    let mut read = 0;
    for offset in 0..100 {
        for partition in [P0, P1] {
            let time = offset * 10 * SECOND;
            shell.reads.clear();
            shell
                .fetch_gated(partition, &[shell::gated::Gated { timestamp: time, ..event(offset, 1, time) }]);
            read += usize::from(shell.reads.contains(&partition));
        }
        shell.run_all();
    }
    assert_eq!(read, 200, "reading continues");
    assert_eq!(shown(&shell, P0).1, Some(BlockedOn::Window));
}

#[test]
fn with_a_gate_only_reading_waits() {
    let rule = GateRule::Newest(Newest { equal_runs: true, tolerance: 0, latest_first: false });
    let mut shell = reading(Config { read_in_step: Some(AHEAD_MAX), ..gated(rule) }, &[P0, P1]);
    let timed = |lane: u64, offset: i64| shell::gated::Gated {
        timestamp: offset * 10 * SECOND,
        ..event(offset, lane, offset)
    };
    shell.fetch_gated(P0, &(0..9).map(|offset| timed(1, offset)).collect::<Vec<_>>());
    assert_eq!((shell.run_all().len(), shown(&shell, P0).0), (9, Some(ReadLimit::InStep)), "P1 is not read");
    shell.reads.clear();
    shell.fetch_gated(P1, &[timed(2, 0)]);
    assert_eq!((shell.reads.contains(&P0), shown(&shell, P0).0), (true, None), "five are ahead of P1");
    shell.reads.clear();
    shell.fetch_gated(P0, &(9..12).map(|offset| timed(1, offset)).collect::<Vec<_>>());
    assert!(!shell.reads.contains(&P0), "eight are");
    shell.fetch_gated(P1, &[timed(2, 1)]);
    assert!(shell.reads.contains(&P0));
}
