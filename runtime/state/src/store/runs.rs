//! Sorted entries of a restore in a temporary file.
//!
//! ```text
//! entry := key_length:u32be row_length:u32be key row
//! ```
//! `row_length` 2^32 − 1 is a deletion.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::row::Row;
use super::types::Entry;

const DELETION: u32 = u32::MAX;

/// The buffer of a run that is written, and of each run that is read.
const WRITE_BUFFER: usize = 256 << 10;
const READ_BUFFER: usize = 32 << 10;

/// The runs of one restore, oldest first. Each is sorted by key.
#[derive(Debug)]
pub(super) struct Runs {
    file: Arc<File>,
    runs: Vec<Range<u64>>,
}

impl Runs {
    /// `file`: an empty file of its own.
    pub(super) fn new(file: File) -> Runs {
        Runs { file: Arc::new(file), runs: Vec::new() }
    }

    /// Adds a run of sorted entries. A run that could not be written completely is overwritten by the next one.
    pub(super) fn add(&mut self, entries: &[(&[u8], Option<Row<'_>>)]) -> io::Result<()> {
        let start = self.runs.last().map_or(0, |run| run.end);
        let mut writer =
            BufWriter::with_capacity(WRITE_BUFFER, Segment { file: &self.file, at: start..u64::MAX });
        let mut bytes = Vec::new();
        for (key, row) in entries {
            bytes.clear();
            if let Some(row) = row {
                row.encode(&mut bytes);
            }
            writer.write_all(&length(key)?.to_be_bytes())?;
            writer.write_all(&row.map_or(Ok(DELETION), |_| length(&bytes))?.to_be_bytes())?;
            writer.write_all(key)?;
            writer.write_all(&bytes)?;
        }
        let end = writer.into_inner().map_err(io::IntoInnerError::into_error)?.at.start;
        self.runs.push(start..end);
        Ok(())
    }

    /// Reads all runs, from their beginning.
    pub(super) fn merge(&self) -> io::Result<Merge> {
        let mut merge = Merge { runs: Vec::new(), heads: BinaryHeap::new() };
        for (number, run) in self.runs.iter().enumerate() {
            let segment = Segment { file: self.file.clone(), at: run.clone() };
            merge.runs.push(BufReader::with_capacity(READ_BUFFER, segment));
            merge.push_head(number)?;
        }
        Ok(merge)
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length != DELETION);
    length.ok_or_else(|| io::Error::other("a key or value has 4 GiB or more"))
}

/// A part of a file.
#[derive(Debug)]
struct Segment<F> {
    file: F,
    at: Range<u64>,
}

impl Read for Segment<Arc<File>> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.at.end - self.at.start).unwrap_or(usize::MAX);
        let wanted = out.len().min(rest);
        let (out, _) = out.split_at_mut(wanted);
        let read = self.file.read_at(out, self.at.start)?;
        self.at.start += read as u64;
        Ok(read)
    }
}

impl Write for Segment<&Arc<File>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at.start)?;
        self.at.start += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest entry of each key of all runs, in the order of the keys.
#[derive(Debug)]
pub(super) struct Merge {
    runs: Vec<BufReader<Segment<Arc<File>>>>,
    heads: BinaryHeap<Reverse<Head>>,
}

/// The next entry of a run.
#[derive(Debug)]
struct Head {
    entry: Entry,
    run: usize,
}

