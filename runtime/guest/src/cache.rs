//! Compiled components, cached between runs: loading takes 0.1 to 3 ms instead of up to 20 s.
//!
//! One file per component, compiler version and engine settings, in a directory that only the current user can
//! access. The file name contains the digest of the content: a truncated or changed file is detected and the
//! component is compiled again. A problem is a warning, never an error: the cache only saves time.

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

/// The version of the compiler. The engine compares only major versions, but code that an older patch release compiled
/// may have a bug that the newer one fixes.
const COMPILER: &str = wasmtime_environ::VERSION;

const EXTENSION: &str = "cwasm";

/// Mode bits that grant access to other users.
const OTHERS: u32 = 0o077;

/// A directory of compiled components. The directory is checked when it is used, so creating this value can't fail.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Creates a cache. Its directory is created with mode 0700 when it is first needed.
    pub fn new(directory: impl Into<PathBuf>) -> Cache {
        Cache { directory: directory.into() }
    }

    /// Returns the compiled form of a component, if the cache has one that passes every check.
    pub(super) fn get(&self, engine: &Engine, wasm: &[u8]) -> Option<Component> {
        if let Err(reason) = self.prepare_directory() {
            self.warn("compile cache not used", &reason);
            return None;
        }
        let (path, digest) = self.find(&key(engine, wasm))?;
        match open(engine, &path, &digest) {
            Ok(component) => Some(component),
            Err(reason) => {
                tracing::warn!(file = %path.display(), reason, "cached component invalid; compiling it again");
                // Whatever the file is, it must not stay beside the one that will be written.
                if let Err(error) = fs::remove_file(&path) {
                    self.warn("cached component can't be removed", &error.to_string());
                }
                None
            }
        }
    }

    /// Stores a compiled component for the next run.
    pub(super) fn put(&self, engine: &Engine, wasm: &[u8], code: &Code) {
        let stored = self.prepare_directory().and_then(|()| {
            let write = |digest: String| self.write(&key(engine, wasm), &digest, code.reader()?);
            code.reader().and_then(digest_of).and_then(write).map_err(|error| error.to_string())
        });
        if let Err(reason) = stored {
            self.warn("compiled component not cached", &reason);
        }
    }

    fn warn(&self, message: &'static str, reason: &str) {
        tracing::warn!(directory = %self.directory.display(), reason, "{message}");
    }

    /// Creates the directory, or checks the existing one.
    fn prepare_directory(&self) -> Result<(), String> {
        let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        created.map_err(|error| format!("can't be created: {error}"))?;
        let found = fs::symlink_metadata(&self.directory).map_err(|error| error.to_string())?;
        if !found.is_dir() {
            return Err("not a directory".to_owned());
        }
        check_owner(&found).map_err(|reason| format!("{reason}; create it with mode 0700 for this user"))
    }

    /// Returns the file of a key, and the expected digest of its content.
    fn find(&self, key: &str) -> Option<(PathBuf, String)> {
        fs::read_dir(&self.directory).ok()?.flatten().find_map(|entry| {
            let path = entry.path();
            let (found, digest) = path.file_stem()?.to_str()?.split_once('.')?;
            let fits = found == key && path.extension()? == EXTENSION;
            let digest = digest.to_owned();
            fits.then_some((path, digest))
        })
    }

    /// Writes a file under a temporary name first, so that a file with its final name is complete.
    fn write(&self, key: &str, digest: &str, mut code: impl Read) -> io::Result<()> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let write = format!("{}-{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let unfinished = self.directory.join(format!("{key}.{write}.unfinished"));
        let path = self.directory.join(format!("{key}.{digest}.{EXTENSION}"));
        // A killed run may have left such a file.
        fs::remove_file(&unfinished).ok();
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        io::copy(&mut code, &mut file)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }
}

/// Hashes everything that the code depends on.
fn key(engine: &Engine, wasm: &[u8]) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    COMPILER.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Sha256::digest(wasm).as_slice().hash(&mut hasher);
    hex(&hasher.0.finalize())
}

/// Computes the SHA-256 digest of a stream, which may be large.
fn digest_of(mut content: impl Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    io::copy(&mut content, &mut digest)?;
    Ok(hex(&digest.finalize()))
}

/// A hasher for `Hash` values that uses SHA-256: its result is the same in every run and every build.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0 // the digest is taken from the field
    }
}

fn check_owner(found: &fs::Metadata) -> Result<(), String> {
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return Err(format!("owned by user {}, but the current user is {us}", found.uid()));
    }
    if found.mode() & OTHERS != 0 {
        return Err(format!("other users have access (mode {:o})", found.mode() & 0o7777));
    }
    Ok(())
}

/// Maps a cached file after checking it as far as possible.
fn open(engine: &Engine, path: &Path, digest: &str) -> Result<Component, String> {
    let found = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("not a file".to_owned());
    }
    check_owner(&found)?;
    let content = fs::File::open(path).and_then(digest_of).map_err(|error| error.to_string())?;
    if content != digest {
        return Err("content does not match its digest".to_owned());
    }
    deserialize(engine, path).map_err(|error| format!("{error:#}"))
}

#[expect(unsafe_code, reason = "compiled code is mapped; see the safety argument")]
fn deserialize(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize_file` runs the content of the file, so the file must be the unchanged output of
    // wasmtime's compiler. It is, because
    // - only `Cache::write` gives a file this name: complete (renamed after it is written and synced), and with
    //   the digest of its content in the name, which `open` has just compared;
    // - no other user can have written it or can change it while it is mapped: the directory and the file
    //   belong to our user and give others no access (`prepare_directory`, `check_owner`), and we never write to a
    //   file after its rename. A process that can act as our user, or as root, can replace this program as well;
    // - it was compiled for this engine: the key contains the compiler's version and its settings, and wasmtime checks
    //   the major version and the settings again;
    // - a handler file is never loaded here: a file that an operator configures is refused if it is compiled code
    //   (`load::to_component`).
    unsafe { Component::deserialize_file(engine, path) }
}

#[cfg(test)]
mod tests;
