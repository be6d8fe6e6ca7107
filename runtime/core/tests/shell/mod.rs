//! A test shell for the core: it carries out the core's actions in memory and records them.
//!
//! It checks the invariants of every shell: each arena slot is released exactly once, no event is dispatched from a
//! released slot, and outputs are produced only once.

#![allow(dead_code, reason = "each test file uses only some functions")]

pub(crate) mod gated;
mod records;
pub(crate) mod timed;
pub(crate) mod transactional;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use keylane_core::{
    Action, Admission, ArenaSlot, Blockage, CallFailure, CallId, CommitError, CommittedStart, Config, Core,
    Dispatch, FailedEvent, Fault, FetchedRow, Input, KeptEffects, KeyMemory, LaneEnd, LookUpId, MemoryChange,
    Notice, Now, Partition, PartitionStart, PartitionStop, ReadError, Reason, RebalanceId, Verdict,
};

use records::set_of;
pub(crate) use records::{Dispatched, SentCommit, SentTransaction};

/// A rebalance request for tests in which its identity does not matter.
pub(crate) const REQUEST: RebalanceId = RebalanceId(0);
pub(crate) const P0: Partition = Partition { topic: 0, number: 0 };
pub(crate) const P1: Partition = Partition { topic: 0, number: 1 };

/// The time between two inputs.
pub(crate) const STEP: Duration = Duration::from_millis(5);

/// The offset that follows those of [`Shell::warm_up`].
pub(crate) const NEXT: i64 = 60;

pub(crate) struct Shell {
    pub(crate) core: Core,
    pub(crate) uptime: Duration,
    pub(crate) wall_ms: i64,
    pub(crate) calls: Vec<Dispatched>,
    pub(crate) commits: Vec<SentCommit>,
    pub(crate) transactions: Vec<SentTransaction>,
    /// The effects that are neither committed nor dropped.
    pub(crate) kept: Vec<KeptEffects>,
    /// The deletions of old states, with their numbers.
    pub(crate) forgotten: Vec<(Partition, u64)>,
    /// Requests for the ends of logs.
    pub(crate) end_requests: Vec<Partition>,
    /// Look-ups of gate keys.
    pub(crate) key_lookups: Vec<(LookUpId, u64)>,
    /// Changes of gate keys.
    pub(crate) remembered: Vec<MemoryChange>,
    /// What is remembered, by gate key.
    pub(crate) memories: BTreeMap<u64, KeyMemory>,
    /// The number of ids that are remembered for each key.
    pub(crate) keep_ids: usize,
    pub produced: Vec<(CallId, Vec<u32>)>,
    pub dropped: Vec<(CallId, Range<u32>)>,
    pub(crate) dead_letters: Vec<FailedEvent>,
    pub(crate) stops: Vec<(Partition, i64, Reason)>,
    pub(crate) partition_stops: Vec<(Partition, i64, PartitionStop)>,
    pub(crate) cancelled: Vec<CallId>,
    pub(crate) reads: Vec<Partition>,
    pub(crate) repositions: Vec<(Partition, i64)>,
    pub(crate) reassigned: Vec<(Partition, i64)>,
    pub(crate) lookups: Vec<Partition>,
    pub(crate) assigned: Vec<Vec<Partition>>,
    pub(crate) revoked: Vec<Vec<Partition>>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) stalls: Vec<Blockage>,
    pub(crate) stalls_ended: Vec<Partition>,
    pub(crate) drained: Option<bool>,
    pub unterminated_calls: u32,
    /// The names of all actions.
    pub(crate) names: Vec<String>,
    next_slot: u64,
    /// Slots of events that the core keeps.
    slots: BTreeSet<u64>,
}

impl Shell {
    pub(crate) fn new(config: Config) -> Self {
        Shell {
            core: Core::new(config),
            uptime: Duration::ZERO,
            wall_ms: 0,
            calls: Vec::new(),
            commits: Vec::new(),
            transactions: Vec::new(),
            kept: Vec::new(),
            forgotten: Vec::new(),
            end_requests: Vec::new(),
            key_lookups: Vec::new(),
            remembered: Vec::new(),
            memories: BTreeMap::new(),
            keep_ids: 0,
            produced: Vec::new(),
            dropped: Vec::new(),
            dead_letters: Vec::new(),
            stops: Vec::new(),
            partition_stops: Vec::new(),
            cancelled: Vec::new(),
            reads: Vec::new(),
            repositions: Vec::new(),
            reassigned: Vec::new(),
            lookups: Vec::new(),
            assigned: Vec::new(),
            revoked: Vec::new(),
            notices: Vec::new(),
            stalls: Vec::new(),
            stalls_ended: Vec::new(),
            drained: None,
            unterminated_calls: 0,
            names: Vec::new(),
            next_slot: 0,
            slots: BTreeSet::new(),
        }
    }

