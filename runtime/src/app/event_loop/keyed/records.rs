//! The key records of events and transactions.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{CommitEntry, EffectClaim, KeptEffect, KeptEffects};
use keylane_state::{BINDING_KEY, Entry, STATE_RECORD_OVERHEAD, StateRecord};

use crate::guest::{Call, StateChange};
use crate::sink::{RecordBatch, RecordSize, Sink, SinkRecord, SinkTopic, packed_bytes};

use super::super::transacting::CommittedClaims;
use super::Keyed;
use super::partitions::Step;

/// Memory of an uncommitted state besides its key and value.
pub(super) const CHANGE_BYTES: usize = 160;

/// The key records of a transaction.
pub(in crate::app::event_loop) type KeyRecords = Option<(Arc<RecordBatch>, Range<usize>)>;

impl Keyed {
    /// Returns the size of the key record of a changed state, and the topic that it is written to.
    fn size_of(&self, call: &Call, change: &StateChange<'_>) -> Option<(RecordSize, Option<SinkTopic>)> {
        let lane = self.calls.lanes_of(call.key.call).get(change.lane as usize)?;
        let topic = self.states_of(lane.partition)?.changelog.as_ref().map(|changelog| changelog.topic);
        let size = RecordSize::new(Some(&lane.key), change.state);
        Some((size.with_extra_bytes(change.state.map_or(0, |_| STATE_RECORD_OVERHEAD)), topic))
    }

    /// Fails a call with a state that its changelog does not accept.
    pub(in crate::app::event_loop) fn check_states(&self, call: &mut Call, sink: &Sink) {
        let refused = call.results.state_changes().find_map(|change| {
            let (size, topic) = self.size_of(call, &change)?;
            let why = sink.check(topic?, size).err()?;
            Some(format!("the state of row {} {why}", change.row))
        });
        if let Some(message) = refused {
            call.fail(message);
        }
    }

    /// Adds the memory that the changed states of a call will take to that of its outputs. `bytes`: that of each row with
    /// effects.
    pub(in crate::app::event_loop) fn add_bytes(&self, ended: &Call, bytes: &mut [u32]) {
        let rows = ended.results.rows_with_effects();
        for change in ended.results.state_changes() {
            let Some((size, _)) = self.size_of(ended, &change) else { continue };
            let at = rows.binary_search(&change.row).ok();
            if let Some(bytes) = at.and_then(|at| bytes.get_mut(at)) {
                let of_state = u32::try_from(packed_bytes(size) + CHANGE_BYTES).unwrap_or(u32::MAX);
                *bytes = bytes.saturating_add(of_state);
            }
        }
    }

    /// Keeps the changed states of settled events. `ended`: the call whose end is handled now.
    pub(in crate::app::event_loop) fn keep(&mut self, ended: Option<&Call>, effects: &[KeptEffects]) {
        let Some(ended) = ended else { return };
        let mut changes = ended.results.state_changes().peekable();
        for kept in effects.iter().filter(|kept| kept.effect == KeptEffect::Outputs) {
            while changes.next_if(|change| change.row < kept.row).is_some() {}
            let Some(change) = changes.next_if(|change| change.row == kept.row) else { continue };
            let Some(lane) = self.calls.lanes_of(kept.call).get(change.lane as usize) else { continue };
            let Some(owned) = self.owned.get_mut(&lane.partition) else { continue };
            if owned.ownership != Some(kept.event.ownership) {
                continue;
            }
            let value = change.state.map(|state| {
                self.record.clear();
                StateRecord::encode(self.settings.version, state, &mut self.record);
                Arc::from(self.record.as_slice())
            });
            owned.states.changed(kept.number.0, &lane.key, value);
        }
    }

    /// Returns the key records of a transaction: the changed states that it claims, and the bindings to the offsets that it
    /// commits.
    pub(in crate::app::event_loop) fn records(
        &mut self,
        entries: &[CommitEntry],
        claims: &[EffectClaim],
        metadata: &str,
    ) -> KeyRecords {
        let mut batch = RecordBatch::default();
        for (entry, claim) in entries.iter().zip(claims) {
            let topic = self.states_of(entry.partition).and_then(|states| states.changelog.as_ref());
            let Some(topic) = topic.map(|changelog| changelog.topic) else { continue };
            // Without its binding, a commit would make the next start refuse the partition.
            let owned =
                self.owned.get_mut(&entry.partition).filter(|owned| owned.ownership == Some(claim.ownership));
            let owned = owned.expect("the states of a partition are open while its offsets are committed");
            let mut push = |key: &[u8], value: Option<&[u8]>| {
                let record = SinkRecord { topic, timestamp: None, key: Some(key), value, headers: &[] };
                batch.push_to(Some(entry.partition.number), &record);
            };
            owned.states.claimed(claim.through.0, &mut push);
            owned.marks.claimed(claim.through.0, &mut push);
            owned.binding.clear();
            owned.identity.encode(entry.offset, entry.metadata_in(metadata).as_bytes(), &mut owned.binding);
            push(&BINDING_KEY, Some(&owned.binding));
        }
        let records = 0..batch.len();
        (!records.is_empty()).then(|| (Arc::new(batch), records))
    }

    /// Passes what a committed transaction has written to the stores.
    pub(in crate::app::event_loop) fn committed(&mut self, committed: &CommittedClaims) {
        let CommittedClaims { claims, written, began_ms } = committed;
        for (partition, owned) in &mut self.owned {
            let Some(ownership) = owned.ownership else { continue };
            let Some((_, states)) = self.topics.get(usize::from(partition.topic)) else { continue };
            if let Some(claim) = claims.iter().find(|claim| claim.ownership == ownership) {
                let mut entries = owned.states.committed(claim.through.0, *began_ms);
                entries.extend(owned.marks.committed(claim.through.0, *began_ms));
                if let Some(states) = owned.deletion_committed(claim.through.0) {
                    self.forgotten += states;
                    self.search_at = Duration::ZERO; // the search continues
                }
                let through = states.changelog.as_ref().and_then(|changelog| {
                    entries.push(Entry::new(&BINDING_KEY, Some(&owned.binding), Some(*began_ms)));
                    let mut written = written.iter().filter(|written| written.topic == changelog.topic);
                    let last = written.find(|written| written.partition == partition.number)?;
                    Some(last.offset + 1)
                });
                if owned.step == Step::Ready {
                    states.store.apply(partition.number, owned.session, entries, through);
                } else {
                    owned.held.entries.extend(entries);
                    owned.held.through = owned.held.through.max(through);
                }
            }
            // The coordinator has accepted our membership, so nobody else had written to the changelogs when the transaction
            // began. Afterwards, this process may have been suspended for long.
            if owned.step == Step::Ready {
                states.store.at_log_end(partition.number, owned.session, *began_ms);
            }
        }
    }
}
