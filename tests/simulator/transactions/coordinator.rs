//! The transaction coordinator: which transactions are open, and how each is decided. An undecided transaction keeps its
//! records invisible and its offsets pending.

use super::super::plan::{Class, MS, Micros, SECOND};
use super::super::trace::Seen;
use super::super::world::{Event, World};
use super::requests::{Call, Entry, Reply, Request, Sender, StableOffset};

/// The state of one transactional id.
#[derive(Debug, Default)]
pub(super) struct TransactionalId {
    pub(super) epoch: u32,
    /// The sequence number that the next record must have.
    pub(super) next_sequence: u64,
    /// Counts its transactions.
    serial: u64,
    pub(super) open: Option<Open>,
    /// Whether the last transaction of this epoch was committed.
    last_committed: bool,
    /// Its coordinator moves: it does not respond until this time.
    pub(super) away_until: Micros,
}

/// A transaction that was begun and whose markers are not written.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) serial: u64,
    pub(super) process: usize,
    /// Whether it is committed; `None`: undecided.
    pub(super) decision: Option<bool>,
    /// Its pending offsets.
    pub(super) offsets: Vec<Entry>,
}

impl World {
    pub(crate) fn transaction_request_arrives(&mut self, request: Request) {
        let Request { from, what } = request;
        let mut batch = None;
        let reply = match what {
            Call::Init => self.initialise(from),
            Call::ReadBack { partitions } => {
                let offsets = partitions.into_iter().map(|index| self.stable_offset(index)).collect();
                Reply::Offsets(offsets)
            }
            what @ (Call::Produce { .. } | Call::SendOffsets { .. } | Call::Commit | Call::Abort) => {
                if let Call::Produce { batch: number, .. } = &what {
                    batch = Some(*number);
                }
                self.request_of_transaction(from, what)
            }
        };
        self.send_reply(from, batch, reply);
    }

    fn request_of_transaction(&mut self, from: Sender, what: Call) -> Reply {
        let id = self.brokers.ids.entry(from.name).or_default();
        if from.epoch != id.epoch {
            self.saw(Seen::RequestsFenced);
            self.note(from.process, "fenced", None, -1, from.number as i64);
            return Reply::Fenced;
        }
        let decision = id.open.as_ref().map(|open| open.decision);
        match (what, decision) {
            (Call::Produce { first, records, .. }, None | Some(None)) => self.append(from, first, records),
            (Call::SendOffsets { entries, membership }, None | Some(None)) => {
                self.add_offsets(from, entries, membership)
            }
            (Call::Commit, Some(None)) => self.commit_requested(from),
            (Call::Commit, Some(Some(true))) => Reply::Done,
            (Call::Commit, None) if id.last_committed => Reply::Done, // it was repeated
            (Call::Commit, _) => Reply::Failed,
            (Call::Abort, Some(None)) => {
                self.decide(from.name, false);
                Reply::Done
            }
            (Call::Abort, Some(Some(true))) => Reply::Failed,
            (Call::Abort, None | Some(Some(false))) => Reply::Done,
            // The markers of the last transaction are being written.
            (Call::Produce { .. } | Call::SendOffsets { .. }, Some(Some(_))) => Reply::Again,
            (Call::Init | Call::ReadBack { .. }, _) => Reply::Failed,
        }
    }

    fn commit_requested(&mut self, from: Sender) -> Reply {
        let fails = self.occurs(Class::ProducerFails, 5);
        if !fails || self.rng.percent(50) {
            self.decide(from.name, true);
        }
        if fails && self.rng.percent(50) {
            let until = self.now + self.rng.range(SECOND, 9 * SECOND);
            self.brokers.ids.entry(from.name).or_default().away_until = until;
            self.start_another(); // partitions move before the result is known
        }
        if fails { Reply::Failed } else { Reply::Done }
    }

    /// Another producer takes over a name: the transaction of the one before is aborted, and its requests are refused.
    fn initialise(&mut self, from: Sender) -> Reply {
        let id = self.brokers.ids.entry(from.name).or_default();
        let decision = id.open.as_ref().map(|open| open.decision);
        id.epoch += 1;
        id.last_committed = false;
        match decision {
            Some(decision) => {
                if decision.is_none() {
                    self.saw(Seen::TransactionsTakenOver);
                    self.decide(from.name, false);
                }
                Reply::Again
            }
            None => {
                id.next_sequence = 0;
                Reply::Initialised(id.epoch)
            }
        }
    }

