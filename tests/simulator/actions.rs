//! The actions of a core, and the function that carries out each.

use keylane_core::{Action, ArenaSlot, BlockedOn, Notice, PartitionStop};

use super::plan::{MS, SECOND};
use super::trace::Seen;
use super::transactions::Coverage;
use super::world::{Event, Stage, World};

impl World {
    pub(crate) fn act(&mut self, p: usize, action: Action<'_>) {
        match action {
            Action::LookUpStart { partition } => {
                let index = self.index(partition);
                self.close_session(p, index);
                self.planted_end(p, index);
                self.look_up_soon(p, index);
            }
            Action::AnswerAssign { request, starts } => self.answer_assign(p, request, starts),
            Action::AnswerRevoke { request, partitions } => self.answer_revoke(p, request, partitions),
            Action::Reposition { partition, offset } => self.reposition(p, partition, offset),
            Action::Reassign { partition, offset } => self.reassign(p, partition, offset),
            Action::PermitRead { partition, max_events, max_bytes } => {
                self.permit(p, partition, max_events, max_bytes);
            }
            Action::WithdrawRead { partition } => self.withdraw_read(p, partition),
            Action::Dispatch(dispatch) => self.dispatch(p, &dispatch),
            Action::Cancel { call } => self.cancel(p, call),
            Action::ReleaseRows { slots } => self.release_rows(p, slots),
            Action::Produce { call, rows } => self.produce(p, call, rows),
            Action::DropOutputs { call, first, end } => self.drop_outputs(p, call, first, end),
            Action::DeadLetter(dead_letter) => self.dead_letter(p, &dead_letter),
            Action::Commit { id, entries, metadata } => self.commit(p, id, entries, metadata),
            Action::KeepEffects { effects } => self.keep_effects(p, effects),
            Action::RequestLogEnds { partitions } => self.request_log_ends(p, partitions),
            Action::LookUpKey { request, partition, ownership, key, arena_slot } => {
                self.look_up_key(p, (request, key), (partition, ownership), arena_slot);
            }
            Action::RememberKeys { changes } => self.remember_keys(p, changes),
            Action::DropEffects { ownership } => self.drop_effects(p, ownership),
            Action::ForgetStates { partition, number } => self.forget_states(p, partition, number),
            Action::BeginTransaction { id, entries, claims, metadata } => {
                self.begin_transaction(p, id, entries, claims, metadata);
            }
            Action::ReportStall(stall) => {
                self.saw(Seen::Stalls);
                let index = self.index(stall.partition);
                if let BlockedOn::ReadFailed(_) = stall.blocked_on {
                    self.saw(Seen::ReadStalls);
                }
                self.note(p, "stall", Some(index), stall.offset.unwrap_or(-1), i64::from(stall.attempt));
            }
            Action::StallEnded { .. } => {}
            Action::Notice(notice) => self.notice(p, notice),
            Action::PartitionStopped { partition, offset, reason } => {
                let index = self.index(partition);
                self.partition_stopped(p, index, offset);
                match reason {
                    PartitionStop::UnreadableSet => self.accept_offset(index),
                    PartitionStop::UnusableState => self.call_operator_to_repair(),
                    PartitionStop::OutOfRange | PartitionStop::OtherTopic | PartitionStop::OutputRefused => {}
                    PartitionStop::Gap => self.saw(Seen::GatesStopped),
                }
            }
            Action::StopHandler { partition, offset, .. } => {
                let index = self.index(partition);
                self.stop_handler(p, index, offset);
            }
            Action::AllStopped => self.all_stopped(p),
            Action::EndReached => self.end_reached(p),
            Action::Drained { clean, .. } => self.drained(p, clean),
            Action::CallStuck { .. } => self.call_stuck(p),
        }
    }

    fn release_rows(&mut self, p: usize, slots: &[ArenaSlot]) {
        for &arena_slot in slots {
            match self.processes[p].release(arena_slot) {
                Some((index, offset)) => {
                    self.note(p, "release", Some(index), offset, 0);
                    self.release_gated(p, arena_slot, offset);
                }
                None => {
                    let text = format!("process {p} releases {arena_slot:?}, which is empty");
                    self.report_violation("I-slots", text, None, -1);
                }
            }
        }
    }

