//! A group member with a simplified event loop and core.
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use keylane_core::{CommitEntry, CommitId, Partition, ReadError, RebalanceId, StartAt};

use super::broker::TEST_LIMIT;
use crate::librdkafka::{Deadline, Wake, WakeHandle};
use crate::source::event::{SourceError, StartPosition};
use crate::source::{Source, SourceEvent, SourceSpec};

pub(super) struct Member {
    pub(super) source: Source,
    wake: WakeHandle,
    /// The next offset of every partition that is being read.
    pub(super) next: BTreeMap<Partition, i64>,
    /// Every record that was read: partition, offset, value.
    pub(super) records: Vec<(Partition, i64, Vec<u8>)>,
    pub(super) starts: Vec<StartPosition>,
    pub(super) ends: BTreeMap<Partition, i64>,
    pub(super) log_ends: BTreeMap<Partition, i64>,
    pub(super) other_events: Vec<SourceEvent>,
    pub(super) errors: Vec<SourceError>,
    /// Offsets out of order: partition, expected, received.
    pub(super) out_of_order: Vec<(Partition, i64, i64)>,
    pub(super) delayed_steps: u32,
    unresolved: BTreeSet<Partition>,
    resolved: Vec<StartAt>,
    pub(super) assigning: Option<RebalanceId>,
    /// Whether assigns stay unanswered.
    pub(super) holds_answers: bool,
    revoked: Option<(RebalanceId, Vec<Partition>, u32)>,
    commit_out: Option<CommitId>,
    commits: u64,
    /// Number of steps for which a revoke stays unanswered.
    pub(super) revoke_delay: u32,
    pub(super) max_events: u32,
    /// Errors that ended reads.
    pub(super) read_errors: Vec<(Partition, ReadError)>,
}

