//! The transactional producer of a process: begin, produce, flush, send offsets, commit. After an attempt that was not
//! clean, the producer is replaced: late requests of the old one are refused.

use std::collections::BTreeMap;

use keylane_core::{AbortCause, CommitId};

use super::super::plan::{Class, MS, Micros, SECOND};
use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::{Event, World};
use super::Membership;
use super::requests::{Batch, Call, Entry, Produced, Reply, Request, Sender};

#[derive(Debug, Default)]
pub(crate) struct Producer {
    /// Producers that the process has made.
    pub(super) made: u64,
    /// `None`: it is not initialised.
    pub(super) epoch: Option<u32>,
    /// Calls so far, repeated ones included.
    number: u64,
    /// The call whose answer is awaited.
    awaited: Option<Awaited>,
    /// Whether every call was answered at its first try.
    clean: bool,
    /// The sequence number of the next record.
    sequence: u64,
    pub(super) attempt: Option<Attempt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Init,
    SendOffsets,
    Commit,
    Abort,
    ReadBack,
}

/// A transaction that the core has requested.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(super) id: CommitId,
    pub(crate) entries: Vec<Entry>,
    pub(super) records: Vec<Produced>,
    /// Per partition: one past the offset of its binding record, if it was reported.
    pub(crate) changelog_ends: BTreeMap<usize, i64>,
    /// The group metadata of the snapshot.
    pub(super) membership: Membership,
    pub(crate) begun_at: Micros,
    /// Batches that are not stored: the sequence number of the first record, and the records.
    pub(super) batches: Vec<Option<(u64, Vec<Produced>)>>,
    pub(super) state: State,
    pub(super) commit_called: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The producer is not initialised.
    Waiting,
    Producing,
    SendingOffsets,
    Committing,
    /// It failed, and ends when nothing of it can take effect later.
    Failed(AbortCause),
}

impl Producer {
    pub(super) fn is_commit_called(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.commit_called)
    }

    /// No answer is awaited any more.
    pub(super) fn finish_call(&mut self) {
        self.awaited = None;
    }
}

/// What happens to a producer next.
#[derive(Debug)]
pub(crate) enum Step {
    Begin,
    Answered {
        producer: u64,
        number: u64,
        reply: Reply,
    },
    TimedOut {
        producer: u64,
        number: u64,
    },
    Repeat {
        producer: u64,
        number: u64,
    },
    Stored {
        producer: u64,
        batch: Batch,
        reply: Reply,
    },
    /// `repeats`: if there is no answer, the batch is sent again, as often as necessary.
    ProduceAgain {
        producer: u64,
        batch: Batch,
        repeats: bool,
    },
    FlushTimedOut {
        producer: u64,
        id: CommitId,
    },
    /// A partition is no longer excluded.
    Include(usize),
}

impl World {
    /// The first assign makes the producer: transactions that a process with this name left open are aborted.
    pub(crate) fn make_producer(&mut self, p: usize) {
        if self.is_transactional() && self.processes[p].shell.producer.made == 0 {
            self.replace_producer(p);
        }
    }

    pub(super) fn replace_producer(&mut self, p: usize) {
        let producer = &mut self.processes[p].shell.producer;
        producer.made += 1;
        (producer.epoch, producer.sequence, producer.clean) = (None, 0, true);
        if producer.made > 1 {
            self.saw(Seen::ProducersReplaced);
        }
        self.call(p, Awaited::Init);
    }