    /// The open transaction of a producer, which begins one if there is none.
    pub(super) fn open_transaction(&mut self, from: Sender) -> &mut Open {
        let timeout = self.transaction_timeout();
        let checked_after = self.rng.below(2 * SECOND);
        let id = self.brokers.ids.entry(from.name).or_default();
        if id.open.is_none() {
            id.serial += 1;
            let serial = id.serial;
            self.after(timeout + checked_after, Event::TransactionTimeout(from.name, serial));
        }
        let id = self.brokers.ids.entry(from.name).or_default();
        let (serial, process) = (id.serial, from.process);
        id.open.get_or_insert(Open { serial, process, decision: None, offsets: Vec::new() })
    }

    pub(crate) fn transaction_timeout_reached(&mut self, name: usize, serial: u64) {
        let Some(id) = self.brokers.ids.get_mut(&name) else { return };
        if id.open.as_ref().is_some_and(|open| open.serial == serial && open.decision.is_none()) {
            id.epoch += 1;
            self.saw(Seen::TransactionsTimedOut);
            self.decide(name, false);
        }
    }

    /// Decides on the open transaction. Its markers are written soon.
    fn decide(&mut self, name: usize, committed: bool) {
        let Some(id) = self.brokers.ids.get_mut(&name) else { return };
        id.last_committed = committed;
        let Some(open) = &mut id.open else { return };
        open.decision = Some(committed);
        let (serial, process) = (open.serial, open.process);
        self.note(process, if committed { "decided" } else { "aborted" }, None, -1, serial as i64);
        let longest = self.rng.pick(&[MS, 10 * MS, 60 * MS]);
        let delay = self.rng.range(100, longest);
        self.after(delay, Event::TransactionMarkers(name, serial));
        if committed {
            self.key_records_decided((name, serial));
        }
    }

    /// The markers of a transaction are written: it takes effect.
    pub(crate) fn write_markers(&mut self, name: usize, serial: u64) {
        let Some(id) = self.brokers.ids.get_mut(&name) else { return };
        let Some(open) = id.open.take_if(|open| open.serial == serial) else { return };
        let committed = open.decision == Some(true);
        if committed {
            self.saw(Seen::TransactionsDecided);
            self.check_transaction(name, &open);
            self.store_offsets(&open);
        }
        self.end_transaction_in_logs(name, serial, committed);
        self.end_transaction_in_changelogs((name, serial), committed);
        if committed {
            self.check_changelogs(open.process, &open.offsets);
        }
    }

    /// The end of the simulation: transactions that dead processes left open are aborted.
    pub(super) fn decide_all(&mut self) {
        let names: Vec<usize> = self.brokers.ids.keys().copied().collect();
        for name in names {
            let open = self.brokers.ids.get(&name).and_then(|id| id.open.as_ref());
            let Some((serial, decision)) = open.map(|open| (open.serial, open.decision)) else { continue };
            if decision.is_none() {
                self.decide(name, false);
            }
            self.write_markers(name, serial);
        }
    }

    /// Whether a transaction that contains the partition is undecided.
    pub(crate) fn is_pending(&self, index: usize) -> bool {
        let open = self.brokers.ids.values().filter_map(|id| id.open.as_ref());
        open.flat_map(|open| &open.offsets).any(|entry| entry.partition == index)
    }

    /// The offset of a partition in a transaction that is committed, while its markers are written.
    pub(crate) fn decided_offset(&self, index: usize) -> Option<i64> {
        let open = self.brokers.ids.values().filter_map(|id| id.open.as_ref());
        let decided = open.filter(|open| open.decision == Some(true)).flat_map(|open| &open.offsets);
        decided.filter(|entry| entry.partition == index).map(|entry| entry.offset).max()
    }

    fn stable_offset(&mut self, index: usize) -> StableOffset {
        if self.is_pending(index) {
            return StableOffset::Pending;
        }
        let stored = self.stored[index].as_ref();
        StableOffset::Stored(stored.map(|stored| (stored.offset, stored.metadata.clone())))
    }

    /// The coordinator does not respond for a while.
    pub(crate) fn take_coordinator_away(&mut self) {
        let duration: Micros = self.rng.range(100 * MS, 6 * SECOND);
        self.brokers.away_until = self.brokers.away_until.max(self.now + duration);
        self.note(0, "coordinator away", None, -1, (duration / MS) as i64);
        self.saw(Seen::CoordinatorsAway);
    }

    pub(crate) fn bring_coordinator_back(&mut self) {
        self.brokers.away_until = self.now;
        self.brokers.ids.values_mut().for_each(|id| id.away_until = 0);
    }
}
