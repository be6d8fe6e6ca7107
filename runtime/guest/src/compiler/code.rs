//! Machine code on its way from the process that made it to the engine that runs it.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// An anonymous file in memory that only this process has, and the child that it is given to.
pub(super) fn memory_file(name: &str) -> io::Result<File> {
    let file = memfd_create(format!("keylane-{name}"), MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    Ok(File::from(file))
}

/// What a compiler of ours wrote. It can't change any more.
#[derive(Debug)]
pub(in super::super) struct Code(File);

impl Code {
    /// For a memory file that a compiler of ours has written and finished.
    pub(super) fn seal(file: File) -> io::Result<Code> {
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Code(file))
    }

    /// A name under which this process can open it, as long as this value is there.
    pub(in super::super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// All of it, from the beginning.
    pub(in super::super) fn reader(&self) -> io::Result<&File> {
        let mut file = &self.0;
        file.rewind()?;
        Ok(file)
    }
}
