//! Compiled components, kept from run to run: 0.1 to 3 ms instead of up to 20 s.
//!
//! One file per component, compiler version and engine setting, in a directory that only we can enter. The
//! file's name holds the digest of its content too: a file that was cut short or changed is noticed and the
//! component is compiled again. Anything odd is a warning, never an error: the cache only saves time.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiler::Code;
use super::load::hex;

/// The engine itself only tells major versions apart, but what an older patch compiled may have the very
/// bug that the newer one repairs.
const COMPILER: &str = wasmtime_environ::VERSION;

const EXTENSION: &str = "cwasm";

/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// A directory of compiled components. It is looked at when it is used, so that making one can't fail.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// `directory` is made when it is first needed, with mode 0700.
    pub fn new(directory: impl Into<PathBuf>) -> Cache {
        Cache { directory: directory.into() }
    }

    /// The compiled form of a component, if there is one that can be trusted.
    pub(super) fn get(&self, engine: &Engine, wasm: &[u8]) -> Option<Component> {
        if let Err(reason) = self.secure() {
            self.warn("the compile cache is not used", &reason);
            return None;
        }
        let (path, digest) = self.find(&key(engine, wasm))?;
        match open(engine, &path, &digest) {
            Ok(component) => Some(component),
            Err(reason) => {
                tracing::warn!(file = %path.display(), reason, "a cached component is compiled again");
                // Whatever it is, it is in the way of the file that will be written.
                if let Err(error) = fs::remove_file(&path) {
                    self.warn("a file of the compile cache can't be removed", &error.to_string());
                }
                None
            }
        }
    }

    /// Keeps a compiled component for the next run.
    pub(super) fn put(&self, engine: &Engine, wasm: &[u8], code: &Code) {
        let stored = self.secure().and_then(|()| {
            let write = |digest: String| self.write(&key(engine, wasm), &digest, code.reader()?);
            code.reader().and_then(digest_of).and_then(write).map_err(|error| error.to_string())
        });
        if let Err(reason) = stored {
            self.warn("a compiled component is not kept", &reason);
        }
    }

    fn warn(&self, what: &'static str, reason: &str) {
        tracing::warn!(directory = %self.directory.display(), reason, "{what}");
    }

    /// Makes the directory, or checks the one that is there.
    fn secure(&self) -> Result<(), String> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|error| format!("it can't be made: {error}"))?;
        let found = fs::symlink_metadata(&self.directory).map_err(|error| error.to_string())?;
        if !found.is_dir() {
            return Err("it is not a directory".to_owned());
        }
        ours(&found).map_err(|reason| format!("{reason}; make it with mode 0700 for this user"))
    }

    /// The file of a key, and the digest that its content must have.
    fn find(&self, key: &str) -> Option<(PathBuf, String)> {
        fs::read_dir(&self.directory).ok()?.flatten().find_map(|entry| {
            let path = entry.path();
            let (found, digest) = path.file_stem()?.to_str()?.split_once('.')?;
            let fits = found == key && path.extension()? == EXTENSION;
            let digest = digest.to_owned();
            fits.then_some((path, digest))
        })
    }

    /// Under a name of its own first: a file with its final name is complete.
    fn write(&self, key: &str, digest: &str, mut code: impl Read) -> io::Result<()> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let write = format!("{}-{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let unfinished = self.directory.join(format!("{key}.{write}.unfinished"));
        let path = self.directory.join(format!("{key}.{digest}.{EXTENSION}"));
        // A run that was killed may have left one.
        fs::remove_file(&unfinished).ok();
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        io::copy(&mut code, &mut file)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }
}

/// Everything that the code depends on.
fn key(engine: &Engine, wasm: &[u8]) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    COMPILER.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Sha256::digest(wasm).as_slice().hash(&mut hasher);
    hex(&hasher.0.finalize())
}

/// SHA-256 of what is read, which may be large.
fn digest_of(mut content: impl Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    io::copy(&mut content, &mut digest)?;
    Ok(hex(&digest.finalize()))
}

/// Feeds what implements `Hash` to a digest that is the same in every run and every build.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0 // the digest is taken from the field
    }
}

fn ours(found: &fs::Metadata) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return Err(format!("it belongs to user {}, we are {us}", found.uid()));
    }
    if found.mode() & OTHERS != 0 {
        return Err(format!("others may use it (mode {:o})", found.mode() & 0o7777));
    }
    Ok(())
}

/// Maps a file of ours, after every check that can be made of it.
fn open(engine: &Engine, path: &Path, digest: &str) -> Result<Component, String> {
    let found = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a file".to_owned());
    }
    ours(&found)?;
    let content = fs::File::open(path).and_then(digest_of).map_err(|error| error.to_string())?;
    if content != digest {
        return Err("its content is not what was written".to_owned());
    }
    deserialize(engine, path).map_err(|error| format!("{error:#}"))
}

/// Maps what a compiler of ours has just made.
#[expect(unsafe_code, reason = "compiled code is taken in; see the safety argument")]
pub(super) fn take_in(engine: &Engine, code: &Code) -> Result<Component, String> {
    // SAFETY: as below, the bytes must be the unchanged output of wasmtime's compiler. They are, because
    // - `Code` is made in `compiler` only, of a file that was never anywhere but in memory, without a name: nobody
    //   but the child that we started could write to it, and now nobody can (it is sealed);
    // - that child is this same program, which writes nothing to its standard output but the compiler's, and it has
    //   ended saying that all is written. A child that was killed or refused gives no `Code`;
    // - what a component does to the compiler in there it could as well have done to one in here: the child is there
    //   for its appetite;
    // - wasmtime checks the compiler's version and settings.
    unsafe { Component::deserialize_file(engine, code.path()) }.map_err(|error| format!("{error:#}"))
}

#[expect(unsafe_code, reason = "compiled code is taken in; see the safety argument")]
fn deserialize(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize_file` runs what the file holds, so the file must be the unchanged output of
    // wasmtime's compiler. It is, because
    // - only `Cache::write` gives a file this name: complete (renamed when written and synced), and with the
    //   digest of its content in the name, which `open` has just compared;
    // - nobody else can have written it or can change it while it is mapped: the directory and the file
    //   belong to our user and no one else may enter or write (`secure`, `ours`), and we never write to a
    //   file after its rename. Who can act as our user, or as root, can replace this program as well;
    // - it was compiled for this engine: the key has the compiler's version and its settings, and wasmtime
    //   checks both again;
    // - handlers never come this way: a file that an operator gives is refused if it is compiled code
    //   (`load::to_component`).
    unsafe { Component::deserialize_file(engine, path) }
}

#[cfg(test)]
mod tests;