/// By key; of the same key, the newest run first.
impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        self.entry.key.cmp(&other.entry.key).then(other.run.cmp(&self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// The limits of one [`Merge::take`].
#[derive(Debug, Clone, Copy)]
pub(super) struct StepLimits {
    pub(super) entries: usize,
    /// The sum of [`Entry::bytes`] at which it ends: the last entry may exceed it.
    pub(super) bytes: usize,
}

/// What one [`Merge::take`] returns.
#[derive(Debug)]
pub(super) struct MergedEntries {
    pub(super) entries: Vec<Entry>,
    /// Whether no entries follow.
    pub(super) is_last: bool,
}

impl Merge {
    /// Returns the next entries. There is at least one, unless none is left.
    pub(super) fn take(&mut self, limits: StepLimits) -> io::Result<MergedEntries> {
        let (mut entries, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
        while let Some(Reverse(Head { entry, run })) = self.heads.pop() {
            let is_older = entries.last().is_some_and(|last| last.key == entry.key);
            if !is_older {
                if entries.len() == limits.entries || bytes >= limits.bytes {
                    // Its run has not advanced, so the entry is the head again.
                    self.heads.push(Reverse(Head { entry, run }));
                    return Ok(MergedEntries { entries, is_last: false });
                }
                bytes += entry.bytes();
                entries.push(entry);
            }
            self.push_head(run)?;
        }
        Ok(MergedEntries { entries, is_last: true })
    }

    fn push_head(&mut self, run: usize) -> io::Result<()> {
        let Some(reader) = self.runs.get_mut(run) else { return Ok(()) };
        if let Some(entry) = read_entry(reader)? {
            self.heads.push(Reverse(Head { entry, run }));
        }
        Ok(())
    }
}

/// Returns `None` at the end of the run.
fn read_entry(reader: &mut BufReader<Segment<Arc<File>>>) -> io::Result<Option<Entry>> {
    let segment = &reader.get_ref().at;
    if reader.buffer().is_empty() && segment.is_empty() {
        return Ok(None);
    }
    let [mut key_length, mut row_length] = [[0; 4]; 2];
    reader.read_exact(&mut key_length)?;
    reader.read_exact(&mut row_length)?;
    let mut bytes = |length: [u8; 4]| {
        let length = u32::from_be_bytes(length);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?].into_boxed_slice();
        reader.read_exact(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let key = bytes(key_length)?;
    if u32::from_be_bytes(row_length) == DELETION {
        return Ok(Some(Entry::new(&key, None, None)));
    }
    let row = bytes(row_length)?;
    let row = Row::decode(&row).ok_or_else(|| io::Error::other("a row has no time"))?;
    Ok(Some(Entry::new(&key, Some(row.value), row.changed_ms)))
}

#[cfg(test)]
mod tests {
    use super::super::storage::unnamed_file;
    use super::super::tests::TempDir;
    use super::*;

    #[test]
    fn the_newest_entry_of_each_key_is_taken_in_order() {
        let dir = TempDir::new("runs");
        std::fs::create_dir_all(dir.path()).expect("a folder");
        let mut runs = Runs::new(unnamed_file(dir.path(), 3).expect("a file"));
        let row = |value| Some(Row { changed_ms: Some(7), value });
        runs.add(&[(b"a", row(b"1")), (b"b", row(b"1")), (b"d", row(b""))]).expect("written");
        runs.add(&[(b"b", None), (b"c", row(b"2"))]).expect("written");
        runs.add(&[]).expect("written");
        runs.add(&[(b"b", row(b"3")), (b"c", None)]).expect("written");
        let merged = |key: &[u8], value: &[u8]| Entry::new(key, Some(value), Some(7));
        let expected =
            [merged(b"a", b"1"), merged(b"b", b"3"), Entry::new(b"c", None, None), merged(b"d", b"")];
        // Of the limits by bytes, the first is reached by each entry, and the last by none.
        for bytes in [1, 150, 1_000] {
            for count in 1..=5 {
                let mut merge = runs.merge().expect("readable");
                let mut all = Vec::new();
                loop {
                    let step = merge.take(StepLimits { entries: count, bytes }).expect("readable");
                    assert!(!step.entries.is_empty() && step.entries.len() <= count);
                    let before_last: usize = step.entries.iter().rev().skip(1).map(Entry::bytes).sum();
                    assert!(before_last < bytes, "{step:?}");
                    all.extend(step.entries);
                    assert_eq!(
                        step.is_last,
                        all.len() == expected.len(),
                        "{count} entries or {bytes} bytes at once"
                    );
                    if step.is_last {
                        break;
                    }
                }
                assert_eq!(all, expected, "{count} entries or {bytes} bytes at once");
            }
        }
    }
}
