//! Keyed state: restores the states of a partition before its ownership begins, gives each call the states of its lanes,
//! and adds the changed states to transactions. States that were not changed for long are forgotten.
//!
//! *Invariants.* A partition starts only with states of the same transaction as its committed offset. A call sees what the
//! last settled event of each key has left, whether it is committed or not. The stores contain only what is committed.

mod calls;
mod forgetting;
mod marks;
mod partitions;
mod records;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::{CallId, Dispatch, Input, KeptEffects, Notice, Partition, SettleNumber};
use keylane_state::{StateRecord, StoreEvent};

use crate::changelog::{ChangelogReader, LocalStore, RestoreEvent};
use crate::guest::{Call, CallEvent};
use crate::sink::SinkTopic;
use crate::source::{Source, StartPosition};

use super::mailbox::{LoopEvent, Mailbox};
use super::{Calling, EventLoop, Reading};
use calls::StatefulCalls;
use forgetting::{Expired, Found};
pub(super) use marks::FoundMark;
use marks::MarkLoads;
use partitions::{OwnedStates, Resolved};
pub(super) use records::KeyRecords;

/// The changelog of one input topic.
pub(in crate::app) struct TopicStates {
    pub(in crate::app) store: Arc<LocalStore>,
    /// `None`: the embedded broker has no changelogs.
    pub(in crate::app) changelog: Option<TopicChangelog>,
}

pub(in crate::app) struct TopicChangelog {
    pub(in crate::app) topic: SinkTopic,
    pub(in crate::app) id: Option<[u8; 16]>,
    pub(in crate::app) partitions: i32,
}

/// What a handler's keyed state depends on.
pub(in crate::app) struct KeyedSettings {
    pub(in crate::app) handler: String,
    pub(in crate::app) group: String,
    /// The handler's topics.
    pub(in crate::app) topics: Vec<String>,
    /// A text that determines the record keys of events.
    pub(in crate::app) lane_key: String,
    /// The version of the component's states.
    pub(in crate::app) version: u32,
    /// Memory for states that were used recently, of all partitions.
    pub(in crate::app) cache_bytes: usize,
    /// How long a state is kept that does not change; `None`: for ever.
    pub(in crate::app) forget_after: Option<Duration>,
    /// Whether calls get states.
    pub(in crate::app) has_states: bool,
    /// Whether a gate remembers marks.
    pub(in crate::app) has_marks: bool,
}

/// The keyed state of one handler.
pub(in crate::app) struct Keyed {
    settings: KeyedSettings,
    mailbox: Arc<Mailbox>,
    /// The handler's topics, and their states.
    topics: Vec<(String, TopicStates)>,
    /// `None`: the embedded broker has no changelogs.
    reader: Option<ChangelogReader>,
    owned: BTreeMap<Partition, OwnedStates>,
    calls: StatefulCalls,
    mark_loads: MarkLoads,
    last_session: u64,
    /// Reused: the record of a state.
    record: Vec<u8>,
    /// Number of restores so far, and of the records that they read.
    restores: u64,
    restored_records: u64,
    /// When a search for old states must be continued, or checked. See `forgetting`.
    search_at: Duration,
    expired: Option<Expired>,
    /// Number of states so far that were not changed for long and were deleted.
    forgotten: u64,
}

impl Keyed {
    /// `topics`: the states of the handler's topics, in their order.
    pub(in crate::app) fn new(
        settings: KeyedSettings,
        topics: Vec<TopicStates>,
        reader: Option<ChangelogReader>,
        mailbox: Arc<Mailbox>,
    ) -> Keyed {
        let names = settings.topics.clone();
        Keyed {
            settings,
            mailbox,
            topics: names.into_iter().zip(topics).collect(),
            reader,
            owned: BTreeMap::new(),
            calls: StatefulCalls::default(),
            mark_loads: MarkLoads::default(),
            last_session: 0,
            record: Vec::new(),
            restores: 0,
            restored_records: 0,
            search_at: Duration::ZERO,
            expired: None,
            forgotten: 0,
        }
    }

    /// Returns whether this topic is one of the handler's changelogs.
    pub(super) fn is_changelog(&self, topic: SinkTopic) -> bool {
        let changelogs = self.topics.iter().filter_map(|(_, states)| states.changelog.as_ref());
        changelogs.map(|changelog| changelog.topic).any(|changelog| changelog == topic)
    }

