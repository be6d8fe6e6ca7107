//! `keylane __compile`: how this program compiles components, in a process of its own.

use anyhow::Context as _;

use super::{CommandFailure, CompileArguments, Ending};
use crate::guest::Compiler;
use crate::guest::compiler::{Limits, compile_for_parent};
use crate::telemetry;

/// This program once more.
pub(super) fn compiler() -> Result<Compiler, CommandFailure> {
    let program = std::env::current_exe()
        .context("this program can't find its own file, to compile components with")?;
    Ok(Compiler::new(program))
}

/// Compiles. That a component can't be compiled is a finding, and standard error has nothing but the reason.
pub(super) fn execute(arguments: &CompileArguments) -> Result<Ending, CommandFailure> {
    let CompileArguments { address_space, cpu_seconds } = *arguments;
    match compile_for_parent(&Limits { address_space, cpu_seconds, ..Limits::default() }) {
        Ok(Ok(())) => Ok(Ending::Fine),
        Ok(Err(reason)) => {
            telemetry::report_and_wait(&format!("{reason}\n"));
            Ok(Ending::Findings)
        }
        // Not the component's fault: it must not look like a finding.
        Err(error) => Err(CommandFailure::Usage {
            message: format!("can't compile here: {error}"),
            hint: "only keylane itself starts this command",
        }),
    }
}
