//! The states of owned partitions: opened, restored, compared with the committed offset, and closed.

use keylane_core::{OwnershipId, Partition};
use keylane_state::{
    BINDING_KEY, Binding, BindingIdentity, Entry, FileIdentity, KeyStates, Mismatch, SessionId, StateValue,
    compare,
};

use crate::changelog::RestoreRequest;
use crate::source::StartPosition;

use super::Keyed;
use super::forgetting::Search;

/// The token of the load of a binding record. Those of calls begin at 1.
const BINDING_TOKEN: u64 = 0;

/// The states of one partition, from the lookup of its start to the end of its ownership.
pub(super) struct OwnedStates {
    pub(super) session: SessionId,
    pub(super) step: Step,
    /// The start, until the ownership begins.
    found: Option<StartPosition>,
    pub(super) ownership: Option<OwnershipId>,
    pub(super) states: KeyStates,
    /// What a gate remembers.
    pub(super) marks: KeyStates,
    pub(super) identity: BindingIdentity,
    file: FileIdentity,
    /// The time at which the start was found, in milliseconds since 1970: before the end of the changelog is requested.
    found_ms: i64,
    /// Why the file can't be read or written at the moment.
    pub(super) file_error: Option<String>,
    /// What was committed while the store was restored, in order.
    pub(super) held: CommittedEntries,
    /// The binding record of the transaction that is undecided.
    pub(super) binding: Vec<u8>,
    /// The search for old states.
    pub(super) search: Search,
}

/// The entries of committed transactions for the store, newest last.
#[derive(Default)]
pub(super) struct CommittedEntries {
    pub(super) entries: Vec<Entry>,
    /// The offset up to which they complete the changelog, if it is known.
    pub(super) through: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The store opens its file.
    Opening,
    /// The changelog is read: from this offset to this end, once they are known.
    Restoring(i64, i64),
    /// The binding record is loaded. `any`: whether the changelog has, or had, any record.
    Comparing { any: bool },
    /// After the loss of the file, the changelog was read to its end, while a transaction with the partition was undecided.
    Undecided,
    /// The store can be read.
    Ready,
}

/// What is known about the start of a partition when its states are restored.
pub(super) enum Resolved {
    Start(StartPosition),
    Refused { partition: Partition, offset: i64, reason: String },
}

