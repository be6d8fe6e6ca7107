//! Who turns components into machine code: a child process each, under [`Limits`].
//!
//! A component of some hundred kilobytes can keep a compiler busy for minutes, or make it ask for so much memory that
//! the process is aborted, and an abort can't be caught. No limit on the component's size helps. So the process that
//! has events on its hands never compiles: it starts `keylane` once more ([`COMMAND`]), gives it the component's
//! bytes, and takes code, a reason, or the limit that was hit.

mod child;
mod code;
mod limits;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::load::LoadError;

pub use child::compile_for_parent;
pub(super) use code::Code;
pub use limits::{Limit, Limits};

/// The hidden command of `keylane` that compiles what comes on its standard input.
pub const COMMAND: &str = "__compile";

/// Compiles components somewhere else than here.
#[derive(Clone, Debug)]
pub struct Compiler {
    place: Where,
    /// Set: nothing more is compiled, and what is under way is ended.
    stop: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
enum Where {
    Child {
        program: PathBuf,
        limits: Limits,
    },
    /// The tests of this library, which have no binary to start.
    #[cfg(test)]
    Here,
}

impl Compiler {
    /// In processes of `program`, which must be the `keylane` binary that this library is part of: what it gives back
    /// is run.
    pub fn new(program: impl Into<PathBuf>) -> Compiler {
        Compiler::with_limits(program, Limits::default())
    }

    /// With other limits than people get: a test can't wait for those.
    #[doc(hidden)]
    pub fn with_limits(program: impl Into<PathBuf>, limits: Limits) -> Compiler {
        Compiler { place: Where::Child { program: program.into(), limits }, stop: Arc::default() }
    }

    #[cfg(test)]
    pub(super) fn here() -> Compiler {
        Compiler { place: Where::Here, stop: Arc::default() }
    }

    /// The same, which gives up when this is set.
    #[must_use]
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Compiler {
        Compiler { stop, ..self }
    }

    /// The code of a valid component; `name` is for messages.
    pub(super) fn compile(&self, name: &str, wasm: &[u8]) -> Result<Code, LoadError> {
        match &self.place {
            Where::Child { program, limits } => child::compile(program, limits, &self.stop, name, wasm),
            #[cfg(test)]
            Where::Here => {
                use std::io::Write as _;
                let code = child::compile_here(wasm)
                    .map_err(|reason| LoadError::Compile { name: name.to_owned(), reason })?;
                let mut file = code::memory_file("code").unwrap();
                file.write_all(&code).unwrap();
                Ok(Code::seal(file).unwrap())
            }
        }
    }
}