    /// Returns the owned partitions with their changelogs. Every transaction with such a partition writes to its changelog.
    pub(super) fn changelogs(&self) -> impl Iterator<Item = (Partition, SinkTopic)> {
        let owned = self.owned.iter().filter(|(_, owned)| owned.ownership.is_some());
        owned.filter_map(|(&partition, _)| {
            Some((partition, self.states_of(partition)?.changelog.as_ref()?.topic))
        })
    }

    fn states_of(&self, partition: Partition) -> Option<&TopicStates> {
        self.topics.get(usize::from(partition.topic)).map(|(_, states)| states)
    }
}

impl EventLoop {
    /// Handles the start of a partition that was looked up: with keyed state, its states are restored first.
    pub(super) fn start_found(&mut self, found: StartPosition) {
        let now_ms = self.now.wall_ms;
        match &mut self.keyed {
            None => self.feed_start(&found),
            Some(keyed) => match keyed.restore(found, now_ms) {
                Ok(()) => {}
                Err(reason) => self.closing.stop(&self.log, reason),
            },
        }
    }

    /// Handles an event of the store of this topic.
    pub(super) fn store_event(&mut self, topic: u16, event: StoreEvent) {
        let Some(keyed) = &mut self.keyed else { return };
        self.log.store_event(topic, &event);
        match event {
            StoreEvent::Opened { partition, session, resume, .. } => {
                let resolved = keyed.opened(Partition { topic, number: partition }, session, resume);
                self.resolved(resolved);
            }
            StoreEvent::Loaded { partition, session, token, values } => {
                let partition = Partition { topic, number: partition };
                if let Some(resolved) = keyed.loaded_binding(partition, session, token, &values) {
                    return self.resolved(Some(resolved));
                }
                if keyed.is_mark_load(token) {
                    let found = keyed.mark_loaded(partition, session, token, values);
                    return self.marks_found(found);
                }
                match keyed.loaded(partition, session, token, values) {
                    Ok(calls) => calls.into_iter().for_each(|call| self.calling.enqueue(call)),
                    Err(reason) => self.closing.stop(&self.log, reason),
                }
            }
            StoreEvent::Scanned { partition, session, expired, next } => {
                let partition = Partition { topic, number: partition };
                self.old_states_found(partition, session, Found { expired, next });
            }
            StoreEvent::Lost { partition, session, .. } => {
                keyed.store_lost(Partition { topic, number: partition }, session, self.now.wall_ms);
            }
            StoreEvent::Failed { partition, session, error } => {
                keyed.file_failed(Partition { topic, number: partition }, session, Some(error));
            }
            StoreEvent::Recovered { partition, session } => {
                keyed.file_failed(Partition { topic, number: partition }, session, None);
            }
            StoreEvent::Applied { .. } | StoreEvent::Closed { .. } => {}
        }
    }

    /// Handles an event of the reader of changelogs.
    pub(super) fn restore_event(&mut self, event: RestoreEvent) {
        let Some(keyed) = &mut self.keyed else { return };
        self.log.restore_event(self.now, &event);
        match event {
            RestoreEvent::Progress { request, next, end, .. } => keyed.progressed(request, (next, end)),
            RestoreEvent::Restored { request, records, any, .. } => {
                keyed.restores += 1;
                keyed.restored_records += records;
                let partition = Partition { topic: request.topic, number: request.partition };
                keyed.restored(request, any, self.transacting.is_undecided(partition));
            }
            RestoreEvent::Damaged { request, reason } => match keyed.damaged(request, &reason) {
                Ok(resolved) => self.resolved(resolved),
                Err(reason) => self.closing.stop(&self.log, reason),
            },
            RestoreEvent::Unavailable { .. } => {}
        }
    }

    fn resolved(&mut self, resolved: Option<Resolved>) {
        match resolved {
            None => {}
            Some(Resolved::Start(found)) => self.feed_start(&found),
            Some(Resolved::Refused { partition, offset, reason }) => {
                self.log.state_refused(partition, &reason);
                self.keyed.iter_mut().for_each(|keyed| keyed.forget(partition));
                self.feed(Input::StartRefused { partition, offset });
            }
        }
    }