    pub(crate) fn step(&mut self, p: usize, step: Step) {
        if self.occurs(Class::Kill, 1) && self.rng.percent(20) {
            self.saw(Seen::KillsInTransactions);
            return self.die(p);
        }
        let made = self.processes[p].shell.producer.made;
        let number = self.processes[p].shell.producer.number;
        match step {
            Step::Begin if made == 0 => self.replace_producer(p),
            Step::Begin => self.begin(p),
            Step::Answered { producer, number: of, reply } => {
                if (producer, of) == (made, number) {
                    self.answered(p, reply);
                }
            }
            Step::TimedOut { producer, number: of } => {
                if (producer, of) == (made, number) {
                    self.answered(p, Reply::TimedOut);
                }
            }
            Step::Repeat { producer, number: of } => {
                let awaited = self.processes[p].shell.producer.awaited;
                if let Some(awaited) = awaited.filter(|_| (producer, of) == (made, number)) {
                    self.call(p, awaited);
                }
            }
            Step::Stored { producer, batch, reply } => {
                if producer == made {
                    self.stored(p, batch, &reply);
                }
            }
            Step::ProduceAgain { producer, batch, repeats } => {
                if producer == made {
                    self.produce_again(p, batch, repeats);
                }
            }
            Step::Include(index) => self.include(p, index),
            Step::FlushTimedOut { producer, id } => {
                if producer == made && self.is_in_state(p, id, State::Producing) {
                    self.fail(p, AbortCause::TooSlow, self.planted == Some(Planted::ProducerKept));
                }
            }
        }
    }

    fn is_in_state(&self, p: usize, id: CommitId, state: State) -> bool {
        let attempt = &self.processes[p].shell.producer.attempt;
        attempt.as_ref().is_some_and(|attempt| attempt.id == id && attempt.state == state)
    }

    fn set_state(&mut self, p: usize, state: State) {
        if let Some(attempt) = &mut self.processes[p].shell.producer.attempt {
            attempt.state = state;
        }
    }

    pub(super) fn sender(&self, p: usize) -> Sender {
        let Producer { made, epoch, number, .. } = self.processes[p].shell.producer;
        let name = if self.plan.named_producers { self.processes[p].instance } else { 10_000 + p };
        Sender { process: p, producer: made, name, epoch: epoch.unwrap_or(0), number }
    }

    /// Sends a call, and waits for its answer for a limited time.
    fn call(&mut self, p: usize, awaited: Awaited) {
        let producer = &mut self.processes[p].shell.producer;
        producer.number += 1;
        producer.awaited = Some(awaited);
        let (made, number) = (producer.made, producer.number);
        let entries = producer.attempt.as_ref().map_or_else(Vec::new, |attempt| attempt.entries.clone());
        let (what, limit) = match awaited {
            Awaited::Init => (Call::Init, 2 * SECOND),
            Awaited::SendOffsets => {
                let membership = self.membership_to_send(p);
                (Call::SendOffsets { entries, membership }, 5 * SECOND)
            }
            Awaited::Commit => (Call::Commit, SECOND),
            Awaited::Abort => (Call::Abort, SECOND),
            Awaited::ReadBack => {
                let partitions = entries.iter().map(|entry| entry.partition).collect();
                (Call::ReadBack { partitions }, SECOND)
            }
        };
        let from = self.sender(p);
        self.send_request(Request { from, what });
        self.after(limit, Event::Producer(p, Step::TimedOut { producer: made, number }));
    }

    /// The group metadata of the snapshot, or a newer one if every ownership of the snapshot is still open.
    fn membership_to_send(&mut self, p: usize) -> Membership {
        let Some(attempt) = &self.processes[p].shell.producer.attempt else { return Membership::default() };
        let snapshot = attempt.membership;
        let open = attempt.entries.iter().all(|entry| self.is_own(p, entry));
        let refreshed = (open && self.rng.percent(50)) || self.planted == Some(Planted::LossUnheard);
        if refreshed { self.membership(p) } else { snapshot }
    }

    /// Whether the ownership of an entry is still open.
    pub(super) fn is_own(&self, p: usize, entry: &Entry) -> bool {
        let part = &self.processes[p].parts[entry.partition];
        part.owned && part.ownership == Some(entry.ownership)
    }

