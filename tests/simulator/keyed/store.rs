//! The store of a process: a thread that loads and applies entries in the order of the calls, and one file per partition,
//! which may lack the last entries when the process ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use keylane_state::{BINDING_KEY, Entry, KeyBytes};

use super::super::plan::{Class, MS, Micros, SECOND};
use super::super::planted::Planted;
use super::super::trace::Seen;
use super::super::world::{Event, World};

/// Values by record key, the binding record included.
pub(super) type Content = BTreeMap<KeyBytes, Row>;

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) value: Arc<[u8]>,
    /// When the value was changed; `None`: not known.
    pub(super) changed_ms: Option<i64>,
}

/// An open partition.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) content: Content,
    /// The content is complete up to this offset of the changelog.
    pub(super) position: i64,
    /// A time at which the changelog ended at this position.
    pub(super) complete_at: Micros,
    /// Whether a record besides the binding was found, deletions included.
    pub(super) has_records: bool,
    /// Another process has locked the file.
    is_private: bool,
    /// When the last task of the session is done.
    busy_until: Micros,
}

/// What a host has on its disk for one partition.
#[derive(Debug, Default)]
pub(super) struct Disk {
    file: Option<File>,
    /// Copies of former states of the file.
    copies: Vec<File>,
    locked_by: Option<usize>,
}

#[derive(Clone, Debug)]
struct File {
    input_id: Option<[u8; 16]>,
    content: Content,
    position: i64,
    complete_at: Micros,
}

/// Work for the thread of the store.
#[derive(Debug)]
pub(crate) struct Task {
    pub(super) partition: usize,
    pub(super) session: u64,
    pub(super) work: Work,
    /// It was still queued when its session ended, and the queue is stuck.
    is_late: bool,
}

#[derive(Debug)]
pub(super) enum Work {
    /// `through`: the offset up to which the content is complete then, and a time at which the changelog ended there;
    /// `None`: not known.
    Apply {
        entries: Vec<Entry>,
        through: Option<(i64, Micros)>,
    },
    Load {
        call: (u32, u32),
        lane: usize,
        key: KeyBytes,
    },
    /// A search for old values.
    Scan {
        changed_before_ms: i64,
    },
}

impl Store {
    /// Whether these entries would change the content.
    fn differs(&self, entries: &[Entry]) -> bool {
        let is_new = |entry: &&Entry| {
            self.content.get(&entry.key[..]).map(|row| &*row.value) != entry.value.as_deref()
        };
        entries.iter().filter(|entry| entry.key[..] != BINDING_KEY).any(|entry| is_new(&entry))
    }

    pub(super) fn insert(&mut self, key: &KeyBytes, value: Option<&Arc<[u8]>>, changed_ms: Option<i64>) {
        self.has_records |= key[..] != BINDING_KEY;
        match value {
            Some(value) => self.content.insert(key.clone(), Row { value: Arc::clone(value), changed_ms }),
            None => self.content.remove(key),
        };
    }
}

impl World {
    /// Opens the file of a partition, unless it is locked. A file that may lack deletions is not used.
    pub(super) fn open_store(&mut self, p: usize, index: usize) {
        let Some(plan) = self.plan.keyed else { return };
        let Some(input_id) = self.session(p, index).map(|session| session.identity.topic_id) else { return };
        let name = self.disk_of(p, index);
        let owner = self.keyed.disks.get(&name).and_then(|disk| disk.locked_by);
        let mut store = Store { has_records: false, ..Store::default() };
        if owner.is_some_and(|owner| owner != p && self.processes[owner].alive) {
            self.saw(Seen::StoresPrivate);
            store.is_private = true;
        } else {
            let disk = self.keyed.disks.entry(name).or_default();
            disk.locked_by = Some(p);
            let trusted_for = plan.deletions_kept / 2;
            let is_old = |file: &File| file.complete_at + trusted_for < self.now;
            let too_old = disk.file.as_ref().is_some_and(is_old);
            let file = disk.file.clone().filter(|file| file.input_id == input_id);
            if too_old {
                self.saw(Seen::StoresTooOld);
            }
            if let Some(file) = file.filter(|_| !too_old || self.planted == Some(Planted::OldFileTrusted)) {
                self.saw(Seen::StoresResumed);
                store.has_records = file.content.keys().any(|key| key[..] != BINDING_KEY);
                (store.content, store.position) = (file.content, file.position);
            }
        }
        self.check_file(p, index, &store.content, store.position);
        self.note(p, "store", Some(index), store.position, store.content.len() as i64);
        if let Some(session) = self.session(p, index) {
            session.store = store;
        }
    }