impl Keyed {
    /// Checks that a topic with this number of partitions has not more of them than its changelog. The error stops the handler.
    pub(in crate::app::event_loop) fn check_partitions(&self, topic: u16, count: i32) -> Result<(), String> {
        let Some((topic, states)) = self.topics.get(usize::from(topic)) else { return Ok(()) };
        match states.changelog.as_ref().map(|changelog| changelog.partitions) {
            Some(expected) if count > expected => Err(format!(
                "topic {topic} has more partitions than the {expected} of its changelog: the keys of events have moved to other \
                 partitions than their states; see docs/keyed-state.md, \"Adding partitions\""
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Opens and restores the states of a partition whose start was found. The error stops the handler.
    pub(super) fn restore(&mut self, found: StartPosition, now_ms: i64) -> Result<(), String> {
        let partition = found.partition;
        self.forget(partition);
        self.check_partitions(partition.topic, partition.number + 1)?;
        let Some((topic, states)) = self.topics.get(usize::from(partition.topic)) else { return Ok(()) };
        let topic_id = (found.topic_id != [0; 16]).then_some(found.topic_id);
        let changelog = states.changelog.as_ref();
        let identity = BindingIdentity {
            group: self.settings.group.clone(),
            handler: self.settings.handler.clone(),
            topic: topic.clone(),
            partition: partition.number,
            topic_id,
            partition_count: changelog.map_or(0, |changelog| changelog.partitions.unsigned_abs()),
            lane_key: self.settings.lane_key.clone(),
        };
        let file =
            FileIdentity { changelog_id: changelog.and_then(|changelog| changelog.id), input_id: topic_id };
        self.last_session += 1;
        let session = SessionId(self.last_session);
        states.store.open(partition.number, session, file, now_ms);
        let owned = OwnedStates {
            session,
            step: Step::Opening,
            found: Some(found),
            ownership: None,
            states: KeyStates::new(0),
            marks: KeyStates::new(0),
            identity,
            file,
            found_ms: now_ms,
            file_error: None,
            held: CommittedEntries::default(),
            binding: Vec::new(),
            search: Search::default(),
        };
        self.owned.insert(partition, owned);
        self.share_cache();
        Ok(())
    }

    /// Records that the file of a partition can't be read or written, or works again.
    pub(super) fn file_failed(&mut self, partition: Partition, session: SessionId, error: Option<String>) {
        if let Some(owned) = self.session(partition, session) {
            owned.file_error = error;
        }
    }

    /// Divides the memory for recent states over the partitions.
    fn share_cache(&mut self) {
        let kinds = usize::from(self.settings.has_states) + usize::from(self.settings.has_marks);
        let share = self.settings.cache_bytes / self.owned.len().max(1) / kinds.max(1);
        for owned in self.owned.values_mut() {
            owned.states.limit_cache(if self.settings.has_states { share } else { 0 });
            owned.marks.limit_cache(if self.settings.has_marks { share } else { 0 });
        }
    }

    fn session(&mut self, partition: Partition, session: SessionId) -> Option<&mut OwnedStates> {
        self.owned.get_mut(&partition).filter(|owned| owned.session == session)
    }

    /// The store has opened its file, which is complete up to `resume`.
    pub(super) fn opened(
        &mut self,
        partition: Partition,
        session: SessionId,
        resume: Option<i64>,
    ) -> Option<Resolved> {
        let owned = self.owned.get_mut(&partition).filter(|owned| owned.session == session)?;
        let Some(reader) = &self.reader else {
            let found = owned.found.take();
            self.store_ready(partition);
            return found.map(Resolved::Start);
        };
        owned.step = Step::Restoring(0, 0);
        let Partition { topic, number } = partition;
        reader.restore(RestoreRequest { topic, partition: number, session, resume });
        None
    }

    pub(super) fn progressed(&mut self, request: RestoreRequest, (next, end): (i64, i64)) {
        let RestoreRequest { topic, partition: number, session, .. } = request;
        if let Some(owned) = self.session(Partition { topic, number }, session) {
            owned.step = Step::Restoring(next, end);
        }
    }

    /// Everything in the changelog is in the store.
    ///
    /// `undecided`: whether a transaction with the partition is undecided here. After the loss of a file, it may be committed
    /// at the brokers, and its records restored. What was committed before it is older, and must not follow them into the
    /// store, whose offset is past them: so it waits for the outcome, and follows together with the records of that
    /// transaction.
    pub(super) fn restored(&mut self, request: RestoreRequest, any: bool, undecided: bool) {
        let RestoreRequest { topic, partition: number, session, .. } = request;
        let partition = Partition { topic, number };
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.session == session) else {
            return;
        };
        let Some((_, states)) = self.topics.get(usize::from(topic)) else { return };
        states.store.at_log_end(number, session, owned.found_ms);
        if owned.found.is_none() {
            // The file was lost during the ownership.
            if undecided {
                owned.step = Step::Undecided;
            } else {
                self.store_ready(partition);
            }
            return;
        }
        owned.step = Step::Comparing { any };
        states.store.load(number, session, BINDING_TOKEN, vec![BINDING_KEY.as_slice().into()]);
    }

    /// No transaction is undecided any more.
    pub(in crate::app::event_loop) fn decided(&mut self) {
        let waiting = self.owned.iter().filter(|(_, owned)| owned.step == Step::Undecided);
        let waiting: Vec<Partition> = waiting.map(|(partition, _)| *partition).collect();
        waiting.into_iter().for_each(|partition| self.store_ready(partition));
    }

    /// The store of a partition can be read. What was committed while it was restored follows now: before, an older record
    /// of the same key could have come after it. All of it follows in one step: the offset of the store may already be past
    /// the last of it.
    fn store_ready(&mut self, partition: Partition) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        owned.step = Step::Ready;
        let CommittedEntries { entries, through } = std::mem::take(&mut owned.held);
        if let Some((_, states)) = self.topics.get(usize::from(partition.topic))
            && !entries.is_empty()
        {
            states.store.apply(partition.number, owned.session, entries, through);
        }
        self.load_again(partition);
    }

    /// A record of the changelog can't be used: the partition does not start. The error stops the handler: it is an owned
    /// partition, whose file was lost.
    pub(super) fn damaged(
        &mut self,
        request: RestoreRequest,
        reason: &str,
    ) -> Result<Option<Resolved>, String> {
        let RestoreRequest { topic, partition: number, session, .. } = request;
        let Some(owned) = self.session(Partition { topic, number }, session) else { return Ok(None) };
        let reason = format!("its changelog can't be read: {reason}");
        match owned.found.take() {
            Some(found) => Ok(Some(refused(&found, reason))),
            None => Err(format!(
                "the keyed state of topic {}, partition {number}, is lost: {reason}",
                owned.identity.topic
            )),
        }
    }

    /// Handles the answer to the load of a binding record; `None`: the answer is to another load.
    pub(super) fn loaded_binding(
        &mut self,
        partition: Partition,
        session: SessionId,
        token: u64,
        values: &[StateValue],
    ) -> Option<Resolved> {
        if token != BINDING_TOKEN {
            return None;
        }
        let owned = self.session(partition, session)?;
        let Step::Comparing { any } = owned.step else { return None };
        let found = owned.found.take()?;
        let binding = match values.first().and_then(Option::as_deref).map(Binding::decode).transpose() {
            Ok(binding) => binding,
            Err(error) => return Some(refused(&found, format!("its binding record can't be read: {error}"))),
        };
        let committed = found.committed.as_ref().map(|(offset, metadata)| (*offset, metadata.as_slice()));
        match compare(&owned.identity, committed, binding.as_ref(), any) {
            Ok(()) => {
                owned.step = Step::Ready;
                Some(Resolved::Start(found))
            }
            Err(mismatch) => Some(refused(&found, format!("{mismatch}; {}", remedy(&mismatch)))),
        }
    }

    pub(super) fn began(&mut self, partition: Partition, ownership: OwnershipId) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.ownership = Some(ownership);
        }
    }

