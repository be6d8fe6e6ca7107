//! The start of an ownership: the changelog is read up to the end that it had after the committed offset was read, and its
//! binding is compared with that offset.

use std::sync::Arc;

use keylane_core::Input;
use keylane_state::{BINDING_KEY, Binding, BindingIdentity, KeyStates, compare};

use super::super::ownership::Found;
use super::super::plan::{Class, MS, SECOND};
use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::transactions::TransactionState;
use super::super::world::{Event, World};
use super::forgetting::Forgetting;
use super::store::Store;

/// The states of a partition, from the look-up of its start to the end of its ownership.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) identity: BindingIdentity,
    /// The offset and metadata that the look-up found.
    pub(super) committed: Option<(i64, Vec<u8>)>,
    /// What the core receives when the states are restored.
    found: Option<Found>,
    /// The end of the changelog up to which it must be read.
    end: Option<i64>,
    pub(super) store: Store,
    /// `None`: they are not restored.
    pub(super) states: Option<KeyStates>,
    pub(super) ownership: Option<u64>,
    pub(super) forgetting: Forgetting,
}

impl World {
    pub(super) fn binding_identity(&self, index: usize, topic_id: [u8; 16]) -> BindingIdentity {
        let partition = self.logs[index].partition;
        BindingIdentity {
            group: "group".into(),
            handler: "handler".into(),
            topic: format!("topic-{}", partition.topic),
            partition: partition.number,
            topic_id: (topic_id != [0; 16]).then_some(topic_id),
            partition_count: u32::from(self.plan.partitions_per_topic),
            lane_key: "key: record key".into(),
        }
    }

    /// The committed offset of a partition was read.
    pub(crate) fn begin_restore(
        &mut self,
        p: usize,
        index: usize,
        committed: Option<(i64, Vec<u8>)>,
        found: Found,
    ) {
        self.keyed.sessions += 1;
        let id = self.keyed.sessions;
        let session = Session {
            id,
            identity: self.binding_identity(index, found.topic_id),
            committed,
            found: Some(found),
            end: None,
            store: Store::default(),
            states: None,
            ownership: None,
            forgetting: Forgetting::default(),
        };
        self.processes[p].shell.keyed.sessions.insert(index, session);
        let mut delay = self.rng.range(MS, 10 * MS);
        if self.occurs(Class::StoreSlow, 10) {
            delay += self.rng.range(SECOND / 10, 3 * SECOND);
        }
        self.after(delay, Event::Restore(p, index, id));
    }

    pub(crate) fn restore(&mut self, p: usize, index: usize, id: u64) {
        let owned = self.processes[p].parts[index].owned;
        let Some(session) = self.session(p, index).filter(|session| session.id == id && owned) else {
            return;
        };
        let known = session.end;
        if known.is_none() {
            // The file is opened and read on from at once: deletions that it lacks can't be removed in between.
            self.open_store(p, index);
        }
        let end = known.unwrap_or_else(|| self.end_to_restore(p, index));
        let stable = self.keyed.changelogs[index].last_stable();
        // A read may return what was appended after the end was read.
        let to = self.rng.range(end.min(stable) as u64, stable as u64) as i64;
        let to = if stable < end { stable } else { to };
        let (now, log) = (self.now, &self.keyed.changelogs[index]);
        let Some(session) = self.processes[p].shell.keyed.sessions.get_mut(&index) else { return };
        if known.is_none() {
            session.end = Some(end);
            session.store.complete_at = now;
        }
        let from = session.store.position;
        for record in &log.records {
            if (from..to).contains(&record.offset) && record.state == TransactionState::Committed {
                session.store.insert(&record.key, record.value.as_ref(), Some(record.appended_ms));
            }
        }
        session.store.position = from.max(to);
        if session.store.position >= end {
            self.restored(p, index);
        } else {
            self.saw(Seen::RestoresWaited);
            let delay = self.rng.range(5 * MS, 50 * MS);
            self.after(delay, Event::Restore(p, index, id));
        }
    }

