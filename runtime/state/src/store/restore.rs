//! A restore: the records from the resumption to the end of the changelog, before they are in the file.
//!
//! They arrive in no order of keys, and a file is filled several times faster in the order of its keys: each write of a
//! full buffer to a large file would rewrite all its pages. So full buffers become sorted runs in a temporary file, and
//! the runs are merged into the file at the end. An interrupted restore leaves the file as it was.

use std::path::PathBuf;
use std::time::Instant;

use super::buffer::Buffer;
use super::file::{Fault, File};
use super::runs::{Merge, MergedEntries, Runs, StepLimits};
use super::storage::unnamed_file;

/// One step of the merge: 20,000 small entries take 20–40 ms, and large ones are limited by the memory that they take.
/// Other partitions are served between two steps.
const STEP: StepLimits = StepLimits { entries: 20_000, bytes: 4 << 20 };

#[derive(Debug)]
pub(super) struct Restore {
    dir: PathBuf,
    partition: i32,
    /// `None`: everything is in the buffer.
    runs: Option<Runs>,
    /// Since when the runs are merged; `None`: records still arrive.
    merging_since: Option<Instant>,
    merge: Option<Merge>,
}

impl Restore {
    pub(super) fn new(dir: PathBuf, partition: i32) -> Restore {
        Restore { dir, partition, runs: None, merging_since: None, merge: None }
    }

    /// All records have arrived, or values are read before.
    pub(super) fn begin_merge(&mut self, now: Instant) {
        self.merging_since.get_or_insert(now);
    }

    pub(super) fn merging_since(&self) -> Option<Instant> {
        self.merging_since
    }

    /// Moves the buffer into a run.
    pub(super) fn add(&mut self, buffer: &mut Buffer) -> Result<(), Fault> {
        let runs = match &mut self.runs {
            Some(runs) => runs,
            None => {
                let file = unnamed_file(&self.dir, self.partition).map_err(io)?;
                self.runs.insert(Runs::new(file))
            }
        };
        runs.add(&buffer.sorted()).map_err(io)?;
        buffer.clear();
        Ok(())
    }

    /// Merges some entries into the file. Returns whether these were the last ones.
    pub(super) fn step(&mut self, file: &File) -> Result<bool, Fault> {
        let Some(runs) = &self.runs else { return Ok(true) };
        let merge = match &mut self.merge {
            Some(merge) => merge,
            None => self.merge.insert(runs.merge().map_err(io)?),
        };
        let MergedEntries { entries, is_last } = merge.take(STEP).map_err(io)?;
        let sorted: Vec<_> = entries.iter().map(|entry| (&*entry.key, entry.row())).collect();
        file.add(&sorted)?;
        Ok(is_last)
    }

    /// The file has lost what was merged, because it was closed with an error.
    pub(super) fn repeat_merge(&mut self) {
        self.merge = None;
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of a mapping")]
fn io(error: std::io::Error) -> Fault {
    Fault::Io(format!("temporary file of a restore: {error}"))
}