    pub(super) fn ended(&mut self, partition: Partition, ownership: OwnershipId) {
        if self.owned.get(&partition).is_some_and(|owned| owned.ownership == Some(ownership)) {
            self.forget(partition);
        }
    }

    /// Drops the states of a partition: it is not owned any more, or its start is looked up again.
    pub(in crate::app::event_loop) fn forget(&mut self, partition: Partition) {
        let Some(owned) = self.owned.remove(&partition) else { return };
        if let Some(reader) = &self.reader {
            reader.cancel(partition.topic, partition.number);
        }
        if let Some(states) = self.states_of(partition) {
            states.store.close(partition.number, owned.session);
        }
        self.end_loads(partition);
        self.end_mark_loads(partition);
        self.share_cache();
    }

    /// The store's file was damaged and is gone: a new one is restored, and loads wait for it. What is not committed, and
    /// what is cached, stays valid.
    pub(super) fn store_lost(&mut self, partition: Partition, session: SessionId, now_ms: i64) {
        self.last_session += 1;
        let next = SessionId(self.last_session);
        let Some(owned) = self.session(partition, session) else { return };
        owned.session = next;
        owned.step = Step::Opening;
        owned.found_ms = now_ms;
        let file = owned.file;
        if let Some(states) = self.states_of(partition) {
            states.store.open(partition.number, next, file, now_ms);
        }
    }
}

fn refused(found: &StartPosition, reason: String) -> Resolved {
    let offset = found.committed.as_ref().map_or(0, |(offset, _)| *offset);
    Resolved::Refused { partition: found.partition, offset, reason }
}

/// Returns what an operator can do about a mismatch.
fn remedy(mismatch: &Mismatch) -> &'static str {
    match mismatch {
        Mismatch::StateMissing { .. }
        | Mismatch::BindingMissing { .. }
        | Mismatch::SeededAfterStart { .. } => {
            "restore the changelog, or stop all members and run `keylane state reset`, which processes the log again"
        }
        Mismatch::ResetUnfinished { .. } => "stop all members, and run `keylane state reset` again",
        Mismatch::CommitMissing { .. } | Mismatch::OtherOffset { .. } | Mismatch::OtherMetadata { .. } => {
            "stop all members, and run `keylane state adopt` to go on from the state, or `keylane state reset` to process \
             the log again"
        }
        Mismatch::TopicRecreated { .. } | Mismatch::OtherTopic { .. } => {
            "stop all members and run `keylane state reset`, or use another `group_id`"
        }
        Mismatch::OtherHandler { .. } => "give each handler its own `keys.topic`, or its old name",
        Mismatch::OtherPartitionCount { .. } | Mismatch::OtherLaneKey { .. } => {
            "use another `group_id`, which processes the log again, or stop all members and run `keylane state reset`"
        }
    }
}
