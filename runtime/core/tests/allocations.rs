//! In the steady state, the core does not allocate, as measured over a million events.
#![expect(
    unsafe_code,
    reason = "a counting allocator can't be written in safe code; it forwards every request unchanged"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use keylane_core::{
    Action, Admission, ArenaSlot, CallId, CommitId, CommittedStart, Config, Core, EventOrder, FetchedRow,
    GateConfig, GateKey, GateRule, Input, Known, LaneEnd, Newest, NoValue, Now, Partition, PartitionStart,
    RebalanceId,
};

thread_local! {
    /// Allocations of this thread inside the core.
    static COUNTED: Cell<u64> = const { Cell::new(0) };
    static IN_CORE: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn count() {
    if IN_CORE.get() {
        COUNTED.set(COUNTED.get() + 1);
    }
}

// SAFETY: every request is forwarded to the system allocator unchanged. Counting uses only const-initialized
// thread-local cells without a destructor, so it never allocates itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const P: Partition = Partition { topic: 0, number: 0 };
const REQUEST: RebalanceId = RebalanceId(0);
const BATCH: usize = 64;
const WORKERS: u32 = 8;
/// Calls in flight before an old one must end.
const IN_FLIGHT_MAX: usize = 6;
/// Acks lag behind by this many rows.
const ACKS_BEHIND: usize = 2_000;

#[derive(Clone, Copy)]
struct InFlight {
    id: CallId,
    /// Rows of each lane.
    lanes: [u32; BATCH],
    lane_count: usize,
    rows: u32,
}

/// The pending actions of the core.
struct Requested {
    in_flight: VecDeque<InFlight>,
    unacked: VecDeque<(CallId, u32)>,
    permitted: u32,
    commit: Option<CommitId>,
}

/// A shell that does not allocate, so that every allocation counted is the core's.
struct Shell {
    core: Core,
    is_gated: bool,
    uptime: Duration,
    requested: Requested,
    next: i64,
    handled: u64,
    committed: u64,
    chance: u64,
}

impl Requested {
    fn note(&mut self, action: &Action<'_>) {
        if let Action::PermitRead { max_events, .. } = action {
            self.permitted = *max_events;
        }
        if let Action::Commit { id, .. } = action {
            self.commit = Some(*id);
        }
        if let Action::Produce { call, rows } = action {
            self.unacked.extend(rows.iter().map(|&row| (*call, row)));
        }
        if let Action::Dispatch(dispatch) = action {
            let mut lanes = [0; BATCH];
            for (slot, &length) in lanes.iter_mut().zip(dispatch.lane_lengths) {
                *slot = length;
            }
            let rows = u32::try_from(dispatch.rows.len()).expect("a dispatch has at most a batch of rows");
            self.in_flight.push_back(InFlight {
                id: dispatch.call,
                lanes,
                lane_count: dispatch.lane_lengths.len(),
                rows,
            });
        }
    }
}

impl Shell {
    fn new(gate: Option<GateConfig>) -> Self {
        let config =
            Config { max_batch: 64, max_batch_is_fixed: true, max_queued: 4_000, gate, ..Config::default() };
        Shell {
            is_gated: gate.is_some(),
            core: Core::new(config),
            uptime: Duration::ZERO,
            requested: Requested {
                in_flight: VecDeque::with_capacity(64),
                unacked: VecDeque::with_capacity(64_000),
                permitted: 0,
                commit: None,
            },
            next: 0,
            handled: 0,
            committed: 0,
            chance: 1,
        }
    }

    fn begin(&mut self) {
        self.give(Input::CapacityAdded { calls: WORKERS });
        self.give(Input::AssignRequested { request: REQUEST, partitions: &[P] });
        let committed = Some(CommittedStart { offset: 0, metadata: b"" });
        let start =
            PartitionStart { committed, fallback: 0, log_start: 0, log_end: Some(0), topic_id: [0; 16] };
        self.give(Input::StartResolved { partition: P, start });
    }

    /// Xorshift: the numbers only need to be mixed.
    fn chance(&mut self, of: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % of
    }

    fn give(&mut self, input: Input<'_>) {
        self.uptime += Duration::from_micros(50);
        let now = Now { uptime: self.uptime, wall_ms: 0 };
        IN_CORE.set(true);
        self.core.handle(now, input);
        while let Some(action) = self.core.poll() {
            IN_CORE.set(false);
            self.requested.note(&action);
            IN_CORE.set(true);
        }
        self.core.next_timeout();
        IN_CORE.set(false);
    }

    /// One turn: a read, a call that ends out of order, late acks, and an answered commit.
    fn turn(&mut self) {
        if self.requested.permitted > 0 {
            self.read();
        }
        if self.requested.in_flight.len() >= IN_FLIGHT_MAX || self.requested.permitted == 0 {
            self.end_a_call();
        }
        while self.requested.unacked.len() > ACKS_BEHIND
            || (self.requested.in_flight.is_empty() && !self.requested.unacked.is_empty())
        {
            // Acks are out of order, too.
            let at = usize::try_from(self.chance(8)).expect("below 8").min(self.requested.unacked.len() - 1);
            if let Some((call, row)) = self.requested.unacked.swap_remove_front(at) {
                self.give(Input::EffectsAcked { call, row });
            }
        }
        if self.chance(4) == 0
            && let Some(id) = self.requested.commit.take()
        {
            self.committed += 1;
            self.give(Input::Committed { id, partition: P });
        }
    }

    fn read(&mut self) {
        let mut rows = [FetchedRow {
            offset: 0,
            timestamp: 0,
            bytes: 100,
            arena_slot: ArenaSlot(0),
            admission: Admission::Unkeyed,
        }; 50];
        let count = rows.len().min(self.requested.permitted as usize);
        for row in rows.iter_mut().take(count) {
            // Frequent lanes, rare lanes, events without a lane key, and occasional gaps.
            self.next += i64::from(self.chance(100) == 0);
            row.offset = self.next;
            row.admission = match self.chance(10) {
                0..4 => Admission::Lane(self.chance(20)),
                4..8 => Admission::Lane(self.chance(100_000)),
                _ if self.is_gated => Admission::Lane(0),
                _ => Admission::Unkeyed,
            };
            self.next += 1;
        }
        let mut orders = [EventOrder::without_value(GateKey(0)); 50];
        for (order, row) in orders.iter_mut().zip(&rows) {
            if let Admission::Lane(lane) = row.admission {
                // Some values are older than those before them.
                let value = row.offset - self.chance(20).cast_signed();
                *order = EventOrder {
                    value: Some(value),
                    known: Known::Mark(None),
                    ..EventOrder::without_value(GateKey(lane))
                };
            }
        }
        self.requested.permitted = 0;
        self.give(Input::Fetched {
            partition: P,
            rows: rows.get(..count).unwrap_or_default(),
            orders: if self.is_gated { orders.get(..count).unwrap_or_default() } else { &[] },
            end: None,
            error: None,
        });
    }

    fn end_a_call(&mut self) {
        let Some(most) = self.requested.in_flight.len().checked_sub(1) else { return };
        let at = usize::try_from(self.chance(4)).expect("below 4").min(most);
        let Some(call) = self.requested.in_flight.swap_remove_front(at) else { return };
        let mut lanes = [LaneEnd { done: 0, verdict: None }; BATCH];
        for (end, &length) in lanes.iter_mut().zip(&call.lanes) {
            end.done = length;
        }
        let mut with_outputs = [0u32; BATCH];
        let mut outputs = 0;
        for row in 0..call.rows {
            if self.chance(3) == 0
                && let Some(slot) = with_outputs.get_mut(outputs)
            {
                *slot = row;
                outputs += 1;
            }
        }
        self.handled += u64::from(call.rows);
        self.give(Input::CallEnded {
            call: call.id,
            lanes: lanes.get(..call.lane_count).unwrap_or_default(),
            with_outputs: with_outputs.get(..outputs).unwrap_or_default(),
            output_bytes: &[],
            took: Duration::from_nanos(500 * u64::from(call.rows)),
        });
    }

    fn handle(&mut self, events: u64) {
        let until = self.handled + events;
        let mut turns = 0;
        while self.handled < until {
            self.turn();
            turns += 1;
            assert!(turns < 10 * events, "no progress: {} handled", self.handled);
        }
    }
}

#[test]
fn a_million_events_allocate_nothing() {
    check(None);
}

#[test]
fn a_million_events_with_a_gate_allocate_nothing() {
    let rule = GateRule::Newest(Newest { equal_runs: false, tolerance: 0, latest_first: false });
    check(Some(GateConfig { rule, no_value: NoValue::Reject, max_ahead: None, ends_at_tombstone: false }));
}

fn check(gate: Option<GateConfig>) {
    let mut shell = Shell::new(gate);
    shell.begin();
    shell.handle(1_000_000); // until every reused buffer has its largest size
    let (before, commits) = (COUNTED.get(), shell.committed);
    assert!(before > 0, "the warm-up must allocate");
    shell.handle(1_000_000);
    assert!(shell.committed > commits + 100, "too few commits were encoded: {}", shell.committed - commits);
    assert_eq!(COUNTED.get() - before, 0, "allocations for a million events");
}
