//! What a command was asked for, on standard output. Who reads it may be gone, or the disk full: that is an exit code.

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::{CommandFailure, Ending};

/// Writes it. A reader that has seen enough (`| head`) is no failure to tell people about, but not all was written.
pub(super) fn print(text: &str) -> Result<Ending, CommandFailure> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    match written {
        Ok(()) => Ok(Ending::Fine),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ending::Findings),
        Err(error) => {
            Err(Err::<(), _>(error).context("the result can't be written").expect_err("it is one").into())
        }
    }
}