    /// The host of a process, and the partition.
    fn disk_of(&self, p: usize, index: usize) -> (usize, usize) {
        let hosts = self.plan.keyed.map_or(1, |plan| plan.hosts);
        (self.processes[p].instance % hosts, index)
    }

    pub(super) fn unlock(&mut self, p: usize, index: usize) {
        let name = self.disk_of(p, index);
        if let Some(disk) = self.keyed.disks.get_mut(&name) {
            disk.locked_by.take_if(|owner| *owner == p);
        }
    }

    pub(super) fn write_file_sometimes(&mut self, p: usize, index: usize) {
        if self.rng.percent(40) {
            self.write_file(p, index);
        }
    }

    /// Makes the content of the store durable.
    pub(super) fn write_file(&mut self, p: usize, index: usize) {
        let name = self.disk_of(p, index);
        let keeps_copy = self.rng.percent(30);
        let Some(session) = self.processes[p].shell.keyed.sessions.get(&index) else { return };
        let store = &session.store;
        let Some(disk) = self.keyed.disks.get_mut(&name).filter(|_| !store.is_private) else { return };
        let file = File {
            input_id: session.identity.topic_id,
            content: store.content.clone(),
            position: store.position,
            complete_at: store.complete_at,
        };
        disk.copies.extend(keeps_copy.then(|| file.clone()));
        disk.file = Some(file);
    }

    /// Somebody deletes a file, or replaces it by an old copy.
    pub(crate) fn harm_file(&mut self) {
        let index = self.rng.index(self.keyed.disks.len().max(1));
        let copy = self.rng.next() as usize;
        let Some(disk) = self.keyed.disks.values_mut().nth(index) else { return };
        let deletes = disk.copies.is_empty() || self.rng.percent(30);
        disk.file = (!deletes).then(|| disk.copies[copy % disk.copies.len()].clone());
        self.saw(if deletes { Seen::StoresDeleted } else { Seen::StoresReplaced });
    }

    pub(super) fn queue_task(&mut self, p: usize, index: usize, work: Work) {
        let mut delay = self.rng.range(MS / 10, 5 * MS);
        if self.occurs(Class::StoreSlow, 10) {
            delay += self.rng.range(SECOND / 10, 4 * SECOND);
        }
        let now = self.now;
        let Some(session) = self.session(p, index) else { return };
        let at = (now + delay).max(session.store.busy_until + 1);
        session.store.busy_until = at;
        let task = Task { partition: index, session: session.id, work, is_late: false };
        self.after(at - now, Event::Store(p, task));
    }

    pub(crate) fn do_task(&mut self, p: usize, task: Task) {
        let index = task.partition;
        let session = self.session(p, index).filter(|session| session.states.is_some());
        let current = session.is_some_and(|session| session.id == task.session);
        if !current && !task.is_late && self.occurs(Class::StoreSlow, 70) {
            let delay = self.rng.range(SECOND / 10, 8 * SECOND);
            return self.after(delay, Event::Store(p, Task { is_late: true, ..task }));
        }
        match task.work {
            Work::Load { call, lane, key } => {
                let session = self.session(p, index).filter(|_| current);
                let value = session
                    .and_then(|session| session.store.content.get(&key).map(|row| Arc::clone(&row.value)));
                self.state_loaded(p, call, lane, &key, current.then_some(value));
            }
            Work::Scan { changed_before_ms } if current => self.scan(p, index, changed_before_ms),
            Work::Scan { .. } => {}
            Work::Apply { entries, through } => {
                if !current {
                    self.saw(Seen::StoreTasksDropped);
                    let session = self.session(p, index).filter(|session| session.states.is_some());
                    if session.is_some_and(|session| session.store.differs(&entries)) {
                        self.saw(Seen::StoreTasksOutdated);
                    }
                    if self.planted != Some(Planted::OldStoreTask) {
                        return;
                    }
                }
                self.check_entries(p, index, &entries);
                let Some(session) = self.session(p, index) else { return };
                for entry in entries {
                    let value = entry.value.clone();
                    session.store.insert(&entry.key, value.as_ref(), entry.changed_ms);
                }
                if let Some((position, complete_at)) = through {
                    (session.store.position, session.store.complete_at) = (position, complete_at);
                }
                self.write_file_sometimes(p, index);
            }
        }
    }
}