    fn notice(&mut self, p: usize, notice: Notice) {
        match notice {
            Notice::OwnershipStarted { partition, ownership, offset, claimed } => {
                let index = self.index(partition);
                self.processes[p].parts[index].ownership = Some(ownership.0);
                self.note(p, "ownership", Some(index), offset, ownership.0 as i64);
                self.begin_session(p, index, ownership.0);
                self.begin_gates(p, index, (ownership.0, offset));
                if claimed > 0 {
                    self.saw(Seen::SetsApplied);
                }
            }
            Notice::OwnershipEnded { partition, ownership, .. } => {
                let index = self.index(partition);
                self.note(p, "ownership ended", Some(index), -1, ownership.0 as i64);
                self.processes[p].ended.insert(ownership.0);
                self.end_session(p, index, ownership.0);
                self.end_gates(p, index, ownership.0);
                self.check_dropped(p, ownership.0);
                self.check_dropped_effects(p, ownership.0);
            }
            Notice::MetadataIgnored { partition } => {
                self.saw(Seen::SetsIgnored);
                let (index, transactional) = (self.index(partition), self.is_transactional());
                self.processes[p].parts[index].claimed = Coverage::default();
                self.require(!transactional, "T2 claims grow", index, -1, || {
                    format!("process {p} ignores a completed set")
                });
            }
            Notice::TopicRecreated { .. } => self.saw(Seen::TopicsReplaced),
            Notice::Skipped { partition, offset, call, reason, .. } => {
                let index = self.index(partition);
                self.record_skipped(p, index, offset);
                self.skip_gated(p, index, offset, (call, reason));
            }
            Notice::GapClosed(gap) => self.gap_closed(p, gap),
            Notice::PassedOver { partition, offset } => {
                let index = self.index(partition);
                // A simulation is shorter.
                self.require(false, "I-step", index, offset, || {
                    format!("process {p} passes over {partition}")
                });
            }
            Notice::OffsetsSkipped { .. }
            | Notice::Repositioned { .. }
            | Notice::ReadingPaused { .. }
            | Notice::ReadingResumed { .. }
            | Notice::StaleRedrive { .. }
            | Notice::EarlyAtEnd(_)
            | Notice::MetadataLimitLowered { .. } => {}
        }
    }

    fn partition_stopped(&mut self, p: usize, index: usize, offset: i64) {
        self.saw(Seen::PartitionsStopped);
        self.note(p, "partition stopped", Some(index), offset, 0);
        self.processes[p].parts[index].stopped = true;
        if self.stage != Stage::Faults || self.rng.percent(50) {
            // An operator restarts the process.
            let delay = self.rng.range(SECOND, 4 * SECOND);
            self.after(delay, Event::Drain(p));
        }
    }

    /// All partitions of the process have stopped, so only a restart helps.
    fn all_stopped(&mut self, p: usize) {
        self.note(p, "all stopped", None, -1, 0);
        let stopped = self.processes[p].parts.iter().filter(|part| part.owned).all(|part| part.stopped);
        if !stopped {
            self.report_violation(
                "I-protocol",
                format!("process {p} stops although some of its partitions run"),
                None,
                -1,
            );
        }
        self.after(MS, Event::Drain(p));
    }

    fn stop_handler(&mut self, p: usize, index: usize, offset: i64) {
        self.saw(Seen::HandlersStopped);
        self.note(p, "handler stops", Some(index), offset, 0);
        self.processes[p].stopping = true;
        self.after(MS, Event::Drain(p));
    }

    /// Everything up to the ends is committed, and no rebalance is in progress. The process is
    /// done.
    fn end_reached(&mut self, p: usize) {
        self.saw(Seen::EndsReached);
        self.note(p, "end reached", None, -1, 0);
        let process = &self.processes[p];
        let valid = self.plan.until_end && process.outstanding.is_none();
        let behind = (0..self.logs.len()).find(|&index| {
            let stored = self.stored[index].as_ref().map_or(-1, |stored| stored.offset);
            let stored = self.decided_offset(index).unwrap_or(stored);
            // A commit that was applied late has moved the offset back. This process could not
            // notice it.
            let late = self.stored[index].as_ref().is_some_and(|stored| stored.late || stored.after_late);
            let late = late || self.logs[index].offsets_reset;
            process.parts[index].owned && !late && process.ends[index].is_none_or(|end| stored < end)
        });
        if !valid || behind.is_some() {
            let text = format!("process {p} reports that it reached its end; {behind:?} is not committed");
            self.report_violation("I-end", text, behind, -1);
        }
        self.after(MS, Event::Drain(p));
    }

    fn leave_group(&mut self, p: usize) {
        self.abort_at_exit(p);
        let process = &mut self.processes[p];
        process.left = true;
        process.controls.clear();
        process.outstanding = None;
        for part in &mut process.parts {
            part.reader = None;
        }
        self.leave(p);
    }

    fn drained(&mut self, p: usize, clean: bool) {
        self.saw(Seen::Drains);
        self.note(p, "drained", None, -1, i64::from(clean));
        let process = &self.processes[p];
        if !process.draining || process.left {
            self.report_violation(
                "I-protocol",
                format!("process {p} reports drained without a drain"),
                None,
                -1,
            );
        }
        self.leave_group(p);
        if !clean && self.processes[p].expects_clean {
            let text = format!("process {p} did not drain cleanly in a simulation without faults");
            self.report_violation("I11 drained", text, None, -1);
        }
        self.end_process(p);
    }

    /// In the simulation, every cancelled call ends, however long its process was paused.
    fn call_stuck(&mut self, p: usize) {
        self.report_violation("I-protocol", format!("process {p} reports a stuck call"), None, -1);
    }
}
