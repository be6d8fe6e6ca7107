//! Compiles components to machine code, each in a child process under [`Limits`].
//!
//! A component of a few hundred kilobytes can keep a compiler busy for minutes, or make it allocate so much memory that
//! the process aborts, and an abort can't be caught. A limit on the component's size does not help. So the process that
//! handles events never compiles: it starts `keylane` once more ([`COMMAND`]), passes it the component's bytes, and
//! receives code, an error, or the limit that was hit.

mod child;
mod code;
mod exit_status;
mod limits;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::load::LoadError;

pub use child::compile_for_parent;
pub(super) use code::Code;
pub use limits::{Limit, Limits};

/// The hidden command of `keylane` that compiles its standard input.
pub const COMMAND: &str = "__compile";

/// Compiles components in child processes.
#[derive(Clone, Debug)]
pub struct Compiler {
    compile_in: CompileIn,
    /// The request to stop. When set, nothing more is compiled, and a running child is killed.
    stop: Arc<AtomicBool>,
}

/// The process in which components are compiled.
#[derive(Clone, Debug)]
enum CompileIn {
    Child {
        program: PathBuf,
        limits: Limits,
    },
    /// This process: for the tests of this library, which have no binary to start.
    #[cfg(test)]
    Here,
}

impl Compiler {
    /// Creates a compiler that runs `program`, which must be the `keylane` binary that this library is part of: the
    /// code that it returns is run.
    pub fn new(program: impl Into<PathBuf>) -> Compiler {
        Compiler::with_limits(program, Limits::default())
    }

    /// Creates a compiler with other limits, for tests, which can't wait for the defaults.
    #[doc(hidden)]
    pub fn with_limits(program: impl Into<PathBuf>, limits: Limits) -> Compiler {
        Compiler { compile_in: CompileIn::Child { program: program.into(), limits }, stop: Arc::default() }
    }

    #[cfg(test)]
    pub(super) fn here() -> Compiler {
        Compiler { compile_in: CompileIn::Here, stop: Arc::default() }
    }

    /// Returns the same compiler, which stops when `stop` is set.
    #[must_use]
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Compiler {
        Compiler { stop, ..self }
    }

    /// Compiles a valid component; `name` is for messages.
    pub(super) fn compile(&self, name: &str, wasm: &[u8]) -> Result<Code, LoadError> {
        match &self.compile_in {
            CompileIn::Child { program, limits } => child::compile(program, limits, &self.stop, name, wasm),
            #[cfg(test)]
            CompileIn::Here => {
                use std::io::Write as _;
                let code = child::compile_here(wasm)
                    .map_err(|reason| LoadError::CompileRejected { name: name.to_owned(), reason })?;
                let mut file = code::memory_file("code").unwrap();
                file.write_all(&code).unwrap();
                Ok(Code::seal(file).unwrap())
            }
        }
    }
}