    fn begin(&mut self, p: usize) {
        let producer = &self.processes[p].shell.producer;
        let waits = producer.attempt.as_ref().is_some_and(|attempt| attempt.state == State::Waiting);
        if producer.epoch.is_none() || !waits {
            return; // the answer to `init` begins it, or has begun it
        }
        if self.is_refused(p) {
            return;
        }
        self.planted_prefix(p);
        let pieces = self.rng.range(1, 3) as usize;
        let timeout = self.transaction_timeout();
        let now = self.now;
        let producer = &mut self.processes[p].shell.producer;
        let made = producer.made;
        let Some(attempt) = &mut producer.attempt else { return };
        attempt.state = State::Producing;
        attempt.begun_at = now;
        let length = attempt.records.len().div_ceil(pieces).max(1);
        attempt.batches.clear();
        for batch in attempt.records.chunks(length) {
            attempt.batches.push(Some((producer.sequence, batch.to_vec())));
            producer.sequence += batch.len() as u64;
        }
        let (id, batches) = (attempt.id, attempt.batches.len());
        let limit = timeout.saturating_sub(2 * SECOND).max(timeout / 2);
        self.after(limit, Event::Producer(p, Step::FlushTimedOut { producer: made, id }));
        for batch in 0..batches {
            self.produce_again(p, (id, batch), true);
        }
        self.flushed(p);
    }

    fn produce_again(&mut self, p: usize, batch: Batch, repeats: bool) {
        let from = self.sender(p);
        let (id, at) = batch;
        if !self.is_in_state(p, id, State::Producing) {
            return;
        }
        let Some(attempt) = &self.processes[p].shell.producer.attempt else { return };
        let Some((first, records)) = attempt.batches.get(at).cloned().flatten() else { return };
        self.send_request(Request { from, what: Call::Produce { batch, first, records } });
        if repeats {
            let again = Step::ProduceAgain { producer: from.producer, batch, repeats };
            self.after(4 * SECOND, Event::Producer(p, again));
        }
    }

    fn stored(&mut self, p: usize, batch: Batch, reply: &Reply) {
        let (id, at) = batch;
        if !self.is_in_state(p, id, State::Producing) {
            return;
        }
        let Some(attempt) = &mut self.processes[p].shell.producer.attempt else { return };
        match reply {
            Reply::Stored(ends) => {
                if let Some(batch) = attempt.batches.get_mut(at) {
                    *batch = None;
                }
                attempt.changelog_ends.extend(ends.iter().copied());
                self.flushed(p);
            }
            Reply::Again => {
                let producer = self.processes[p].shell.producer.made;
                let again = Step::ProduceAgain { producer, batch, repeats: false };
                self.after(20 * MS, Event::Producer(p, again));
            }
            Reply::Done
            | Reply::Initialised(_)
            | Reply::TimedOut
            | Reply::Fenced
            | Reply::Stale
            | Reply::MetadataTooLarge
            | Reply::RequestTooLarge
            | Reply::Failed
            | Reply::Offsets(_) => self.failed_fatally(p, reply),
        }
    }

    /// Sends the offsets when every record is stored.
    fn flushed(&mut self, p: usize) {
        let Some(attempt) = &mut self.processes[p].shell.producer.attempt else { return };
        if attempt.state == State::Producing && attempt.batches.iter().all(Option::is_none) {
            attempt.state = State::SendingOffsets;
            self.call(p, Awaited::SendOffsets);
        }
    }

