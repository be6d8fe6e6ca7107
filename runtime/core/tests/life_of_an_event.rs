//! One event from its fetch to its commit, through the core's interface: the shortest complete example.

use std::time::Duration;

use keylane_core::{
    Action, Admission, ArenaSlot, CallId, CommitId, Config, Core, FetchedRow, Input, LaneEnd, Now, Partition,
    PartitionStart, RebalanceId,
};

const P: Partition = Partition { topic: 0, number: 3 };
const REQUEST: RebalanceId = RebalanceId(0);

/// A core with a clock, and a record of its actions.
struct Shell {
    core: Core,
    uptime: Duration,
    actions: Vec<String>,
    calls: Vec<(CallId, Vec<i64>)>,
    commits: Vec<(CommitId, i64, String)>,
}

impl Shell {
    fn new() -> Self {
        let core = Core::new(Config::default());
        Shell { core, uptime: Duration::ZERO, actions: Vec::new(), calls: Vec::new(), commits: Vec::new() }
    }

    fn give(&mut self, input: Input<'_>) {
        self.uptime += Duration::from_millis(5);
        self.core.handle(Now { uptime: self.uptime, wall_ms: 0 }, input);
        while let Some(action) = self.core.poll() {
            self.actions.push(format!("{action:?}").split([' ', '(']).next().unwrap_or_default().to_owned());
            if let Action::Dispatch(call) = &action {
                self.calls.push((call.call, call.rows.iter().map(|row| row.offset).collect()));
            }
            if let Action::Commit { id, entries, metadata } = action {
                self.commits.extend(entries.iter().map(|e| (id, e.offset, metadata.to_owned())));
            }
        }
    }

    fn take_actions(&mut self) -> Vec<String> {
        std::mem::take(&mut self.actions)
    }

    fn commit_succeeds(&mut self) -> (i64, String) {
        while self.commits.is_empty() {
            self.give(Input::Tick);
        }
        let (id, offset, metadata) = self.commits.remove(0);
        self.give(Input::Committed { id, partition: P });
        (offset, metadata)
    }

    fn end(&mut self, at: usize, done: u32, with_outputs: &[u32]) -> CallId {
        let (call, _) = self.calls.remove(at);
        let lanes = [LaneEnd { done, verdict: None }];
        self.give(Input::CallEnded {
            call,
            lanes: &lanes,
            with_outputs,
            output_bytes: &[],
            took: Duration::from_micros(3),
        });
        call
    }
}

fn row(offset: i64, lane: u64) -> FetchedRow {
    FetchedRow {
        offset,
        timestamp: 0,
        bytes: 100,
        arena_slot: ArenaSlot(offset.unsigned_abs()),
        admission: Admission::Lane(lane),
    }
}

fn started() -> Shell {
    let mut shell = Shell::new();
    shell.give(Input::CapacityAdded { calls: 2 });
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P] });
    assert_eq!(shell.take_actions(), ["LookUpStart"]);
    let start =
        PartitionStart { committed: None, fallback: 10, log_start: 0, log_end: Some(100), topic_id: [0; 16] };
    shell.give(Input::StartResolved { partition: P, start });
    assert_eq!(
        shell.take_actions(),
        ["Notice", "AnswerAssign", "Commit"],
        "the start is committed before the first read"
    );
    assert_eq!(shell.commit_succeeds(), (10, String::new()));
    assert_eq!(shell.take_actions(), ["PermitRead"]);
    shell
}

#[test]
fn an_event_is_committed_when_its_outputs_are_acked() {
    let mut shell = started();
    shell.give(Input::Fetched {
        partition: P,
        rows: &[row(10, 1), row(11, 2), row(12, 1)],
        orders: &[],
        end: None,
        error: None,
    });
    assert_eq!(shell.take_actions(), ["Dispatch", "Dispatch", "PermitRead"], "two lanes, two workers");
    let second = shell.end(1, 1, &[]);
    assert_eq!(second.slot, 1);
    let first = shell.end(0, 1, &[0]);
    assert!(shell.take_actions().contains(&"Produce".to_owned()));
    assert!(shell.calls.is_empty(), "offset 12 waits for the ack of offset 10, which is in the same lane");
    let (offset, set) = shell.commit_succeeds();
    assert_eq!(offset, 10, "offset 10 is not settled");
    assert!(set.starts_with("kl1:"), "offset 11 is claimed: {set}");
    shell.give(Input::EffectsAcked { call: first, row: 0 });
    assert_eq!(shell.calls.first().map(|(_, offsets)| offsets.clone()), Some(vec![12]));
    shell.end(0, 1, &[]);
    assert_eq!(shell.commit_succeeds(), (13, String::new()));
    assert_eq!(shell.core.view().lanes, 0, "no lane remains");
}

#[test]
fn a_drain_waits_for_running_calls_then_commits_and_leaves() {
    let mut shell = started();
    shell.give(Input::Fetched {
        partition: P,
        rows: &[row(10, 1), row(11, 1)],
        orders: &[],
        end: None,
        error: None,
    });
    shell.take_actions();
    shell.give(Input::Drain { deadline: Duration::from_secs(10) });
    assert_eq!(shell.take_actions(), ["WithdrawRead", "ReleaseRows"]);
    shell.end(0, 1, &[]);
    assert_eq!(shell.take_actions(), ["ReleaseRows", "Commit"]);
    assert_eq!(shell.commit_succeeds().0, 11);
    assert_eq!(shell.take_actions(), ["Notice", "Drained"]);
}

#[test]
fn a_gap_after_a_rebalance_is_read_again_before_it_counts() {
    let mut shell = started();
    shell.give(Input::Fetched { partition: P, rows: &[row(14, 1)], orders: &[], end: None, error: None });
    assert_eq!(shell.take_actions(), ["Notice", "Reposition", "ReleaseRows", "PermitRead"]);
    shell.give(Input::Fetched { partition: P, rows: &[row(14, 1)], orders: &[], end: None, error: None });
    assert_eq!(shell.calls.first().map(|(_, offsets)| offsets.clone()), Some(vec![14]));
}
