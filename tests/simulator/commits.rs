//! Commits: the requests, their effect at the coordinator, and the responses that arrive.

use keylane_core::codec;
use keylane_core::{CommitEntry, CommitError, CommitId, Input};

use super::plan::{Class, MS, SECOND};
use super::planted::Planted;
use super::trace::Seen;
use super::world::{Event, World};

/// An offset and metadata as the coordinator stores them.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) offset: i64,
    pub(crate) metadata: Vec<u8>,
    /// The position in the order of sending, across all processes.
    sent: u64,
    /// The commit was applied after its timeout, and no fence rejected it.
    pub(crate) late: bool,
    /// An earlier commit was late, and the sender of this one may have started below the offsets that others reached.
    pub(crate) after_late: bool,
}

impl Stored {
    pub(crate) fn new(offset: i64, metadata: Vec<u8>, sent: u64) -> Stored {
        Stored { offset, metadata, sent, late: false, after_late: false }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    process: usize,
    id: CommitId,
    generation: u32,
    entries: Vec<(usize, Stored)>,
}

/// A partition, the offset that was sent, and the error if it was rejected.
pub(crate) type Answer = (usize, i64, Option<CommitError>);

impl World {
    pub(crate) fn commit(&mut self, p: usize, id: CommitId, entries: &[CommitEntry], metadata: &str) {
        self.saw(Seen::Commits);
        let before = self.processes[p].commit.replace(id);
        // This planted bug reports a commit as done while it is in flight.
        let is_second = before.is_some() && self.planted != Some(Planted::RoundUncommitted);
        if is_second || entries.is_empty() {
            let text = format!(
                "process {p} sends {id:?} with {} entries while {before:?} is in flight",
                entries.len()
            );
            self.report_violation("I-protocol", text, None, -1);
        }
        let mut request =
            Request { process: p, id, generation: self.processes[p].generation, entries: Vec::new() };
        for entry in entries {
            let range = entry.metadata.0 as usize..entry.metadata.1 as usize;
            let text = metadata.get(range).unwrap_or("not a range of the metadata");
            let sent = self.trace.lines.len() as u64;
            let stored = Stored::new(entry.offset, text.into(), sent);
            let index = self.index(entry.partition);
            let stored = self.planted_commit(p, index, stored);
            self.note(p, "commit", Some(index), stored.offset, text.len() as i64);
            if entry.unclaimed > 0 {
                self.saw(Seen::SetsTruncated);
            }
            let covered = self.coverage(index, stored.offset, &stored.metadata).unwrap_or_default();
            self.explain_before_commit(p, index, &covered);
            self.check_commit(p, index, &stored);
            request.entries.push((index, stored));
        }
        if self.planted == Some(Planted::RoundUncommitted) {
            self.after(1, Event::RoundsReportedCommitted(p, id));
        }
        self.after(self.plan.config.commit_timeout.as_micros() as u64, Event::CommitTimeout(p, id));
        self.send(request);
    }

    fn planted_commit(&self, p: usize, index: usize, mut stored: Stored) -> Stored {
        let highest = self.processes[p].highest_done.get(&index);
        if self.planted == Some(Planted::CommitHighest)
            && let Some(&highest) = highest
        {
            stored.offset = stored.offset.max(highest + 1);
            stored.metadata.clear();
        }
        stored
    }

    /// Commit safety is checked when a commit is sent, because the commit may be applied.
    fn check_commit(&mut self, p: usize, index: usize, stored: &Stored) {
        let Stored { offset, metadata, .. } = stored;
        if !self.reads_current_topic(p, index) {
            self.processes[p].parts[index].floor = None;
            return; // the commit belongs to a deleted log
        }
        let part = &mut self.processes[p].parts[index];
        let (owned, floor) = (part.owned, part.floor);
        part.floor = Some(*offset);
        self.require(owned, "I10 own partitions only", index, *offset, || {
            format!("process {p} commits {offset}, but does not own the partition")
        });
        self.require(floor.is_none_or(|floor| floor <= *offset), "I9 monotone", index, *offset, || {
            format!("process {p} commits {offset} below {floor:?}")
        });
        let limit = self.plan.config.metadata_limit;
        self.require(metadata.len() <= limit, "I-limits", index, *offset, || {
            format!("process {p} commits metadata of {} characters, limit {limit}", metadata.len())
        });
        let end = self.logs[index].end;
        let claims = codec::decode(metadata, &self.identity(index, *offset), end);
        if !metadata.is_empty() {
            self.saw(Seen::SetsCommitted);
        }
        self.require(claims.is_some() && *offset <= end, "I8 commit safety", index, *offset, || {
            format!("process {p} commits {offset} with an unreadable completed set; the log ends at {end}")
        });
        self.check_claims(p, index, *offset, &claims.unwrap_or_default());
    }

