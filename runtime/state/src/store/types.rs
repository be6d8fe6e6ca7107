//! What the store and its caller exchange.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::row::Row;
use crate::{KeyBytes, StateValue};

/// How a store works.
#[derive(Clone, Debug)]
pub struct StoreSpec {
    /// The folder of the files, created if it is missing; `None`: everything is kept in memory, and lost at close.
    pub dir: Option<PathBuf>,
    /// The memory for entries that are not in a file yet and for pages of files, in bytes, for all partitions together.
    pub cache_bytes: usize,
    /// A file is used only if it was complete to the end of its changelog less than this ago, because the deletions
    /// after that may have been removed from the changelog by compaction.
    pub trusted_for: Duration,
}

/// One use of a partition's store: from an `open` to its `close`. An ownership has one, and another if its file was lost.
/// Work for another session than the partition's current one has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId(pub u64);

/// The topics that a file belongs to. A file is used only if both ids are known and the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileIdentity {
    /// The topic id of the changelog.
    pub changelog_id: Option<[u8; 16]>,
    /// The topic id of the input.
    pub input_id: Option<[u8; 16]>,
}

/// A record of a committed transaction. It shares its key and value with the cache of the loop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The record key.
    pub key: KeyBytes,
    /// The value; `None`: the key is deleted.
    pub value: StateValue,
    /// When it was changed, in milliseconds since 1970; `None`: not known.
    pub changed_ms: Option<i64>,
}

impl Entry {
    /// Creates the entry of a record by copying its bytes.
    pub fn new(key: &[u8], value: Option<&[u8]>, changed_ms: Option<i64>) -> Entry {
        Entry { key: key.into(), value: value.map(Arc::from), changed_ms }
    }

    /// Returns the memory that the entry uses while it is queued, in bytes, with an allowance for its allocations.
    pub fn bytes(&self) -> usize {
        entry_bytes(&self.key, self.value.as_deref())
    }

    pub(super) fn row(&self) -> Option<Row<'_>> {
        self.value.as_deref().map(|value| Row { changed_ms: self.changed_ms, value })
    }
}

/// The allowance for the allocations of an entry and its place in the buffer.
const ENTRY_OVERHEAD: usize = 96;

pub(super) fn entry_bytes(key: &[u8], value: Option<&[u8]>) -> usize {
    ENTRY_OVERHEAD + key.len() + value.map_or(0, <[u8]>::len)
}

/// What the store reports. Events of one partition come in the order of the calls, except that loads wait while the
/// partition's file fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreEvent {
    /// The partition is open.
    Opened {
        /// The partition.
        partition: i32,
        /// The session that opened it.
        session: SessionId,
        /// The offset of the changelog from which it must be read; `None`: from its beginning.
        resume: Option<i64>,
        /// Why there was a file that is not used, for one line of the log.
        note: Option<String>,
    },
    /// The answer to one `load`.
    Loaded {
        /// The partition.
        partition: i32,
        /// The session of the call.
        session: SessionId,
        /// The token of the call.
        token: u64,
        /// The values, in the order of the keys; `None`: there is no such key.
        values: Vec<StateValue>,
    },
    /// The answer to one `scan`.
    Scanned {
        /// The partition.
        partition: i32,
        /// The session of the call.
        session: SessionId,
        /// The keys with an older value.
        expired: Vec<KeyBytes>,
        /// Where the next step begins; `None`: the file has no more keys.
        next: Option<KeyBytes>,
    },
    /// The entries of one `apply` have left the queue: later loads read them from the store. While a file fails and the
    /// store's memory is full, this is delayed, so that the caller stops reading. Each `apply` ends with this event, also
    /// if its session is over and the entries were dropped.
    Applied {
        /// The partition.
        partition: i32,
        /// The session of the call.
        session: SessionId,
        /// The offset of the call.
        through: Option<i64>,
        /// The sum of [`Entry::bytes`] of the call's entries.
        bytes: usize,
    },
    /// The file can't be read or written. The store repeats the attempt every 5 s and keeps all entries. Loads wait.
    /// Sent once, until `Recovered`.
    Failed {
        /// The partition.
        partition: i32,
        /// The session.
        session: SessionId,
        /// What failed.
        error: String,
    },
    /// The file of a failed partition works again.
    Recovered {
        /// The partition.
        partition: i32,
        /// The session.
        session: SessionId,
    },
    /// The file was damaged while it was open and has been deleted. The session is over in the store, and its loads
    /// remain unanswered: the caller opens the partition again and reads the changelog from its beginning.
    Lost {
        /// The partition.
        partition: i32,
        /// The session that ended.
        session: SessionId,
        /// What was found.
        error: String,
    },
    /// The file is closed and unlocked. Sent once for each `close`, also if the session was over already.
    Closed {
        /// The partition.
        partition: i32,
        /// The session.
        session: SessionId,
    },
}
