//! Look-ups of starts, and the responses to rebalances.

use keylane_core::codec::{self, Identity};
use keylane_core::{CommittedStart, Input, OutOfRange, Partition, PartitionStart, RebalanceId, StartAt};

use super::plan::{Class, MS, Micros, SECOND};
use super::planted::Planted;
use super::process::{Control, Outstanding, Reader};
use super::trace::Seen;
use super::world::{Event, World};

/// The epoch of the partition, and the number of the look-up.
pub(crate) type LookUpId = (u32, u64);

#[derive(Clone, Debug)]
pub(crate) enum LookUpAnswer {
    Failed,
    /// A transaction that contains the partition is undecided.
    TransactionOpen,
    Found(Found),
}

/// The response of the brokers to a look-up.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    committed: Option<(i64, Vec<u8>)>,
    log_start: i64,
    log_end: Option<i64>,
    pub(crate) topic_id: [u8; 16],
    incarnation: u32,
}

impl World {
    pub(crate) fn look_up_soon(&mut self, p: usize, index: usize) {
        let id = (self.processes[p].parts[index].epoch, self.next_lookup(p, index));
        let delay = self.rng.range(1, 10) * MS;
        self.after(delay, Event::Lookup(p, index, id));
    }

    pub(crate) fn look_up(&mut self, p: usize, index: usize, id: LookUpId) {
        let mut delay = self.rng.range(1, 10) * MS;
        if self.occurs(Class::LookUpSlow, 20) {
            delay += self.rng.range(SECOND, 9 * SECOND);
        }
        if self.occurs(Class::LookUpFails, 20) {
            self.after(delay, Event::LookedUp(p, index, id, LookUpAnswer::Failed));
            return;
        }
        if self.is_unstable(index) {
            self.after(delay, Event::LookedUp(p, index, id, LookUpAnswer::TransactionOpen));
            return;
        }
        let log = &self.logs[index];
        let (log_start, log_end, topic_id, incarnation) = (log.start, log.end, log.topic_id, log.incarnation);
        let committed = self.stored[index].as_ref().map(|stored| (stored.offset, stored.metadata.clone()));
        let mut found = Found { committed, log_start, log_end: Some(log_end), topic_id, incarnation };
        if self.occurs(Class::LogEndUnknown, 30) {
            self.saw(Seen::LogEndsUnknown);
            found.log_end = None;
        }
        self.after(delay, Event::LookedUp(p, index, id, LookUpAnswer::Found(found)));
    }

    pub(crate) fn looked_up(&mut self, p: usize, index: usize, id: LookUpId, answer: LookUpAnswer) {
        let part = &self.processes[p].parts[index];
        let (epoch, lookup) = id;
        if !part.owned || part.epoch != epoch || !self.is_last_lookup(p, index, lookup) {
            return; // the shell distinguishes look-ups of different ownerships
        }
        let partition = self.logs[index].partition;
        let mut found = match answer {
            LookUpAnswer::Found(found) => found,
            LookUpAnswer::TransactionOpen => {
                self.note(p, "transaction open", Some(index), -1, 0);
                return self.feed(p, Input::LookupFailed { partition, transaction_open: true });
            }
            LookUpAnswer::Failed => {
                self.saw(Seen::LookUpsFailed);
                self.note(p, "look-up failed", Some(index), -1, 0);
                let transaction_open = self.rng.percent(50);
                return self.feed(p, Input::LookupFailed { partition, transaction_open });
            }
        };
        if part.ownership.is_none() || self.is_transactional() {
            let of_log = |(offset, metadata): &&(i64, Vec<u8>)| {
                !codec::is_of_another_topic(metadata, &self.identity(index, *offset))
            };
            let floor = found.committed.as_ref().filter(of_log).map(|&(offset, _)| offset);
            let part = &mut self.processes[p].parts[index];
            part.floor = floor;
            part.incarnation = found.incarnation;
        }
        if self.processes[p].outstanding.is_none() {
            self.saw(Seen::LookUpsLate);
        }
        let committed = found.committed.clone();
        self.record_known(p, index, &mut found.committed);
        self.ignore_set(&mut found);
        self.waive_skipped_outcomes(p, index, &found);
        self.claim_base(index, &mut found);
        self.forget_topic_id(index, &mut found);
        if self.is_keyed() {
            self.begin_restore(p, index, committed, found);
        } else {
            self.resolve_start(p, index, &found);
        }
    }