    fn check_claims(&mut self, p: usize, index: usize, offset: i64, claims: &[(i64, i64)]) {
        let covered = |at: i64| at < offset || claims.iter().any(|&(from, to)| from <= at && at < to);
        let open = self.logs[index]
            .records
            .iter()
            .find(|record| record.outcomes == 0 && !record.outcome_not_required && covered(record.offset));
        if let Some(open) = open.map(|record| record.offset) {
            let text = format!("process {p} commits {offset} with {claims:?}, but {open} has no outcome");
            self.report_violation("I8 commit safety", text, Some(index), open);
        }
    }

    fn send(&mut self, request: Request) {
        if self.occurs(Class::LateCommit, 5) {
            let delay = self.rng.range(2 * SECOND, 8 * SECOND);
            self.after(delay, Event::CommitArrives(request, true));
            return;
        }
        if self.occurs(Class::CommitLoss, 10) {
            return;
        }
        let mut delay = self.rng.range(MS, 15 * MS);
        if self.occurs(Class::CommitLoss, 10) {
            // The commit is applied before its sender times out. The sender sends no other commit
            // meanwhile.
            delay += self.rng.range(SECOND, 1_900 * MS);
        }
        self.group.commits_in_flight.push(request.process);
        self.after(delay, Event::CommitArrives(request, false));
    }

    pub(crate) fn commit_arrives(&mut self, request: Request, past_fences: bool) {
        let p = request.process;
        if past_fences {
            self.saw(Seen::CommitsLate);
        } else if let Some(at) = self.group.commits_in_flight.iter().position(|&other| other == p) {
            self.group.commits_in_flight.swap_remove(at);
        }
        let member = self.group.members.contains(&p) && request.generation == self.group.generation;
        let rebalancing = self.group.rebalancing();
        let mut answers = Vec::new();
        for (index, stored) in request.entries {
            let rejection = if past_fences {
                None
            } else if !member {
                self.saw(Seen::CommitsStale);
                Some(CommitError::Stale)
            } else if rebalancing && self.occurs(Class::TryAgain, 40) {
                self.saw(Seen::CommitsTryAgain);
                Some(CommitError::TryAgain)
            } else if stored.metadata.len() > self.plan.broker_metadata_limit {
                self.saw(Seen::CommitsTooLarge);
                Some(CommitError::MetadataTooLarge)
            } else {
                None
            };
            let offset = stored.offset;
            if rejection.is_none() {
                self.apply(p, index, Stored { late: past_fences, ..stored });
            }
            answers.push((index, offset, rejection));
        }
        if past_fences || self.occurs(Class::CommitLoss, 5) {
            return; // the sender no longer waits for the response, or the response is lost
        }
        let longest = if self.occurs(Class::CommitLoss, 10) { 2 * SECOND } else { 10 * MS };
        let delay = self.rng.range(MS, longest);
        self.after(delay, Event::CommitAnswered(p, request.id, answers));
    }

    fn apply(&mut self, p: usize, index: usize, mut stored: Stored) {
        if self.is_of_another_topic(index, &stored) {
            self.saw(Seen::CommitsOfAnotherTopic);
            stored.late = true;
        }
        self.note(p, "applied", Some(index), stored.offset, i64::from(stored.late));
        if let Some(before) = &self.stored[index] {
            let (from, to) = (before.offset, stored.offset);
            stored.after_late = before.late || before.after_late;
            if before.sent > stored.sent {
                // An older commit may be overtaken by a newer one. An owner that has read the newer
                // one returns to the newer one.
                self.stored[index] = Some(Stored { late: true, ..stored });
                return;
            }
            self.require(from <= to || before.late || stored.late, "I9 monotone", index, to, || {
                format!("process {p} moved the committed offset back from {from} to {to}")
            });
        }
        self.stored[index] = Some(stored);
    }

    pub(crate) fn commit_answered(&mut self, p: usize, id: CommitId, answers: &[Answer]) {
        if self.processes[p].commit == Some(id) {
            self.processes[p].commit = None;
        } else if self.rng.percent(50) {
            return; // some shells drop a response that arrives after the timeout
        }
        for &(index, offset, rejection) in answers {
            let partition = self.logs[index].partition;
            match rejection {
                None => {
                    self.finish_retry_round(p, index, offset);
                    self.feed(p, Input::Committed { id, partition });
                }
                Some(why) => {
                    self.note(p, "commit rejected", Some(index), -1, why as i64);
                    self.feed(p, Input::CommitFailed { id, partition, why });
                }
            }
        }
    }

    /// A planted bug: a commit that a retry round waits for is reported as committed when it was only sent.
    pub(crate) fn report_rounds_committed(&mut self, p: usize, id: CommitId) {
        for index in 0..self.logs.len() {
            let ownership = self.processes[p].parts[index].ownership;
            if ownership.is_some_and(|ownership| self.processes[p].rounds.contains_key(&ownership)) {
                let partition = self.logs[index].partition;
                self.feed(p, Input::Committed { id, partition });
            }
        }
    }

    pub(crate) fn commit_timeout(&mut self, p: usize, id: CommitId) {
        if self.processes[p].commit == Some(id) {
            self.processes[p].commit = None;
            self.saw(Seen::CommitsTimedOut);
            self.note(p, "commit timed out", None, -1, id.0 as i64);
            self.feed(p, Input::CommitTimedOut { id });
        }
    }
}
