//! Where the pages of one partition are: a locked file, or memory.

use std::fs::{File, OpenOptions, TryLockError, create_dir_all, remove_file};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

/// A storage that several databases use one after the other. redb must open a file again after each I/O error, and the
/// lock is held in between.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pages: Pages,
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

#[derive(Clone, Debug)]
enum Pages {
    /// The lock ends when the last clone is dropped.
    File(Arc<File>),
    Memory(Arc<InMemoryBackend>),
}

/// A storage, and why it is not the file of the partition.
pub(super) struct Located {
    pub(super) storage: Storage,
    pub(super) note: Option<String>,
}

impl Storage {
    pub(super) fn in_memory() -> Storage {
        Storage::of(Pages::Memory(Arc::new(InMemoryBackend::new())))
    }

    /// Opens and locks the file of a partition, or creates it. If another process has the lock: a private file,
    /// which ends with this storage.
    pub(super) fn locate(dir: &Path, partition: i32) -> io::Result<Located> {
        create_dir_all(dir)?;
        let path = dir.join(format!("{partition}.redb"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Located { storage: Storage::of(Pages::File(Arc::new(file))), note: None }),
            Err(TryLockError::WouldBlock) => {
                let storage = Storage::private(dir, partition)?;
                let note = "another process uses it: a private file is used until the partition is closed";
                Ok(Located { storage, note: Some(note.to_owned()) })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn private(dir: &Path, partition: i32) -> io::Result<Storage> {
        Ok(Storage::of(Pages::File(Arc::new(unnamed_file(dir, partition)?))))
    }

    fn of(pages: Pages) -> Storage {
        Storage {
            pages,
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        }
    }

    pub(super) fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|length| length == 0)
    }

    /// Deletes the content. The lock is kept, so that no other process gets between.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.set_len(0)
    }

    #[cfg(test)]
    fn check(&self) -> io::Result<()> {
        self.faults.check()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests inject faults")]
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates a file that has no name, so that it ends with its handle, however the process ends.
pub(super) fn unnamed_file(dir: &Path, partition: i32) -> io::Result<File> {
    static FILES: AtomicU64 = AtomicU64::new(0);
    // A number of its own for each attempt: a process with the same id may have left a file.
    let (process, number) = (std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
    let path = dir.join(format!("{partition}.temporary-{process}-{number}"));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    remove_file(&path)?;
    Ok(file)
}

/// Without locks of redb: it would release them between two databases.
impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        match &self.pages {
            Pages::File(file) => Ok(file.metadata()?.len()),
            Pages::Memory(memory) => memory.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        match &self.pages {
            Pages::File(file) => file.read_exact_at(out, offset),
            Pages::Memory(memory) => memory.read(offset, out),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check()?;
        match &self.pages {
            Pages::File(file) => file.set_len(length),
            Pages::Memory(memory) => memory.set_len(length),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        match &self.pages {
            Pages::File(file) => file.sync_data(),
            Pages::Memory(memory) => memory.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        match &self.pages {
            Pages::File(file) => file.write_all_at(data, offset),
            Pages::Memory(memory) => memory.write(offset, data),
        }
    }
}
