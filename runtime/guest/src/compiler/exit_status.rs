//! Interprets how a child ended.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::limits::{Limit, Limits};

/// Messages that report a lack of memory: the one of Rust's standard library, and the one of the compiler where it
/// allocates fallibly.
const NO_MEMORY: [&str; 2] = ["memory allocation of ", "out of memory"];

/// Why a component was not compiled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CompileFailure {
    /// The compiler rejects the component, with the reason.
    Rejected(String),
    /// The component exceeds a limit.
    Limit(Limit),
    /// The compiler was stopped.
    Stopped,
    /// The child failed for a reason other than the component. The text describes how it ended.
    ChildFailed(String),
}

/// Interprets how a child ended. `status`: `None` if the parent killed it. `stderr`: the child's messages.
pub(super) fn interpret(
    status: Option<ExitStatus>,
    stderr: &str,
    limits: &Limits,
) -> Result<(), CompileFailure> {
    let Some(status) = status else { return Err(CompileFailure::Limit(Limit::Wall(limits.wall))) };
    let messages = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
    if let Some(signal) = status.signal() {
        return Err(match signal {
            _ if signal == Signal::XCPU.as_raw() => CompileFailure::Limit(Limit::Cpu(limits.cpu_seconds)),
            _ if signal == Signal::XFSZ.as_raw() => CompileFailure::Limit(Limit::CODE),
            _ if signal == Signal::ABORT.as_raw() && NO_MEMORY.iter().any(|no| stderr.contains(no)) => {
                CompileFailure::Limit(Limit::Memory(limits.address_space))
            }
            _ if signal == Signal::KILL.as_raw() => CompileFailure::ChildFailed(
                "was killed, probably because the system ran out of memory".to_owned(),
            ),
            _ => CompileFailure::ChildFailed(format!("ended with signal {signal}{messages}")),
        });
    }
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(CompileFailure::Rejected(stderr.to_owned())),
        _ => Err(CompileFailure::ChildFailed(format!("ended with {status}{messages}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_status_is_interpreted() {
        let limits = Limits::default();
        let ended = |raw: i32| Some(ExitStatus::from_raw(raw));
        let exited = |code: i32| ended(code << 8);
        let child_failed = |what: &str| Err(CompileFailure::ChildFailed(what.to_owned()));
        let limit = |limit: Limit| Err(CompileFailure::Limit(limit));
        let cases = [
            (exited(0), "", Ok(())),
            (exited(1), "it is invalid", Err(CompileFailure::Rejected("it is invalid".to_owned()))),
            (exited(2), "", child_failed("ended with exit status: 2")),
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
            (ended(Signal::ABORT.as_raw()), "panicked", child_failed("ended with signal 6: panicked")),
            (
                ended(Signal::KILL.as_raw()),
                "",
                child_failed("was killed, probably because the system ran out of memory"),
            ),
            (ended(Signal::TERM.as_raw()), "", child_failed("ended with signal 15")),
        ];
        for (status, stderr, meaning) in cases {
            assert_eq!(interpret(status, stderr, &limits), meaning, "{status:?}");
        }
    }
}
