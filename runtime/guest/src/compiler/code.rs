//! Machine code between the process that compiles it and the engine that runs it.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Creates an anonymous file in memory, which only this process and the child that inherits it can access.
pub(super) fn memory_file(name: &str) -> io::Result<File> {
    let file = memfd_create(format!("keylane-{name}"), MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    Ok(File::from(file))
}

/// The output of a compiler of ours. It is immutable.
#[derive(Debug)]
pub(in super::super) struct Code(File);

impl Code {
    /// Seals a memory file that a compiler of ours has completely written.
    pub(super) fn seal(file: File) -> io::Result<Code> {
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Code(file))
    }

    /// Returns a path under which this process can open the code while this value exists.
    pub(in super::super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// Reads the code from its beginning.
    pub(in super::super) fn reader(&self) -> io::Result<&File> {
        let mut file = &self.0;
        file.rewind()?;
        Ok(file)
    }
}
