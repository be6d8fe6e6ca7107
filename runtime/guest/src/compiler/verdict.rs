//! What the end of a child means.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::limits::{Limit, Limits};

/// What stands in the last words when there is no memory: those of Rust's standard library, and of the compiler where it
/// asked for memory in a way that can fail.
const NO_MEMORY: [&str; 2] = ["memory allocation of ", "out of memory"];

/// Why there is no code.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CompileFailure {
    /// The compiler does not want the component, and says why.
    Refused(String),
    /// The component takes more than it is given.
    Limit(Limit),
    /// Nobody wants the code any more.
    Stopped,
    /// The child did not do its work. What became of it.
    Lost(String),
}

/// `status`: `None`, it had to be ended. `words`: what it said.
pub(super) fn verdict(
    status: Option<ExitStatus>,
    words: &str,
    limits: &Limits,
) -> Result<(), CompileFailure> {
    let Some(status) = status else { return Err(CompileFailure::Limit(Limit::Wall(limits.wall))) };
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    if let Some(signal) = status.signal() {
        return Err(match signal {
            _ if signal == Signal::XCPU.as_raw() => CompileFailure::Limit(Limit::Cpu(limits.cpu_seconds)),
            _ if signal == Signal::XFSZ.as_raw() => CompileFailure::Limit(Limit::CODE),
            _ if signal == Signal::ABORT.as_raw() && NO_MEMORY.iter().any(|no| words.contains(no)) => {
                CompileFailure::Limit(Limit::Memory(limits.address_space))
            }
            _ if signal == Signal::KILL.as_raw() => {
                CompileFailure::Lost("was killed, as the system does when memory runs out".to_owned())
            }
            _ => CompileFailure::Lost(format!("ended with signal {signal}{said}")),
        });
    }
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(CompileFailure::Refused(words.to_owned())),
        _ => Err(CompileFailure::Lost(format!("ended with {status}{said}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_meaning() {
        let limits = Limits::default();
        let ended = |raw: i32| Some(ExitStatus::from_raw(raw));
        let exited = |code: i32| ended(code << 8);
        let lost = |what: &str| Err(CompileFailure::Lost(what.to_owned()));
        let limit = |limit: Limit| Err(CompileFailure::Limit(limit));
        let cases = [
            (exited(0), "", Ok(())),
            (exited(1), "it is invalid", Err(CompileFailure::Refused("it is invalid".to_owned()))),
            (exited(2), "", lost("ended with exit status: 2")),
            (None, "", limit(Limit::Wall(limits.wall))),
            (ended(Signal::XCPU.as_raw()), "", limit(Limit::Cpu(60))),
            (ended(Signal::XFSZ.as_raw()), "", limit(Limit::CODE)),
            (
                ended(Signal::ABORT.as_raw()),
                "memory allocation of 13 bytes failed",
                limit(Limit::Memory(2 << 30)),
            ),
            (
                ended(Signal::ABORT.as_raw()),
                "panicked at map.rs: unhandled out-of-memory error: out of memory (failed to allocate 9 bytes)",
                limit(Limit::Memory(2 << 30)),
            ),
            (ended(Signal::ABORT.as_raw()), "panicked", lost("ended with signal 6: panicked")),
            (ended(Signal::KILL.as_raw()), "", lost("was killed, as the system does when memory runs out")),
            (ended(Signal::TERM.as_raw()), "", lost("ended with signal 15")),
        ];
        for (status, words, meaning) in cases {
            assert_eq!(verdict(status, words, &limits), meaning, "{status:?}");
        }
    }
}