    /// A core that reads these partitions from the committed offset 0, with capacity for `calls` calls.
    pub(crate) fn reading(config: Config, partitions: &[Partition], calls: u32) -> Self {
        let mut shell = Shell::new(config);
        shell.give(Input::CapacityAdded { calls });
        shell.give(Input::AssignRequested { request: REQUEST, partitions });
        for &partition in partitions {
            shell.start_at(partition, 0, b"");
        }
        assert_eq!(shell.assigned.len(), 1, "the assign must be answered");
        shell.clear_records();
        shell
    }

    /// Handles and commits the events of the partition below [`NEXT`]. They cost almost nothing, so
    /// that later calls carry more than one event.
    pub(crate) fn warm_up(&mut self, partition: Partition) {
        for offset in 0..NEXT {
            self.fetch(partition, &[(offset, 99)]);
            self.end(&[]);
        }
        self.store_until(partition, NEXT);
        self.clear_records();
    }

    /// Lets a short time pass, gives the core an input, and carries out its actions.
    pub(crate) fn give(&mut self, input: Input<'_>) {
        self.uptime += STEP;
        self.core.handle(Now { uptime: self.uptime, wall_ms: self.wall_ms }, input);
        let mut core = std::mem::replace(&mut self.core, Core::new(Config::default()));
        while let Some(action) = core.poll() {
            self.take(action);
        }
        self.core = core;
    }

    /// Advances from one timeout of the core to the next, until this uptime.
    pub(crate) fn wait_until(&mut self, uptime: Duration) {
        while self.uptime < uptime {
            let next = self.core.next_timeout().unwrap_or(uptime).clamp(self.uptime, uptime);
            self.uptime = next.saturating_sub(STEP).max(self.uptime);
            self.give(Input::Tick);
        }
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.wait_until(self.uptime + duration);
    }

    /// Discards most records so far.
    pub(crate) fn clear_records(&mut self) {
        self.reads.clear();
        self.repositions.clear();
        self.lookups.clear();
        self.assigned.clear();
        self.revoked.clear();
        self.notices.clear();
        self.names.clear();
        self.commits.clear();
    }

    pub(crate) fn start_at(&mut self, partition: Partition, offset: i64, metadata: &[u8]) {
        let committed = Some(CommittedStart { offset, metadata });
        self.give(Input::StartResolved { partition, start: PartitionStart { committed, ..start() } });
    }

    /// Rows with these offsets and lane keys were read.
    pub(crate) fn fetch(&mut self, partition: Partition, rows: &[(i64, u64)]) {
        self.read(partition, rows, None, None);
    }

    /// One read that returns these rows, then this end, then this error.
    pub(crate) fn read(
        &mut self,
        partition: Partition,
        rows: &[(i64, u64)],
        end: Option<i64>,
        error: Option<ReadError>,
    ) {
        let rows: Vec<FetchedRow> =
            rows.iter().map(|&(offset, lane)| self.row(offset, Admission::Lane(lane))).collect();
        self.give(Input::Fetched { partition, rows: &rows, orders: &[], end, error });
    }

    /// Rows with these offsets were read, all with the same admission.
    pub(crate) fn fetch_as(&mut self, partition: Partition, offsets: &[i64], admission: Admission) {
        let rows: Vec<FetchedRow> = offsets.iter().map(|&offset| self.row(offset, admission)).collect();
        self.give(Input::Fetched { partition, rows: &rows, orders: &[], end: None, error: None });
    }

    fn row(&mut self, offset: i64, admission: Admission) -> FetchedRow {
        self.next_slot += 1;
        self.slots.insert(self.next_slot);
        FetchedRow { offset, timestamp: 0, bytes: 100, arena_slot: ArenaSlot(self.next_slot), admission }
    }

    /// The oldest call ends with all its rows done.
    pub(crate) fn end(&mut self, with_outputs: &[u32]) -> CallId {
        let call = self.calls.remove(0);
        let lanes: Vec<_> = call.lanes.iter().map(|&done| LaneEnd { done, verdict: None }).collect();
        self.end_call(call.id, &lanes, with_outputs);
        call.id
    }

    /// The oldest call ends with this verdict about the first row of each lane.
    pub(crate) fn end_with(&mut self, verdict: Verdict) {
        let call = self.calls.remove(0);
        let lanes: Vec<_> = call.lanes.iter().map(|_| LaneEnd { done: 0, verdict: Some(verdict) }).collect();
        self.end_call(call.id, &lanes, &[]);
    }