    /// The end of the changelog, open transactions included.
    fn end_to_restore(&mut self, p: usize, index: usize) -> i64 {
        let before = self.processes[p].shell.keyed.ends.remove(&index);
        let log = &self.keyed.changelogs[index];
        match self.planted {
            Some(Planted::RestoreToStable) => log.last_stable(),
            Some(Planted::EndReadFirst) => before.unwrap_or(log.end),
            Some(_) | None => log.end,
        }
    }

    /// A planted bug: the end of the changelog is read with the first look-up, which may have to be repeated.
    pub(crate) fn planted_end(&mut self, p: usize, index: usize) {
        let end = self.keyed.changelogs[index].end;
        if self.planted == Some(Planted::EndReadFirst) {
            self.processes[p].shell.keyed.ends.entry(index).or_insert(end);
        }
    }

    fn restored(&mut self, p: usize, index: usize) {
        let Some(session) = self.processes[p].shell.keyed.sessions.get_mut(&index) else { return };
        let Some(found) = session.found.take() else { return };
        let binding = session.store.content.get(&BINDING_KEY[..]).map(|row| Binding::decode(&row.value));
        let Ok(binding) = binding.transpose() else {
            return self.report_violation("T8 binding", "a damaged binding".into(), Some(index), -1);
        };
        let committed = session.committed.clone();
        let compared = compare(
            &session.identity,
            committed.as_ref().map(|(offset, metadata)| (*offset, metadata.as_slice())),
            binding.as_ref(),
            session.store.has_records,
        );
        let offset = committed.as_ref().map_or(-1, |&(offset, _)| offset);
        if let Err(mismatch) = compared
            && self.planted != Some(Planted::BindingNotCompared)
        {
            self.saw(Seen::StartsRefused);
            self.note(p, "refused", Some(index), offset, binding.map_or(-1, |binding| binding.offset));
            self.check_refused(p, index, &mismatch);
            self.close_session(p, index);
            let partition = self.logs[index].partition;
            return self.feed(p, Input::StartRefused { partition, offset: offset.max(0) });
        }
        self.saw(Seen::StatesRestored);
        let cache = self.plan.keyed.map_or(0, |plan| plan.cache_bytes);
        let of_ended = self.processes[p].shell.keyed.of_ended.remove(&index);
        if let Some(session) = self.session(p, index) {
            let position = session.store.position;
            session.states = Some(of_ended.unwrap_or_else(|| KeyStates::new(cache)));
            self.note(p, "restored", Some(index), offset, position);
        }
        self.write_file_sometimes(p, index);
        self.resolve_start(p, index, &found);
    }

    /// The core has begun an ownership with the restored states.
    pub(crate) fn begin_session(&mut self, p: usize, index: usize, ownership: u64) {
        if !self.is_keyed() {
            return;
        }
        if let Some(session) = self.session(p, index).filter(|session| session.states.is_some()) {
            session.ownership = Some(ownership);
            let id = session.id;
            self.check_start(p, index);
            self.search_later(p, index, id);
        } else {
            let text = format!("process {p} begins ownership {ownership} without states");
            self.report_violation("T8 start", text, Some(index), -1);
        }
    }

    /// The core has ended an ownership: its states are dropped.
    pub(crate) fn end_session(&mut self, p: usize, index: usize, ownership: u64) {
        if self.session(p, index).is_some_and(|session| session.ownership == Some(ownership)) {
            self.close_session(p, index);
        }
    }

    /// The core requests another look-up, or the ownership has ended.
    pub(crate) fn close_session(&mut self, p: usize, index: usize) {
        if self.rng.percent(60) && self.session(p, index).is_some_and(|session| session.states.is_some()) {
            self.write_file(p, index);
        }
        let Some(session) = self.processes[p].shell.keyed.sessions.remove(&index) else { return };
        self.unlock(p, index);
        if self.planted == Some(Planted::StatesKept) {
            self.processes[p].shell.keyed.of_ended.extend(session.states.map(|states| (index, states)));
        }
    }

    /// The binding record of a transaction that commits this offset and metadata.
    pub(super) fn binding(identity: &BindingIdentity, offset: i64, metadata: &[u8]) -> Arc<[u8]> {
        let mut value = Vec::new();
        identity.encode(offset, metadata, &mut value);
        value.into()
    }
}
