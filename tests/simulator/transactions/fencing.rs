//! The group coordinator's part of a transaction: whose offsets it accepts.

use super::super::commits::Stored;
use super::super::trace::Seen;
use super::super::world::World;
use super::Membership;
use super::coordinator::Open;
use super::requests::{Entry, Reply, Sender};

impl World {
    /// The group metadata of a process, as its client knows it.
    pub(super) fn membership(&self, p: usize) -> Membership {
        Membership { member: self.processes[p].shell.member, generation: self.processes[p].generation }
    }

    pub(crate) fn joined(&mut self, p: usize) {
        self.processes[p].shell.member += 1;
    }

    pub(super) fn add_offsets(&mut self, from: Sender, entries: Vec<Entry>, membership: Membership) -> Reply {
        let p = from.process;
        let current = self.membership(p);
        let is_member = self.group.members.contains(&p) && current.member == membership.member;
        if !is_member || membership.generation != self.group.generation {
            self.note(p, "stale offsets", None, -1, i64::from(membership.generation));
            return Reply::Stale;
        }
        if entries.iter().any(|entry| entry.metadata.len() > self.plan.broker_metadata_limit) {
            return Reply::MetadataTooLarge;
        }
        let total: usize = entries.iter().map(|entry| entry.metadata.len()).sum();
        if entries.len() > 1 && total > self.plan.request_metadata_limit {
            return Reply::RequestTooLarge;
        }
        for entry in &entries {
            let owner = self.group.owner[entry.partition];
            self.note(p, "pending", Some(entry.partition), entry.offset, from.number as i64);
            self.require(
                owner.is_none_or(|owner| owner == p),
                "T4 zombie",
                entry.partition,
                entry.offset,
                || format!("process {p} stores an offset of a partition that process {owner:?} owns"),
            );
        }
        self.open_transaction(from).offsets = entries;
        Reply::Done
    }

    /// A transaction is committed: its offsets replace those of its partitions.
    pub(super) fn store_offsets(&mut self, open: &Open) {
        for entry in &open.offsets {
            let sent = self.trace.lines.len() as u64;
            let stored = Stored::new(entry.offset, entry.metadata.clone(), sent);
            if self.is_of_another_topic(entry.partition, &stored) {
                self.saw(Seen::CommitsOfAnotherTopic);
            }
            self.note(open.process, "applied", Some(entry.partition), entry.offset, entry.ownership as i64);
            self.stored[entry.partition] = Some(stored);
        }
    }
}
