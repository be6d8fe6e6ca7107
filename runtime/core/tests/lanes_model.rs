//! Lanes and calls, through the core's interface, compared with a simple model: a queue per lane and one queue of
//! ready lanes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use keylane_core::{
    Action, Admission, ArenaSlot, CallId, CommitId, CommittedStart, Config, Core, Dispatch, FetchedRow,
    Input, LaneEnd, Now, Partition, PartitionStart, RebalanceId,
};
use proptest::prelude::*;

const P: Partition = Partition { topic: 0, number: 0 };
const REQUEST: RebalanceId = RebalanceId(0);

/// A lane, identified by its hash, or that of an event without a lane key, identified by its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LaneId {
    Keyed(u64),
    Unkeyed(i64),
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<i64>,
    busy: bool,
    is_ready: bool,
}

/// A lane of a call, and the number of its outstanding acks; `None`: the guest still runs.
#[derive(Clone, Debug)]
struct CallLane {
    lane_id: LaneId,
    rows: Vec<i64>,
    acks_left: Option<usize>,
}

#[derive(Debug)]
struct Call {
    id: CallId,
    lanes: Vec<CallLane>,
}

#[derive(Debug, Default)]
struct Model {
    lanes: BTreeMap<LaneId, Lane>,
    ready: VecDeque<LaneId>,
    lane_of: BTreeMap<i64, LaneId>,
    handled: Vec<i64>,
}

impl Model {
    fn admit(&mut self, offset: i64, lane_id: LaneId) {
        self.lane_of.insert(offset, lane_id);
        self.lanes.entry(lane_id).or_default().queue.push_back(offset);
        self.enqueue_lane(lane_id);
    }

    fn enqueue_lane(&mut self, lane_id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return };
        if !lane.busy && !lane.is_ready && !lane.queue.is_empty() {
            lane.is_ready = true;
            self.ready.push_back(lane_id);
        }
    }

    fn release(&mut self, lane_id: LaneId) {
        let lane = self.lanes.get_mut(&lane_id).expect("a lane with a call");
        lane.busy = false;
        if lane.queue.is_empty() {
            self.lanes.remove(&lane_id);
        }
        self.enqueue_lane(lane_id);
    }

    /// The core must dispatch the first ready lanes.
    fn dispatched(&mut self, dispatch: &Dispatch<'_>, max_batch: usize) -> Call {
        assert!(dispatch.rows.len() <= max_batch);
        let mut rows = dispatch.rows.iter().map(|row| row.offset);
        let mut lanes = Vec::new();
        for (at, &length) in dispatch.lane_lengths.iter().enumerate() {
            let lane_id = self.ready.pop_front().expect("a lane is ready");
            let lane = self.lanes.get_mut(&lane_id).expect("a ready lane has events");
            assert!(lane.is_ready && !lane.busy, "{lane_id:?} has another call");
            lane.is_ready = false;
            lane.busy = true;
            let taken: Vec<_> = rows.by_ref().take(length as usize).collect();
            assert!(!taken.is_empty());
            for &offset in &taken {
                assert_eq!(lane.queue.pop_front(), Some(offset), "{lane_id:?} is out of order");
            }
            let last = at + 1 == dispatch.lane_lengths.len();
            assert!(last || lane.queue.is_empty(), "{lane_id:?} has more events and the call is not full");
            lanes.push(CallLane { lane_id, rows: taken, acks_left: None });
        }
        Call { id: dispatch.call, lanes }
    }
}

struct Harness {
    core: Core,
    model: Model,
    uptime: Duration,
    max_batch: u32,
    calls: Vec<Call>,
    /// Rows with unacknowledged outputs: call, row.
    unacked: Vec<(CallId, u32)>,
    next: i64,
}

#[derive(Clone, Debug)]
enum Step {
    /// Read one event of each of these lanes; 9: no lane.
    Read(Vec<u64>),
    /// One of the calls ends; rows whose number has this bit have outputs.
    End(prop::sample::Index, u8),
    Ack(prop::sample::Index),
}

impl Harness {
    fn new(max_batch: u32, workers: u32) -> Self {
        // Only `max_batch` limits a call. Otherwise its size would depend on the duration of calls,
        // which is 0 here.
        let config = Config { max_batch, max_batch_is_fixed: true, ..Config::default() };
        let (core, model, uptime) = (Core::new(config), Model::default(), Duration::ZERO);
        let mut harness =
            Harness { core, model, uptime, max_batch, calls: Vec::new(), unacked: Vec::new(), next: 0 };
        harness.give(Input::CapacityAdded { calls: workers });
        harness.give(Input::AssignRequested { request: REQUEST, partitions: &[P] });
        let committed = Some(CommittedStart { offset: 0, metadata: b"" });
        let start =
            PartitionStart { committed, fallback: 0, log_start: 0, log_end: Some(0), topic_id: [0; 16] };
        harness.give(Input::StartResolved { partition: P, start });
        harness
    }