    pub(crate) fn resolve_start(&mut self, p: usize, index: usize, found: &Found) {
        let partition = self.logs[index].partition;
        let at = found.committed.as_ref().map_or(-1, |&(offset, _)| offset);
        self.note(p, "looked up", Some(index), at, found.log_end.unwrap_or(-1));
        let committed =
            found.committed.as_ref().map(|(offset, metadata)| CommittedStart { offset: *offset, metadata });
        let start = PartitionStart {
            committed,
            fallback: found.log_start,
            log_start: found.log_start,
            log_end: found.log_end,
            topic_id: found.topic_id,
        };
        self.report_end(p, index);
        self.record_claimed(p, index, found);
        self.feed(p, Input::StartResolved { partition, start });
    }

    /// With gates: the events that the completed set claims are not admitted.
    fn record_claimed(&mut self, p: usize, index: usize, found: &Found) {
        let claimed = found.committed.as_ref().filter(|(offset, metadata)| {
            self.is_gated() && !codec::is_of_another_topic(metadata, &self.identity(index, *offset))
        });
        let claimed = claimed.and_then(|(offset, metadata)| self.coverage(index, *offset, metadata));
        self.processes[p].parts[index].claimed = claimed.unwrap_or_default();
    }

    /// Under `--until-end`, reports the end once per process and partition, before the first row.
    fn report_end(&mut self, p: usize, index: usize) {
        let (partition, end) = (self.logs[index].partition, self.logs[index].end);
        if self.plan.until_end && self.processes[p].ends[index].is_none() {
            self.processes[p].ends[index] = Some(end);
            self.feed(p, Input::EndKnown { partition, offset: end });
        }
    }

    /// `out_of_range` may skip the records that are now in the log.
    fn waive_skipped_outcomes(&mut self, p: usize, index: usize, found: &Found) {
        let outside = found.committed.as_ref().is_some_and(|(offset, metadata)| {
            let identity = Identity { topic_id: found.topic_id, ..self.identity(index, *offset) };
            *offset < found.log_start || codec::is_of_another_topic(metadata, &identity)
        });
        if let Some(end) = found.log_end
            && outside
            && self.processes[p].out_of_range == OutOfRange::Latest
        {
            self.logs[index].waive_outcomes(i64::MIN, end);
        }
    }

    /// A planted bug: without the end of the log, the completed set is ignored.
    fn ignore_set(&mut self, found: &mut Found) {
        if self.planted == Some(Planted::SetIgnored)
            && self.is_transactional()
            && found.log_end.is_none()
            && let Some((_, metadata)) = &mut found.committed
        {
            metadata.clear();
        }
    }

    fn claim_base(&mut self, index: usize, found: &mut Found) {
        if self.planted == Some(Planted::ClaimBase)
            && let Some((offset, metadata)) = &mut found.committed
            && codec::decode(metadata, &self.identity(index, *offset), i64::MAX).is_none()
        {
            *offset += 1;
            metadata.clear();
        }
    }

    /// A planted bug: commits do not contain the topic id.
    fn forget_topic_id(&mut self, index: usize, found: &mut Found) {
        if self.planted == Some(Planted::ForgetTopicIds)
            && let Some((offset, metadata)) = &mut found.committed
            && codec::is_of_another_topic(metadata, &self.identity(index, *offset))
        {
            metadata.clear();
        }
    }

    pub(crate) fn identity(&self, index: usize, offset: i64) -> Identity {
        let log = &self.logs[index];
        Identity { topic_id: log.topic_id, partition: log.partition.number, offset }
    }

    /// Takes the request that an answer names. An answer to an earlier request has no effect.
    fn take_request(&mut self, p: usize, request: RebalanceId) -> Option<Outstanding> {
        let outstanding = self.processes[p].outstanding.take_if(|outstanding| outstanding.id == request);
        if outstanding.is_none() {
            self.saw(Seen::AnswersTooLate);
        }
        outstanding
    }

    pub(crate) fn answer_assign(&mut self, p: usize, request: Option<RebalanceId>, starts: &[StartAt]) {
        let indexes: Vec<_> = starts.iter().map(|start| self.index(start.partition)).collect();
        match request {
            Some(request) => {
                let Some(outstanding) = self.take_request(p, request) else { return };
                self.check_answered_assign(p, &outstanding, &indexes);
            }
            None => self.check_late_assign(p, &indexes),
        }
        for (start, index) in starts.iter().zip(indexes) {
            self.begin_reading(p, index, start.offset);
        }
        for index in 0..self.logs.len() {
            self.wake_reader(p, index);
        }
    }