    pub(crate) fn end_call(&mut self, call: CallId, lanes: &[LaneEnd], with_outputs: &[u32]) {
        let took = Duration::from_nanos(100);
        self.give(Input::CallEnded { call, lanes, with_outputs, output_bytes: &[], took });
    }

    /// The oldest call fails as a whole; the failing row is unknown.
    pub(crate) fn fail(&mut self, fault: Fault) -> Dispatched {
        let call = self.calls.remove(0);
        let failure = CallFailure { fault, failing_row: None, fresh: call.fresh };
        self.give(Input::CallFailed {
            call: call.id,
            failure,
            lanes: &[],
            with_outputs: &[],
            output_bytes: &[],
        });
        call
    }

    /// The oldest dead letter is acknowledged.
    pub(crate) fn ack_dead_letter(&mut self) -> FailedEvent {
        let dead_letter = self.dead_letters.remove(0);
        self.give(Input::EffectsAcked { call: dead_letter.call, row: dead_letter.row });
        dead_letter
    }

    /// Waits until a call is in flight.
    pub(crate) fn wait_for_call(&mut self) -> Dispatched {
        let deadline = self.uptime + Duration::from_secs(70);
        while self.calls.is_empty() {
            assert!(self.uptime < deadline, "no call is dispatched");
            self.wait(STEP);
        }
        self.calls.first().expect("the loop ends with a call").clone()
    }

    /// Every call ends with all its rows done, until none is in flight.
    pub(crate) fn end_all(&mut self) {
        while !self.calls.is_empty() {
            self.end(&[]);
        }
    }

    /// The oldest commit is stored as a whole.
    pub(crate) fn store(&mut self) -> SentCommit {
        let commit = self.commit();
        for entry in &commit.entries {
            self.give(Input::Committed { id: commit.id, partition: entry.partition });
        }
        commit
    }

    /// Stores commits until one has this offset for the partition. The number of commits is limited
    /// as well as the wait for each, because a partition that does not advance is committed again
    /// every minute, forever.
    pub(crate) fn store_until(&mut self, partition: Partition, offset: i64) {
        const COMMITS_MAX: usize = 1_000;
        let mut last = None;
        let stored = (0..COMMITS_MAX).any(|_| {
            last = self.store().offset_of(partition).or(last);
            last == Some(offset)
        });
        assert!(
            stored,
            "offset {offset} of {partition:?} is not committed; the last committed offset is {last:?}"
        );
    }

    /// The oldest transaction is committed. Its effects are no longer kept.
    pub(crate) fn commit_transaction(&mut self) -> SentTransaction {
        let deadline = self.uptime + Duration::from_secs(70);
        while self.transactions.is_empty() {
            assert!(self.uptime < deadline, "no transaction begins");
            self.wait(STEP);
        }
        let transaction = self.transactions.remove(0);
        self.kept.retain(|kept| {
            let claim = transaction.claims.iter().find(|claim| claim.ownership == kept.event.ownership);
            claim.is_none_or(|claim| kept.number > claim.through)
        });
        for entry in &transaction.entries {
            self.give(Input::Committed { id: transaction.id, partition: entry.partition });
        }
        transaction
    }

    /// The lookup of a start returns this commit and these bounds of the log.
    pub(crate) fn found_at(
        &mut self,
        partition: Partition,
        (offset, metadata): (i64, &[u8]),
        (log_start, log_end): (i64, i64),
    ) {
        let committed = Some(CommittedStart { offset, metadata });
        let start = PartitionStart { committed, log_start, log_end: Some(log_end), ..start() };
        self.give(Input::StartResolved { partition, start });
    }

    /// The oldest commit is rejected as a whole.
    pub(crate) fn reject_commit(&mut self, why: CommitError) -> SentCommit {
        let commit = self.commit();
        for entry in &commit.entries {
            self.give(Input::CommitFailed { id: commit.id, partition: entry.partition, why });
        }
        commit
    }

    /// The oldest commit; waits for one.
    pub(crate) fn commit(&mut self) -> SentCommit {
        let deadline = self.uptime + Duration::from_secs(70);
        while self.commits.is_empty() {
            assert!(self.uptime < deadline, "no commit is sent");
            self.wait(STEP);
        }
        self.commits.remove(0)
    }

    /// The number of events that the core keeps.
    pub(crate) fn kept_slots(&self) -> usize {
        self.slots.len()
    }

    /// The oldest call in flight.
    pub(crate) fn call(&self) -> &Dispatched {
        self.calls.first().expect("a call is in flight")
    }

    /// The one call that was cancelled.
    pub(crate) fn cancelled_call(&self) -> CallId {
        assert_eq!(self.cancelled.len(), 1);
        *self.cancelled.first().expect("counted above")
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.names.iter().filter(|seen| *seen == name).count()
    }

