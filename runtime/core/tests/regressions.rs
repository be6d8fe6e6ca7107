//! Bugs found by the simulator and by review, with one named test for each, in the order found.

use std::time::Duration;

use keylane_core::{
    Action, Admission, ArenaSlot, CallId, CommitId, CommittedStart, Config, Core, FetchedRow, Input, LaneEnd,
    Now, OutOfRange, Partition, PartitionStart, ReadError, RebalanceId,
};

const P: Partition = Partition { topic: 0, number: 0 };
const REQUEST: RebalanceId = RebalanceId(0);
const Q: Partition = Partition { topic: 0, number: 1 };

/// A core with its own clock, and its actions since the last `take_actions`.
struct Shell {
    core: Core,
    uptime: Duration,
    actions: Vec<String>,
    calls: Vec<CallId>,
    commits: Vec<(CommitId, Vec<Partition>)>,
}

impl Shell {
    fn new(config: Config) -> Self {
        let (actions, calls, commits) = (Vec::new(), Vec::new(), Vec::new());
        let mut shell = Shell { core: Core::new(config), uptime: Duration::ZERO, actions, calls, commits };
        shell.give(Input::CapacityAdded { calls: 8 });
        shell
    }

    fn give(&mut self, input: Input<'_>) {
        self.core.handle(Now { uptime: self.uptime, wall_ms: 0 }, input);
        while let Some(action) = self.core.poll() {
            if let Action::Dispatch(call) = &action {
                self.calls.push(call.call);
            }
            if let Action::Commit { id, entries, .. } = &action {
                self.commits.push((*id, entries.iter().map(|entry| entry.partition).collect()));
            }
            self.actions.push(format!("{action:?}"));
        }
    }

    fn wait(&mut self, millis: u64) {
        self.uptime += Duration::from_millis(millis);
    }

    fn take_actions(&mut self, name: &str) -> Vec<String> {
        let all = std::mem::take(&mut self.actions);
        all.into_iter().filter(|action| action.starts_with(name)).collect()
    }

    fn resolve(&mut self, partition: Partition, offset: i64) {
        let committed = Some(CommittedStart { offset, metadata: b"" });
        let start =
            PartitionStart { committed, fallback: 0, log_start: 0, log_end: Some(1000), topic_id: [0; 16] };
        self.give(Input::StartResolved { partition, start });
    }

    fn owning(config: Config) -> Self {
        let mut shell = Shell::new(config);
        shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P] });
        shell.resolve(P, 10);
        shell
    }

    fn read(&mut self, offsets: std::ops::Range<i64>, admission: Admission) {
        let row = |offset: i64| FetchedRow {
            offset,
            timestamp: -1,
            bytes: 100,
            arena_slot: ArenaSlot(offset.unsigned_abs()),
            admission,
        };
        let rows: Vec<_> = offsets.map(row).collect();
        self.give(Input::Fetched { partition: P, rows: &rows, orders: &[], end: None, error: None });
    }

    /// The oldest call ends with its row done.
    fn end(&mut self, with_outputs: &[u32]) -> CallId {
        let call = self.calls.remove(0);
        let lanes = [LaneEnd { done: 1, verdict: None }];
        self.give(Input::CallEnded {
            call,
            lanes: &lanes,
            with_outputs,
            output_bytes: &[],
            took: Duration::from_millis(1),
        });
        call
    }
}

#[test]
fn a_limit_of_one_event_lets_events_through() {
    let mut shell = Shell::owning(Config { max_queued: 1, ..Config::default() });
    for offset in 10..13 {
        assert_eq!(shell.take_actions("PermitRead {").len(), 1, "offset {offset} may be read");
        shell.read(offset..offset + 1, Admission::Lane(1));
        shell.end(&[]);
    }
}

#[test]
fn a_late_partition_is_not_added_while_a_rebalance_is_unanswered() {
    let mut shell = Shell::new(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[Q] });
    shell.wait(5_001);
    shell.give(Input::Tick);
    assert_eq!(shell.take_actions("AnswerAssign").len(), 1, "the group does not wait for a slow look-up");
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P] });
    shell.resolve(Q, 10);
    assert!(
        shell.take_actions("AnswerAssign").is_empty(),
        "the addition would count as the answer to the second assign"
    );
    shell.resolve(P, 20);
    let answers = shell.take_actions("AnswerAssign");
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers[0].contains("number: 0") && answers[1].contains("number: 1"), "{answers:?}");
}

#[test]
fn a_late_partition_is_added_after_a_revoke_is_answered() {
    let mut shell = Shell::owning(Config::default());
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[Q] });
    shell.wait(5_001);
    shell.give(Input::Tick);
    shell.read(10..11, Admission::Lane(1));
    shell.take_actions("");
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P] });
    shell.resolve(Q, 10);
    assert!(shell.take_actions("Answer").is_empty(), "the revoke waits for its call");
    shell.end(&[]);
    let (id, partitions) = shell.commits.remove(0);
    for partition in partitions {
        shell.give(Input::Committed { id, partition });
    }
    let answers = shell.take_actions("Answer");
    assert!(answers[0].starts_with("AnswerRevoke") && answers[1].starts_with("AnswerAssign"), "{answers:?}");
}

#[test]
fn a_reader_outside_the_log_moves_no_ledger_that_is_inside() {
    let mut shell = Shell::owning(Config { out_of_range: OutOfRange::Latest, ..Config::default() });
    shell.read(10..12, Admission::Lane(1));
    shell.take_actions("");
    let why = ReadError::OutOfRange { log_start: 0, log_end: 50 };
    shell.give(Input::Fetched { partition: P, rows: &[], orders: &[], end: None, error: Some(why) });
    let moved = shell.take_actions("Reassign");
    assert!(
        moved.len() == 1 && moved[0].contains("offset: 12"),
        "offsets 12 to 50 are not skipped: {moved:?}"
    );
    shell.give(Input::Fetched { partition: P, rows: &[], orders: &[], end: None, error: Some(why) });
    assert!(
        shell.take_actions("Notice(OwnershipEnded").is_empty(),
        "a call of the ownership is still in flight"
    );
}

#[test]
fn an_event_without_a_lane_waits_for_its_call_of_an_older_ownership() {
    let mut shell = Shell::owning(Config::default());
    shell.read(10..11, Admission::Unkeyed);
    let old = shell.calls.remove(0);
    shell.give(Input::Lost { request: REQUEST, partitions: &[P] });
    assert_eq!(shell.take_actions("Cancel").len(), 1);
    shell.give(Input::AssignRequested { request: REQUEST, partitions: &[P] });
    shell.resolve(P, 10);
    shell.read(10..11, Admission::Unkeyed);
    assert!(shell.calls.is_empty(), "the cancelled call still runs");
    shell.give(Input::CallTerminated { call: old });
    assert_eq!(shell.calls.len(), 1);
    shell.end(&[]);
    assert_eq!(shell.core.view().lanes, 0, "no lane remains");
}

#[test]
fn a_result_that_comes_with_the_end_of_its_revoke_is_dropped() {
    let mut shell = Shell::owning(Config::default());
    shell.read(10..11, Admission::Lane(1));
    shell.give(Input::Revoked { request: REQUEST, partitions: &[P] });
    shell.wait(1_500); // past the deadline, without a tick
    shell.end(&[0]);
    assert_eq!(shell.core.view().lanes, 0, "no lane waits for an ack that is never sent");
}