    fn give(&mut self, input: Input<'_>) {
        self.uptime += Duration::from_millis(1);
        let now = Now { uptime: self.uptime, wall_ms: 0 };
        self.core.handle(now, input);
        let mut committed: Option<CommitId> = None;
        while let Some(action) = self.core.poll() {
            if let Action::Dispatch(dispatch) = &action {
                self.calls.push(self.model.dispatched(dispatch, self.max_batch as usize));
            }
            if let Action::Produce { call, rows } = &action {
                self.unacked.extend(rows.iter().map(|&row| (*call, row)));
            }
            if let Action::Commit { id, .. } = action {
                committed = Some(id);
            }
        }
        if let Some(id) = committed {
            self.give(Input::Committed { id, partition: P });
        }
    }

    fn read(&mut self, lanes: &[u64]) {
        let rows: Vec<_> = (self.next..).zip(lanes).map(|(offset, &lane)| row(offset, lane)).collect();
        self.next += i64::try_from(rows.len()).unwrap();
        for (row, &lane) in rows.iter().zip(lanes) {
            let lane_id = if lane == 9 { LaneId::Unkeyed(row.offset) } else { LaneId::Keyed(lane) };
            self.model.admit(row.offset, lane_id);
        }
        if !rows.is_empty() {
            self.give(Input::Fetched { partition: P, rows: &rows, orders: &[], end: None, error: None });
        }
    }

    fn end(&mut self, at: usize, outputs: u8) {
        let id = self.calls[at].id;
        let (mut lanes, mut with_outputs, mut row) = (Vec::new(), Vec::new(), 0u32);
        let mut free = Vec::new();
        for lane in &mut self.calls[at].lanes {
            let mut acks = 0;
            for _ in &lane.rows {
                if outputs >> (row % 8) & 1 == 1 {
                    with_outputs.push(row);
                    acks += 1;
                }
                row += 1;
            }
            lanes.push(LaneEnd { done: u32::try_from(lane.rows.len()).unwrap(), verdict: None });
            lane.acks_left = Some(acks);
            if acks == 0 {
                free.push(lane.clone());
            }
        }
        for lane in free {
            self.finish(&lane);
        }
        self.give(Input::CallEnded {
            call: id,
            lanes: &lanes,
            with_outputs: &with_outputs,
            output_bytes: &[],
            took: Duration::ZERO,
        });
    }

    fn finish(&mut self, lane: &CallLane) {
        self.model.handled.extend(&lane.rows);
        self.model.release(lane.lane_id);
    }

    fn ack(&mut self, at: usize) {
        let (call, row) = self.unacked.swap_remove(at);
        let lanes = &mut self.calls.iter_mut().find(|known| known.id == call).expect("a known call").lanes;
        let mut first = 0;
        let lane = lanes.iter_mut().find(|lane| {
            first += lane.rows.len();
            (row as usize) < first
        });
        let lane = lane.expect("a row of the call");
        let left = lane.acks_left.as_mut().expect("the lane has ended");
        *left -= 1;
        if *left == 0 {
            let lane = lane.clone();
            self.finish(&lane);
        }
        self.give(Input::EffectsAcked { call, row });
    }

    fn running(&self) -> Vec<usize> {
        let running = self.calls.iter().enumerate().filter(|(_, call)| call.lanes[0].acks_left.is_none());
        running.map(|(at, _)| at).collect()
    }
}

fn row(offset: i64, lane: u64) -> FetchedRow {
    let admission = if lane == 9 { Admission::Unkeyed } else { Admission::Lane(lane) };
    FetchedRow { offset, timestamp: 0, bytes: 10, arena_slot: ArenaSlot(offset.unsigned_abs()), admission }
}

fn step() -> impl Strategy<Value = Step> {
    let lane = prop_oneof![4 => 0u64..4, 1 => Just(9u64)];
    prop_oneof![
        2 => prop::collection::vec(lane, 1..12).prop_map(Step::Read),
        3 => (any::<prop::sample::Index>(), prop_oneof![Just(0u8), any::<u8>()]).prop_map(|(at, o)| Step::End(at, o)),
        3 => any::<prop::sample::Index>().prop_map(Step::Ack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn lanes_take_turns_and_keep_their_order(
        steps in prop::collection::vec(step(), 1..200),
        max_batch in 1u32..20,
        workers in 1u32..5,
    ) {
        let mut harness = Harness::new(max_batch, workers);
        for step in &steps {
            let running = harness.running();
            match step {
                Step::Read(lanes) => harness.read(lanes),
                Step::End(at, outputs) if !running.is_empty() => {
                    harness.end(running[at.index(running.len())], *outputs);
                }
                Step::Ack(at) if !harness.unacked.is_empty() => harness.ack(at.index(harness.unacked.len())),
                Step::End(..) | Step::Ack(_) => {}
            }
        }
        // Every event is handled once; then no lane remains.
        while let Some(&at) = harness.running().first() {
            harness.end(at, 0);
            while !harness.unacked.is_empty() {
                harness.ack(0);
            }
        }
        while !harness.unacked.is_empty() {
            harness.ack(0);
            while let Some(&at) = harness.running().first() {
                harness.end(at, 0);
            }
        }
        let mut handled = harness.model.handled.clone();
        handled.sort_unstable();
        prop_assert_eq!(handled, (0..harness.next).collect::<Vec<_>>());
        prop_assert_eq!(harness.core.view().lanes, 0);
        prop_assert!(harness.model.ready.is_empty());
    }
}
