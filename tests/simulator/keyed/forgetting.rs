//! States that were not changed for long are forgotten: the store searches for them, and the process deletes those that are
//! still old and unused when the answer arrives. The deletion is part of a transaction.

use keylane_core::{Input, OwnershipId, Partition, SettleNumber};
use keylane_state::{BINDING_KEY, KeyBytes};

use super::super::plan::{Class, MS, Micros, SECOND};
use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::transactions::Entry as TransactionEntry;
use super::super::world::{Event, Stage, World};
use super::fold;
use super::store::Work;

/// A deletion that no transaction has published, as far as the brokers know.
#[derive(Debug)]
pub(super) struct Deletion {
    ownership: u64,
    number: u64,
    keys: Vec<u64>,
    decided_at: Micros,
}

/// What a session forgets.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    /// What the core decides on.
    expired: Vec<KeyBytes>,
    /// The number of the deletion that is not committed.
    pub(super) deleting: Option<u64>,
}

impl World {
    fn forget_after(&self) -> Option<Micros> {
        self.plan.keyed.and_then(|plan| plan.forget_after)
    }

    /// The next search of a session.
    pub(super) fn search_later(&mut self, p: usize, index: usize, session: u64) {
        let Some(forget_after) = self.forget_after() else { return };
        let delay = self.rng.range(forget_after / 20, forget_after / 4);
        self.after(delay, Event::Search(p, index, session));
    }

    pub(crate) fn search(&mut self, p: usize, index: usize, id: u64) {
        let Some(forget_after) = self.forget_after().filter(|_| self.stage != Stage::Leaving) else { return };
        let changed_before_ms = self.now as i64 / MS as i64 - (forget_after / MS) as i64;
        let Some(session) = self.session(p, index).filter(|session| session.id == id) else { return };
        if session.forgetting.deleting.is_some() {
            return self.search_later(p, index, id);
        }
        if let Some(states) = &mut session.states {
            states.begin_scan();
            self.queue_task(p, index, Work::Scan { changed_before_ms });
        }
    }

    /// The store has done a step of the search: the answer takes some time.
    pub(super) fn scan(&mut self, p: usize, index: usize, changed_before_ms: i64) {
        let Some(session) = self.session(p, index) else { return };
        let is_old = |changed_ms: Option<i64>| changed_ms.is_some_and(|changed| changed < changed_before_ms);
        let old = session.store.content.iter().filter(|(_, row)| is_old(row.changed_ms));
        let old = old.filter(|(key, _)| key[..] != BINDING_KEY);
        let (id, expired) = (session.id, old.map(|(key, _)| key.clone()).collect());
        let mut delay = self.rng.range(MS / 10, 20 * MS);
        if self.occurs(Class::StoreSlow, 30) {
            delay += self.rng.range(SECOND / 10, 2 * SECOND);
        }
        self.after(delay, Event::Scanned(p, index, id, expired));
    }

    pub(crate) fn scanned(&mut self, p: usize, index: usize, id: u64, found: Vec<KeyBytes>) {
        let outdated = self.planted == Some(Planted::ForgottenOverNewer);
        let Some(session) = self.session(p, index).filter(|session| session.id == id) else { return };
        let (Some(states), Some(ownership)) = (&mut session.states, session.ownership) else { return };
        let count = found.len();
        let expired = if outdated { Some(found) } else { states.end_scan(found) };
        let mut expired = expired.expect("the simulator has few keys");
        if expired.len() < count {
            self.saw(Seen::StatesChangedMeanwhile);
        }
        let (process, in_use) = (&self.processes[p], self.planted == Some(Planted::ForgottenInUse));
        expired.retain(|key| in_use || !process.has_events(index, fold::key_of(key)));
        if !expired.is_empty() {
            let (partition, bytes) = (self.logs[index].partition, 100 * expired.len() as u64);
            if let Some(session) = self.session(p, index) {
                session.forgetting.expired = expired;
            }
            self.feed(p, Input::StatesExpired { partition, ownership: OwnershipId(ownership), bytes });
            let session = self.session(p, index).filter(|session| session.id == id);
            let refused = session.map(|session| std::mem::take(&mut session.forgetting.expired));
            if refused.is_some_and(|refused| !refused.is_empty()) {
                self.saw(Seen::DeletionsRefused);
            }
        }
        self.search_later(p, index, id);
    }

    /// The core has numbered a deletion.
    pub(crate) fn forget_states(&mut self, p: usize, partition: Partition, number: SettleNumber) {
        let (index, now) = (self.index(partition), self.now);
        let session = self.session(p, index).filter(|session| session.states.is_some());
        let found = session.map(|session| {
            (session.ownership.unwrap_or_default(), std::mem::take(&mut session.forgetting.expired))
        });
        let (ownership, expired) = found.unwrap_or_default();
        if expired.is_empty() {
            let text = format!("process {p} deletes states that were not found");
            return self.report_violation("I-protocol", text, Some(index), -1);
        }
        self.saw(Seen::StatesForgotten);
        self.note(p, "forgets", Some(index), expired.len() as i64, number.0 as i64);
        let deletion = Deletion {
            ownership,
            number: number.0,
            keys: expired.iter().map(|key| fold::key_of(key)).collect(),
            decided_at: now,
        };
        self.processes[p].shell.keyed.deletions.push(deletion);
        if let Some(session) = self.session(p, index) {
            session.forgetting.deleting = Some(number.0);
            if let Some(states) = &mut session.states {
                states.forgotten(number.0, expired);
            }
        }
    }

    /// The deletions that an entry of a transaction claims take effect now. Each was decided when every state was old.
    pub(crate) fn fold_deletions(&mut self, p: usize, entry: &TransactionEntry) {
        let (Some(forget_after), index) = (self.forget_after(), entry.partition) else { return };
        let claimed = |deletion: &mut Deletion| {
            deletion.ownership == entry.ownership && deletion.number <= entry.through
        };
        let deletions: Vec<Deletion> =
            self.processes[p].shell.keyed.deletions.extract_if(.., claimed).collect();
        for Deletion { keys, decided_at, number, .. } in deletions {
            for key in keys {
                let truth = &mut self.keyed.truths[index];
                truth.states.insert(key, None);
                let changed_at = truth.changed_at.remove(&key).unwrap_or(0);
                let is_old = changed_at + forget_after <= decided_at;
                self.require(is_old, "T3 forgotten", index, entry.offset, || {
                    format!("process {p} forgets key {key} with number {number} at {decided_at} µs: changed at {changed_at}")
                });
            }
        }
    }
}
