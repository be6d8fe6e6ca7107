//! `keylane __compile`: compiles components in a separate process.

use anyhow::Context as _;

use super::{CommandFailure, CompileArguments, Completion};
use crate::guest::Compiler;
use crate::guest::compiler::{Limits, compile_for_parent};
use crate::logging;

/// Creates a compiler that starts this program as its child process.
pub(super) fn compiler() -> Result<Compiler, CommandFailure> {
    let program = std::env::current_exe()
        .context("the path of this program can't be determined, which is needed to compile components")?;
    Ok(Compiler::new(program))
}

/// Compiles the component on standard input. If it can't be compiled, that is a finding, and standard error contains
/// only the reason.
pub(super) fn execute(arguments: &CompileArguments) -> Result<Completion, CommandFailure> {
    let CompileArguments { address_space, cpu_seconds } = *arguments;
    match compile_for_parent(&Limits { address_space, cpu_seconds, ..Limits::default() }) {
        Ok(Ok(())) => Ok(Completion::Success),
        Ok(Err(reason)) => {
            logging::report_and_wait(&format!("{reason}\n"));
            Ok(Completion::Failure)
        }
        // The component is not the cause: this must not look like a finding.
        Err(error) => Err(CommandFailure::Usage {
            message: format!("compilation failed to start: {error}"),
            remedy: "this command is started only by keylane itself",
        }),
    }
}