    fn take_dead_letter(&mut self, dead_letter: FailedEvent) {
        let slot = dead_letter.event.arena_slot;
        assert!(self.slots.contains(&slot.0), "{dead_letter:?} was released before");
        self.dead_letters.push(dead_letter);
    }

    fn keep_effects(&mut self, effects: &[KeptEffects]) {
        for effect in effects {
            let slot = effect.event.arena_slot;
            assert!(self.slots.contains(&slot.0), "{effect:?} was released before");
            assert!(self.kept.last().is_none_or(|last| last.number < effect.number), "{effect:?}");
            self.kept.push(*effect);
        }
    }

    fn take_call(&mut self, call: &Dispatch<'_>) {
        for row in call.rows {
            assert!(self.slots.contains(&row.arena_slot.0), "{row:?} was released before");
        }
        let rows = call.rows.iter().map(|row| (row.partition, row.offset)).collect();
        let (lanes, last_attempt) = (call.lane_lengths.to_vec(), call.last_attempt);
        let (attempt, fresh) = (call.attempt, call.fresh);
        self.calls.push(Dispatched { id: call.call, rows, lanes, attempt, last_attempt, fresh });
    }

    fn take(&mut self, action: Action<'_>) {
        let name = format!("{action:?}");
        self.names.push(name.split([' ', '(']).next().unwrap_or_default().to_owned());
        match action {
            Action::LookUpStart { partition } => self.lookups.push(partition),
            Action::AnswerAssign { starts, .. } => {
                self.assigned.push(starts.iter().map(|start| start.partition).collect());
            }
            Action::AnswerRevoke { partitions, .. } => self.revoked.push(partitions.to_vec()),
            Action::Reposition { partition, offset } => self.repositions.push((partition, offset)),
            Action::Reassign { partition, offset } => self.reassigned.push((partition, offset)),
            Action::PermitRead { partition, max_events, max_bytes } => {
                assert!(max_events > 0 && max_bytes > 0, "a read without events or bytes");
                self.reads.push(partition);
            }
            Action::Dispatch(call) => self.take_call(&call),
            Action::Cancel { call } => {
                self.calls.retain(|known| known.id != call);
                self.cancelled.push(call);
            }
            Action::ReleaseRows { slots } => {
                for arena_slot in slots {
                    assert!(self.slots.remove(&arena_slot.0), "{arena_slot:?} was released before");
                }
            }
            Action::Produce { call, rows } => {
                assert!(!rows.is_empty(), "a produce request without rows");
                assert!(self.produced.iter().all(|(known, _)| *known != call), "{call:?} is produced twice");
                self.produced.push((call, rows.to_vec()));
            }
            Action::DropOutputs { call, first, end } => self.dropped.push((call, first..end)),
            Action::DeadLetter(dead_letter) => self.take_dead_letter(dead_letter),
            Action::StopHandler { partition, offset, reason, .. } => {
                self.stops.push((partition, offset, reason))
            }
            Action::Commit { id, entries, metadata } => {
                let sets = entries.iter().map(|entry| set_of(entry, metadata)).collect();
                self.commits.push(SentCommit { id, entries: entries.to_vec(), sets, at: self.uptime });
            }
            Action::PartitionStopped { partition, offset, reason } => {
                self.partition_stops.push((partition, offset, reason));
            }
            Action::KeepEffects { effects } => self.keep_effects(effects),
            Action::DropEffects { ownership } => {
                self.kept.retain(|effect| effect.event.ownership != ownership);
            }
            Action::RequestLogEnds { partitions } => self.end_requests.extend(partitions),
            Action::LookUpKey { request, key, .. } => self.key_lookups.push((request, key.0)),
            Action::RememberKeys { changes } => self.remember(changes),
            Action::ForgetStates { partition, number } => self.forgotten.push((partition, number.0)),
            Action::BeginTransaction { id, entries, claims, metadata } => {
                self.transactions.push(SentTransaction::new(id, (entries, claims), metadata, self.uptime));
            }
            Action::ReportStall(stall) => self.stalls.push(stall),
            Action::StallEnded { partition, .. } => self.stalls_ended.push(partition),
            Action::Notice(notice) => self.notices.push(notice),
            Action::Drained { clean, unterminated_calls } => {
                self.drained = Some(clean);
                self.unterminated_calls = unterminated_calls;
            }
            Action::WithdrawRead { .. }
            | Action::AllStopped
            | Action::EndReached
            | Action::CallStuck { .. } => {}
        }
    }
}

/// A log of 1,000,000 records, without a commit.
pub(crate) fn start() -> PartitionStart<'static> {
    PartitionStart { committed: None, fallback: 0, log_start: 0, log_end: Some(1_000_000), topic_id: [0; 16] }
}
