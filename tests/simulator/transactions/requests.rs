//! Requests from a producer to the brokers, and how they are delayed or lost.

use keylane_core::CommitId;

use super::super::gates::NumberedChange;
use super::super::keyed::KeyRecord;
use super::super::plan::{Class, MS, SECOND};
use super::super::trace::Seen;
use super::super::world::{Event, World};
use super::Membership;
use super::kept::Effect;
use super::producer::Step;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(super) from: Sender,
    pub(super) what: Call,
}

/// The producer that sent a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) process: usize,
    /// Counts the producers of the process.
    pub(super) producer: u64,
    /// Its transactional id.
    pub(super) name: usize,
    pub(super) epoch: u32,
    /// Counts the calls of the producer: answers to earlier ones are ignored.
    pub(super) number: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Call {
    Init,
    /// One batch. `first`: the sequence number of its first record.
    Produce {
        batch: Batch,
        first: u64,
        records: Vec<Produced>,
    },
    SendOffsets {
        entries: Vec<Entry>,
        membership: Membership,
    },
    Commit,
    Abort,
    /// The stable offsets of these partitions.
    ReadBack {
        partitions: Vec<usize>,
    },
}

/// A record of a transaction.
#[derive(Clone, Debug)]
pub(super) enum Produced {
    Effect(Effect),
    Key(KeyRecord),
}

impl Produced {
    pub(super) fn as_effect(&self) -> Option<&Effect> {
        match self {
            Produced::Effect(effect) => Some(effect),
            Produced::Key(_) => None,
        }
    }
}

/// A transaction, and the position of a batch in it.
pub(super) type Batch = (CommitId, usize);

/// One partition's part of a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) partition: usize,
    pub(crate) ownership: u64,
    /// The highest number that is claimed.
    pub(crate) through: u64,
    /// The incarnation of the log that the process reads.
    pub(super) incarnation: u32,
    pub(crate) offset: i64,
    pub(crate) metadata: Vec<u8>,
    /// What the coordinator had stored before, as far as the process knows.
    pub(super) before: Option<(i64, Vec<u8>)>,
    /// With gates: the changes of their durable memory.
    pub(crate) changes: Vec<NumberedChange>,
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Done,
    /// A batch is stored. Per partition: one past the offset of its last key record, unless it had been stored before.
    Stored(Vec<(usize, i64)>),
    /// The epoch of the new producer.
    Initialised(u32),
    /// The same call may succeed soon.
    Again,
    /// There was no answer in time.
    TimedOut,
    /// Another producer has this name now, or the brokers have aborted the transaction.
    Fenced,
    /// The group coordinator does not accept the member or its generation.
    Stale,
    MetadataTooLarge,
    RequestTooLarge,
    /// Any other error.
    Failed,
    Offsets(Vec<StableOffset>),
}

#[derive(Clone, Debug)]
pub(crate) enum StableOffset {
    /// A transaction with this partition is undecided.
    Pending,
    Stored(Option<(i64, Vec<u8>)>),
}

impl World {
    /// Sends a request. It may be lost, or arrive after the producer has stopped waiting for its answer.
    pub(super) fn send_request(&mut self, request: Request) {
        let mut delay = self.rng.range(MS / 2, 8 * MS);
        if self.occurs(Class::LateRequests, 4) {
            self.saw(Seen::RequestsLate);
            delay += self.rng.range(SECOND, 8 * SECOND);
        } else if self.occurs(Class::AnswersLost, 2) {
            return;
        }
        let own = self.brokers.ids.get(&request.from.name).map_or(0, |id| id.away_until);
        let away_until = self.brokers.away_until.max(own);
        if self.now < away_until && !matches!(request.what, Call::Produce { .. }) {
            // The request may lie in the buffer of the connection until the broker is back.
            if self.rng.percent(50) {
                return;
            }
            delay += away_until - self.now;
        }
        if matches!(request.what, Call::Produce { .. }) && self.occurs(Class::SlowProduce, 8) {
            delay += self.rng.range(SECOND / 2, 9 * SECOND);
        }
        self.after(delay, Event::TransactionRequest(request));
    }

    pub(super) fn send_reply(&mut self, from: Sender, batch: Option<Batch>, reply: Reply) {
        if self.occurs(Class::AnswersLost, 4) {
            self.saw(Seen::RepliesLost);
            return;
        }
        let delay = self.rng.range(MS / 2, 5 * MS);
        let Sender { process, producer, number, .. } = from;
        let step = match batch {
            Some(batch) => Step::Stored { producer, batch, reply },
            None => Step::Answered { producer, number, reply },
        };
        self.after(delay, Event::Producer(process, step));
    }
}
