//! The snapshot of a transaction: what the core claims, and the effects that belong to it.

use std::collections::BTreeMap;

use keylane_core::{CommitEntry, CommitId, EffectClaim};

use super::super::plan::MS;
use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::{Event, World};
use super::kept::Effect;
use super::producer::{Attempt, State, Step};
use super::requests::{Entry, Produced};

impl World {
    pub(crate) fn begin_transaction(
        &mut self,
        p: usize,
        id: CommitId,
        entries: &[CommitEntry],
        claims: &[EffectClaim],
        metadata: &str,
    ) {
        self.saw(Seen::Transactions);
        let before = self.processes[p].commit.replace(id);
        if before.is_some() || entries.is_empty() || entries.len() != claims.len() {
            let text = format!("process {p} begins {id:?} of {entries:?}, {claims:?} during {before:?}");
            return self.report_violation("I-protocol", text, None, -1);
        }
        let (mut snapshot, mut effects, mut key_records) = (Vec::new(), Vec::new(), Vec::new());
        for (entry, claim) in entries.iter().zip(claims) {
            let range = entry.metadata.0 as usize..entry.metadata.1 as usize;
            let text = metadata.get(range).unwrap_or("not a range of the metadata");
            let index = self.index(entry.partition);
            let shell = &self.processes[p].shell;
            let mut entry = Entry {
                partition: index,
                ownership: claim.ownership.0,
                through: claim.through.0,
                incarnation: self.processes[p].parts[index].incarnation,
                offset: entry.offset,
                metadata: text.into(),
                before: shell.known.get(&index).cloned().flatten(),
                changes: Vec::new(),
            };
            entry.changes = self.changes_to_commit(p, &entry);
            self.note(p, "claims", Some(index), entry.offset, entry.through as i64);
            self.check_snapshot(p, &entry);
            self.check_excluded(p, &entry);
            let of_entry = self.effects_to_publish(p, &entry);
            let entry = self.planted_entry(p, entry);
            key_records.extend(self.key_records(p, &entry, !of_entry.is_empty()));
            effects.extend(of_entry);
            snapshot.push(entry);
        }
        effects.sort_by_key(|effect| (effect.number, effect.offset));
        self.check_size(p, metadata.len(), &effects);
        let attempt = Attempt {
            id,
            entries: snapshot,
            records: effects
                .into_iter()
                .map(Produced::Effect)
                .chain(key_records.into_iter().map(Produced::Key))
                .collect(),
            changelog_ends: BTreeMap::new(),
            membership: self.membership(p),
            begun_at: self.now,
            batches: Vec::new(),
            state: State::Waiting,
            commit_called: false,
        };
        self.processes[p].shell.producer.attempt = Some(attempt);
        let delay = self.rng.range(1, MS);
        self.after(delay, Event::Producer(p, Step::Begin));
    }

    fn effects_to_publish(&self, p: usize, entry: &Entry) -> Vec<Effect> {
        let of_entry = self.processes[p].shell.kept.values().filter(|kept| kept.ownership == entry.ownership);
        let is_published = |effect: &&Effect| match self.planted {
            Some(Planted::EffectsByOffset) => effect.offset < entry.offset,
            Some(Planted::UnclaimedEffects) => true,
            Some(Planted::ExclusionUnheard) => {
                let excluded = &self.processes[p].shell.excluded;
                effect.number <= entry.through && excluded.get(&effect.partition) != Some(&effect.ownership)
            }
            _ => effect.number <= entry.through,
        };
        of_entry.filter(is_published).copied().collect()
    }

    /// The claims of a snapshot are checked in full when it is committed.
    fn check_snapshot(&mut self, p: usize, entry: &Entry) {
        let (index, offset) = (entry.partition, entry.offset);
        let part = &self.processes[p].parts[index];
        let owned = part.owned && part.ownership == Some(entry.ownership);
        self.require(owned, "I10 own partitions only", index, offset, || {
            format!("process {p} claims events of ownership {}, which has ended", entry.ownership)
        });
        let limit = self.plan.config.metadata_limit;
        self.require(entry.metadata.len() <= limit, "I-limits", index, offset, || {
            format!("process {p} commits metadata of {} characters, limit {limit}", entry.metadata.len())
        });
        if self.withholds(p, entry) {
            self.saw(Seen::EventsWithheld);
        }
        if !entry.metadata.is_empty() {
            self.saw(Seen::SetsInTransactions);
        }
    }

    /// Whether effects of the ownership are kept that the entry does not claim.
    fn withholds(&self, p: usize, entry: &Entry) -> bool {
        let mut later = self.processes[p].shell.kept.range((entry.through + 1, i64::MIN)..);
        later.any(|(_, kept)| kept.ownership == entry.ownership)
    }

    fn check_size(&mut self, p: usize, metadata: usize, effects: &[Effect]) {
        let Some(limits) = self.plan.config.transactions else { return };
        let bytes: u64 = effects.iter().map(|effect| effect.bytes).sum();
        let total = limits.metadata_total.max(self.plan.config.metadata_limit);
        let planted = self.planted == Some(Planted::UnclaimedEffects);
        // A set may fit only together with later events.
        let sets_fit = self.plan.broker_metadata_limit == 4096;
        // What shares a number can't be divided.
        let divisible = effects.iter().any(|effect| effect.number != effects[0].number);
        let fits = !divisible || bytes <= limits.transaction_bytes || planted || !sets_fit;
        if !fits || metadata > total {
            let text = format!(
                "process {p} begins a transaction of {bytes} bytes, {metadata} characters: {limits:?}"
            );
            self.report_violation("I-limits", text, None, -1);
        }
    }
}