impl Member {
    pub(super) fn join(spec: &SourceSpec) -> Member {
        let wake = Wake::new().expect("an eventfd can be created");
        let mut tries = 0;
        let source = Source::start(spec, wake.clone(), &mut |_| {
            tries += 1;
            if tries < 1_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .expect("the source starts");
        source.join().expect("the source subscribes");
        Member {
            source,
            wake,
            next: BTreeMap::new(),
            records: Vec::new(),
            starts: Vec::new(),
            ends: BTreeMap::new(),
            log_ends: BTreeMap::new(),
            other_events: Vec::new(),
            errors: Vec::new(),
            out_of_order: Vec::new(),
            delayed_steps: 0,
            unresolved: BTreeSet::new(),
            resolved: Vec::new(),
            assigning: None,
            holds_answers: false,
            revoked: None,
            commit_out: None,
            commits: 0,
            revoke_delay: 0,
            max_events: 100,
            read_errors: Vec::new(),
        }
    }

    /// Runs one turn of the loop. Waits briefly if nothing was read.
    pub(super) fn step(&mut self) {
        while let Some(event) = self.source.next_event(Duration::ZERO) {
            self.on(event);
        }
        self.answer_assign();
        self.answer_revoke();
        if !self.read_all() {
            self.wake.wait(Some(Duration::from_millis(10)));
        }
    }

    /// Runs turns until the condition holds.
    pub(super) fn until(&mut self, what: &str, mut reached: impl FnMut(&Member) -> bool) {
        let limit = Deadline::after(TEST_LIMIT);
        while !reached(self) {
            assert!(!limit.is_over(), "not reached: {what}; next {:?}, errors {:?}", self.next, self.errors);
            self.step();
        }
    }

    fn on(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assign(request, partitions) => {
                self.assigning = Some(request);
                self.unresolved = partitions.iter().copied().collect();
                for partition in partitions {
                    self.source.look_up_start(partition);
                }
                self.answer_assign();
            }
            SourceEvent::StartResolved(found) => {
                let offset = found.committed.as_ref().map_or(found.fallback, |(offset, _)| *offset);
                self.unresolved.remove(&found.partition);
                self.resolved.push(StartAt { partition: found.partition, offset });
                self.starts.push(found);
                self.answer_assign();
            }
            SourceEvent::LookupFailed { partition, .. } => self.source.look_up_start(partition),
            SourceEvent::Revoke(request, partitions) => {
                self.revoked = Some((request, partitions, self.revoke_delay));
            }
            SourceEvent::Lost(request, partitions) => {
                for partition in partitions {
                    self.next.remove(&partition);
                }
                self.source.answer_revoke(request);
            }
            SourceEvent::OtherDelivery { member } => {
                panic!("{member} is not checked under at-least-once delivery")
            }
            SourceEvent::EndKnown { partition, offset } => {
                assert_eq!(self.ends.insert(partition, offset), None, "an end is reported once");
            }
            SourceEvent::CommitResult { id, .. } => {
                self.commit_out.take_if(|out| *out == id);
                self.other_events.push(event);
            }
            SourceEvent::Error(error) => self.errors.push(error),
            SourceEvent::LogEnd { .. }
            | SourceEvent::LogEndSeen { .. }
            | SourceEvent::PartitionCount { .. } => {}
            SourceEvent::ReadFailed { .. } | SourceEvent::CommitTimedOut { .. } => {
                self.other_events.push(event)
            }
        }
    }

    fn answer_assign(&mut self) {
        if self.unresolved.is_empty()
            && !self.holds_answers
            && let Some(request) = self.assigning.take()
        {
            let starts = std::mem::take(&mut self.resolved);
            self.next.extend(starts.iter().map(|start| (start.partition, start.offset)));
            self.source.answer_assign(request, &starts);
        }
    }

    /// Answers the revoke after its delay. If there is a delay, the read positions are committed
    /// first, and the answer waits for the result.
    fn answer_revoke(&mut self) {
        let Some((request, partitions, delay)) = self.revoked.take() else { return };
        if delay > 0 {
            self.delayed_steps += 1;
            if delay == 1 {
                self.commit_positions(&partitions, "");
            }
            self.revoked = Some((request, partitions, delay - 1));
        } else if self.commit_out.is_some() {
            self.revoked = Some((request, partitions, 0));
        } else {
            self.source.answer_revoke(request);
            for partition in partitions {
                self.next.remove(&partition);
            }
        }
    }

    pub(super) fn commit_positions(&mut self, partitions: &[Partition], metadata: &str) -> CommitId {
        let length = u32::try_from(metadata.len()).expect("the metadata is short");
        let entries: Vec<CommitEntry> = partitions
            .iter()
            .filter_map(|partition| {
                let offset = *self.next.get(partition)?;
                Some(CommitEntry { partition: *partition, offset, metadata: (0, length), unclaimed: 0 })
            })
            .collect();
        self.commits += 1;
        let id = CommitId(self.commits);
        if !entries.is_empty() {
            self.commit_out = Some(id);
            self.source.commit(Duration::ZERO, id, &entries, metadata);
        }
        id
    }

    /// Commits the read positions and waits for the coordinator's response.
    pub(super) fn commit_all(&mut self) {
        let partitions: Vec<Partition> = self.next.keys().copied().collect();
        self.other_events.clear();
        self.commit_positions(&partitions, "");
        self.until("the commit has a result", |m| m.other_events.len() == partitions.len());
        let stored = |event: &SourceEvent| matches!(event, SourceEvent::CommitResult { result: Ok(()), .. });
        assert!(self.other_events.iter().all(stored), "{:?}", self.other_events);
    }

    fn read_all(&mut self) -> bool {
        let mut any = false;
        for (partition, next) in &mut self.next {
            let (records, out_of_order) = (&mut self.records, &mut self.out_of_order);
            let result = self.source.read(*partition, self.max_events, u64::MAX, &mut |record| {
                if record.offset() != *next {
                    out_of_order.push((*partition, *next, record.offset()));
                }
                *next = record.offset() + 1;
                records.push((*partition, record.offset(), record.value().unwrap_or_default().to_vec()));
                1
            });
            assert!(result.records <= self.max_events);
            self.read_errors.extend(result.error.map(|why| (*partition, why)));
            if let Some(end) = result.end_of_partition {
                self.log_ends.insert(*partition, end);
            }
            any |= result.more || result.records > 0;
        }
        any
    }
}