    /// Submits the calls that have stopped waiting for states.
    pub(super) fn submit_ready(&mut self) {
        let Some(keyed) = &mut self.keyed else { return };
        loop {
            match keyed.next_ready() {
                Ok(Some(call)) => self.calling.enqueue(call),
                Ok(None) => return,
                Err(reason) => return self.closing.stop(&self.log, reason),
            }
        }
    }

    /// Adds the states of its lanes to a call, and submits it when all of them are known.
    pub(super) fn give_states(&mut self, call: Box<Call>) {
        match &mut self.keyed {
            None => self.calling.enqueue(call),
            Some(keyed) if !keyed.settings.has_states => self.calling.enqueue(call),
            Some(keyed) => match keyed.give_states(call) {
                Ok(Some(call)) => self.calling.enqueue(call),
                Ok(None) => {}
                Err(reason) => self.closing.stop(&self.log, reason),
            },
        }
    }
}

/// Drops the states of partitions that are not owned any more, or whose start is looked up again.
pub(super) fn forget(keyed: &mut Option<Keyed>, partitions: &[Partition]) {
    if let Some(keyed) = keyed {
        partitions.iter().for_each(|&partition| keyed.forget(partition));
    }
}

/// Looks up the start of a partition. Its states will be restored when the start is known.
pub(super) fn look_up_start(keyed: &mut Option<Keyed>, source: &mut Source, partition: Partition) {
    forget(keyed, &[partition]);
    source.look_up_start(partition);
}

/// Remembers the keys of the lanes of a call that begins.
pub(super) fn begin_call(keyed: &mut Option<Keyed>, dispatch: &Dispatch<'_>, reading: &Reading) {
    if let Some(keyed) = keyed.as_mut().filter(|keyed| keyed.settings.has_states) {
        keyed.begin_call(dispatch, reading);
    }
}

/// Cancels a call, which may still wait for its states.
pub(super) fn cancel(keyed: &mut Option<Keyed>, calling: &mut Calling, call: CallId) {
    if !keyed.as_mut().is_some_and(|keyed| keyed.cancel(call)) {
        calling.cancel(call);
    }
}

/// Keeps the changed states of settled events.
pub(super) fn keep(keyed: &mut Option<Keyed>, ended: Option<&Call>, effects: &[KeptEffects]) {
    if let Some(keyed) = keyed {
        keyed.keep(ended, effects);
    }
}

/// Deletes the old states of this partition that were found last.
pub(super) fn forget_states(keyed: &mut Option<Keyed>, partition: Partition, number: SettleNumber) {
    if let Some(keyed) = keyed {
        keyed.forget_states(partition, number);
    }
}

impl Keyed {
    pub(super) fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::OwnershipStarted { partition, ownership, .. } => self.began(partition, ownership),
            Notice::OwnershipEnded { partition, ownership, .. } => self.ended(partition, ownership),
            Notice::MetadataIgnored { .. }
            | Notice::OffsetsSkipped { .. }
            | Notice::TopicRecreated { .. }
            | Notice::Repositioned { .. }
            | Notice::Skipped { .. }
            | Notice::ReadingPaused { .. }
            | Notice::ReadingResumed { .. }
            | Notice::GapClosed(_)
            | Notice::PassedOver { .. }
            | Notice::StaleRedrive { .. }
            | Notice::EarlyAtEnd(_)
            | Notice::MetadataLimitLowered { .. } => {}
        }
    }

    /// Cancels a call that waits for states. Returns false if it does not: then the workers have it.
    fn cancel(&mut self, call: CallId) -> bool {
        let Some(call) = self.calls.take(call) else { return false };
        self.mailbox.put(LoopEvent::Call(CallEvent::Terminated(call)));
        true
    }

    /// Checks a key record that was read, and returns the state.
    fn decode<'v>(&self, key: &[u8], value: &'v [u8]) -> Result<&'v [u8], String> {
        let name = || keylane_state::record_key::display(key);
        let record = StateRecord::decode(value)
            .map_err(|error| format!("the state of the key {} can't be read: {error}", name()))?;
        if record.version > self.settings.version {
            return Err(format!(
                "the state of the key {} has version {}, and this component has {}: run the newer component, or raise \
                 `state.version` if this one can read it",
                name(),
                record.version,
                self.settings.version
            ));
        }
        Ok(record.state)
    }
}