    fn answered(&mut self, p: usize, reply: Reply) {
        let Some(awaited) = self.processes[p].shell.producer.awaited else { return };
        let kept = self.planted == Some(Planted::ProducerKept);
        match (awaited, reply) {
            (Awaited::Init, Reply::Initialised(epoch)) => self.initialised(p, epoch),
            (Awaited::Init | Awaited::ReadBack, Reply::Again | Reply::TimedOut) => self.repeat(p),
            (Awaited::ReadBack, Reply::Offsets(offsets)) => self.offsets_read_back(p, &offsets),
            (Awaited::SendOffsets, Reply::Done) => {
                self.set_state(p, State::Committing);
                if let Some(attempt) = &mut self.processes[p].shell.producer.attempt {
                    attempt.commit_called = true;
                }
                self.call(p, Awaited::Commit);
            }
            (Awaited::SendOffsets, Reply::Again) => self.repeat(p),
            (Awaited::SendOffsets, Reply::TimedOut) => self.fail(p, AbortCause::Other, kept),
            (Awaited::SendOffsets, Reply::Stale) => self.fail(p, AbortCause::Stale, true),
            (Awaited::SendOffsets, Reply::MetadataTooLarge) => {
                self.fail(p, AbortCause::MetadataTooLarge, true);
            }
            (Awaited::SendOffsets, Reply::RequestTooLarge) => self.fail(p, AbortCause::RequestTooLarge, true),
            (Awaited::Commit, Reply::Done) => self.commit_done(p),
            (Awaited::Commit, Reply::Again | Reply::TimedOut) => {
                self.saw(Seen::CommitsRepeated);
                if self.planted_decision(p) {
                    return;
                }
                self.processes[p].shell.producer.clean = kept;
                self.repeat(p);
            }
            (Awaited::Abort, Reply::Done) => {
                let producer = &mut self.processes[p].shell.producer;
                producer.awaited = None;
                let unstored = producer.attempt.iter().flat_map(|attempt| &attempt.batches).flatten();
                if let Some(first) = unstored.map(|(first, _)| *first).min() {
                    producer.sequence = first; // a client gives these numbers to the next records
                }
                self.attempt_over(p);
            }
            (_, reply) => self.failed_fatally(p, &reply),
        }
    }

    /// Sends the same call again soon.
    pub(super) fn repeat(&mut self, p: usize) {
        let Producer { made: producer, number, .. } = self.processes[p].shell.producer;
        let delay = self.rng.range(5 * MS, 100 * MS);
        self.after(delay, Event::Producer(p, Step::Repeat { producer, number }));
    }

    fn initialised(&mut self, p: usize, epoch: u32) {
        let producer = &mut self.processes[p].shell.producer;
        (producer.epoch, producer.awaited) = (Some(epoch), None);
        match producer.attempt.as_ref().map(|attempt| attempt.state) {
            Some(State::Waiting) => self.begin(p),
            Some(_) => self.attempt_over(p),
            None => {}
        }
    }

    /// An error after which the producer can't be used, or may not be used.
    fn failed_fatally(&mut self, p: usize, reply: &Reply) {
        if matches!(reply, Reply::Fenced) {
            self.saw(Seen::ProducersFenced);
            if self.stops_when_fenced(p) {
                return;
            }
        }
        if self.planted_decision(p) {
            return;
        }
        match self.processes[p].shell.producer.attempt {
            Some(_) => self.fail(p, AbortCause::Other, false),
            None => self.replace_producer(p),
        }
    }

    /// The attempt failed. `is_clean`: nothing of it can arrive later, so the producer is kept.
    pub(super) fn fail(&mut self, p: usize, why: AbortCause, is_clean: bool) {
        if let Some(attempt) = &mut self.processes[p].shell.producer.attempt
            && !matches!(attempt.state, State::Failed(_))
        {
            attempt.state = State::Failed(why);
        }
        if is_clean && self.processes[p].shell.producer.clean {
            self.call(p, Awaited::Abort);
        } else {
            self.replace_producer(p);
        }
    }

    /// Nothing of the attempt can take effect any more that has not taken effect.
    fn attempt_over(&mut self, p: usize) {
        let Some(attempt) = &self.processes[p].shell.producer.attempt else { return };
        let State::Failed(why) = attempt.state else { return };
        if attempt.commit_called {
            self.saw(Seen::CommitsAmbiguous);
            self.call(p, Awaited::ReadBack);
        } else {
            self.transaction_aborted(p, why);
        }
    }

    fn commit_done(&mut self, p: usize) {
        let clean = self.processes[p].shell.producer.clean;
        self.processes[p].shell.producer.awaited = None;
        self.transaction_committed(p);
        if !clean && self.processes[p].alive {
            self.replace_producer(p);
        }
    }
}
