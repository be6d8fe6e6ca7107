//! Machine code between the process that compiles it and the engine that runs it.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::AsRawFd as _;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use wasmtime::Engine;
use wasmtime::component::Component;

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

    /// Reads the code from its beginning.
    pub(in super::super) fn reader(&self) -> io::Result<&File> {
        let mut file = &self.0;
        file.rewind()?;
        Ok(file)
    }

    /// Maps the code into memory, so that it can run.
    #[expect(unsafe_code, reason = "compiled code is mapped; see the safety argument")]
    pub(in super::super) fn map(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // This process can open the code under this path while `self` exists.
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        // SAFETY: `deserialize_file` runs the content of the file, so the file must be the unchanged output of
        // wasmtime's compiler. It is, because
        // - `Code` is created only in `compiler`, from an anonymous memory file: only the child that we started could
        //   write to it, and now no process can (it is sealed);
        // - that child runs this same program. It writes nothing but compiled code to its standard output, and its exit
        //   status has reported that all of it is written. There is no `Code` of a child that was killed or failed;
        // - a component that exploits the compiler could do the same if the compiler ran in this process: the child
        //   only limits resources;
        // - wasmtime checks the compiler's version and settings.
        unsafe { Component::deserialize_file(engine, path) }
    }
}