    fn check_answered_assign(&mut self, p: usize, outstanding: &Outstanding, indexes: &[usize]) {
        let Control::Assign(list) = &outstanding.control else {
            let text = format!("process {p} assigns {indexes:?} as an answer to {:?}", outstanding.control);
            self.report_violation("I-answer", text, indexes.first().copied(), -1);
            return;
        };
        if let Some(&late) = indexes.iter().find(|index| !list.contains(index)) {
            let text = format!("process {p} adds {late} with its answer to an assign of {list:?}");
            self.report_violation("I-answer", text, Some(late), -1);
        }
        self.check_answer_time(p, outstanding.since, 6 * SECOND);
        self.processes[p].assigned_at = self.now;
        self.move_readers(p);
        self.control_soon(p);
    }

    fn check_late_assign(&mut self, p: usize, indexes: &[usize]) {
        if let Some(outstanding) = &self.processes[p].outstanding {
            let text =
                format!("process {p} assigns {indexes:?} while {:?} is unanswered", outstanding.control);
            self.report_violation("I-answer", text, indexes.first().copied(), -1);
        } else if indexes.is_empty() {
            self.report_violation(
                "I-answer",
                format!("process {p} answers an assign without partitions"),
                None,
                -1,
            );
        }
    }

    fn begin_reading(&mut self, p: usize, index: usize, offset: i64) {
        self.note(p, "reads from", Some(index), offset, 0);
        let part = &mut self.processes[p].parts[index];
        let fresh = part.owned && part.reader.is_none();
        part.reader = Some(Reader::new(offset));
        self.require(fresh, "I10 own partitions only", index, offset, || {
            format!("process {p} begins to read {index}, which it does not own or reads already")
        });
    }

    pub(crate) fn answer_revoke(&mut self, p: usize, request: RebalanceId, partitions: &[Partition]) {
        let mut answered: Vec<_> = partitions.iter().map(|&partition| self.index(partition)).collect();
        answered.sort_unstable();
        let Some(Outstanding { control, since, .. }) = self.take_request(p, request) else { return };
        let (list, lost) = match control {
            Control::Revoke(list) => (list, false),
            Control::Lost(list) => (list, true),
            Control::Assign(list) => {
                self.report_violation(
                    "I-answer",
                    format!("process {p} answers the assign of {list:?} with a revoke"),
                    None,
                    -1,
                );
                return;
            }
        };
        if answered != list {
            let text = format!("process {p} must release {list:?} and releases {answered:?}");
            self.report_violation("I-answer", text, list.first().copied(), -1);
        }
        // A revoke may wait for calls and acks, then for the commit and the cancelled calls.
        self.check_answer_time(p, since, if lost { 0 } else { 4 * SECOND });
        for &index in &list {
            self.note(p, "released", Some(index), -1, 0);
            if !lost {
                self.check_cancelled(p, index);
            }
            self.processes[p].release_partition(index);
            if !lost && self.group.owner[index] == Some(p) {
                self.group.owner[index] = None;
            }
        }
        self.move_readers(p);
        for index in 0..self.logs.len() {
            self.wake_reader(p, index);
        }
        if lost {
            self.after(10 * MS, Event::Join(p));
        } else if self.group.members.contains(&p) {
            self.rejoined(p);
        }
        self.control_soon(p);
    }

    /// A partition is not released while a cancelled call of it may still run, unless its deadline has passed.
    fn check_cancelled(&mut self, p: usize, index: usize) {
        let limit = self.plan.config.commit_timeout.as_micros() as Micros;
        let epoch = self.processes[p].parts[index].epoch;
        let runs = self.processes[p].calls.values().filter(|call| !call.ended).find(|call| {
            let affected = call.rows.iter().any(|row| (row.partition, row.epoch) == (index, epoch));
            affected && call.cancelled.is_some_and(|at| at + limit > self.now)
        });
        if let Some(offset) = runs.map(|call| call.rows[0].offset) {
            let text = format!("process {p} releases {index} while a cancelled call of it still runs");
            self.report_violation("I6 quiet after ownership", text, Some(index), offset);
        }
    }

    fn check_answer_time(&mut self, p: usize, since: Micros, limit: Micros) {
        let took = self.now - since;
        // A paused process answers later.
        if took > limit && !self.processes[p].paused_since(since) {
            self.report_violation("I-answer", format!("process {p} answered after {took} us"), None, -1);
        }
    }
}
