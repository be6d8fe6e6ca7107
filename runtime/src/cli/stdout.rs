//! The result of a command, on standard output. A failed write determines the exit code.

use std::io::{self, Write as _};

use super::{CommandFailure, Completion};

/// Writes the result. If the reader closes the pipe early (`| head`), nothing is reported, but the exit code is 1.
pub(super) fn print(text: &str) -> Result<Completion, CommandFailure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes as [`print`] writes text.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<Completion, CommandFailure> {
    let mut output = io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    match written {
        Ok(()) => Ok(Completion::Success),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Completion::Failure),
        Err(error) => Err(anyhow::Error::new(error).context("the result can't be written").into()),
    }
}
