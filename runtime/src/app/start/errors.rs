//! Classifies the errors of a start: stopped by a signal, final, or worth a restart.

use std::io::ErrorKind;

use crate::guest::compiler::Limit;
use crate::guest::{EngineError, LoadError};
use crate::librdkafka::{ClientError, StartupError};
use crate::{sink, source};

/// Returns whether a signal interrupted the start.
pub(in crate::app) fn is_stopped(reason: &anyhow::Error) -> bool {
    reason.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(LoadError::Stopped { .. }))
            || matches!(startup_error(cause), Some(StartupError::Stopped))
    })
}

/// Returns whether a restart fails in the same way until the configuration, a component or a limit of the system is
/// changed. Errors of the brokers are not final: they can be fixed on the brokers. Errors of a file with a secret are
/// not final either: its renewal may only be late.
#[must_use]
pub fn is_permanent(reason: &anyhow::Error) -> bool {
    reason.chain().any(|cause| {
        matches!(client_config_error(cause), Some(ClientError::Property { .. }))
            || matches!(startup_error(cause), Some(StartupError::TopicName(_) | StartupError::GroupName(_)))
            || matches!(
                cause.downcast_ref(),
                Some(EngineError::TooManyInstances { .. } | EngineError::NoInstances)
            )
            || cause.downcast_ref().is_some_and(is_permanent_load_error)
    })
}

/// Returns whether the error of a component is final. These are not final: a stop, a compiler process that failed, a
/// time limit on a busy machine, code that was not mapped, a missing runtime, and a file that exists and that the user
/// may read, but that can't be read now.
fn is_permanent_load_error(error: &LoadError) -> bool {
    if let LoadError::Unreadable { source, .. } = error {
        return matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
    }
    !matches!(
        error,
        LoadError::Stopped { .. }
            | LoadError::CompilerProcess { .. }
            | LoadError::CompileLimit { limit: Limit::Wall(_), .. }
            | LoadError::MapCode { .. }
            | LoadError::NoRuntime { .. }
            | LoadError::Start { may_succeed_later: true, .. }
    )
}

/// Returns the configuration error of a client. Transparent errors hide their content from the chain of causes.
fn client_config_error<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e ClientError> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(source::Error::Client(error)), _) | (_, Some(sink::Error::Client(error))) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// Returns the startup error, found in the same way.
fn startup_error<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e StartupError> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(source::Error::Startup(startup_error)), _) | (_, Some(sink::Error::Startup(startup_error))) => {
            Some(startup_error)
        }
        _ => cause.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_that_a_restart_cannot_fix_are_final() {
        let config = || ClientError::Property { name: "a".to_owned(), reason: "no".to_owned() };
        let wall = Limit::Wall(std::time::Duration::from_secs(120));
        let slow = |may_succeed_later| LoadError::Start {
            name: "a.wasm".to_owned(),
            reason: String::new(),
            may_succeed_later,
        };
        let unreadable =
            |kind: ErrorKind| LoadError::Unreadable { name: "a".to_owned(), source: kind.into() };
        let missing = || StartupError::TopicsMissing { topics: vec!["a".to_owned()], role: "the topic" };
        let load = LoadError::NotWasm { name: "a.wasm".to_owned() };
        let not_mapped = || LoadError::MapCode { name: "a.wasm".to_owned(), reason: "no memory".to_owned() };
        let no_runtime =
            || LoadError::NoRuntime { name: "a.wasm".to_owned(), source: ErrorKind::OutOfMemory.into() };
        let no_process = LoadError::CompilerProcess { name: "a.wasm".to_owned(), what: "is gone".to_owned() };
        for (error, expected) in [
            (config().into(), true),
            (anyhow::Error::from(source::Error::from(config())), true),
            (sink::Error::from(config()).into(), true),
            (source::Error::from(StartupError::TopicName("?".to_owned())).into(), true),
            (EngineError::NoInstances.into(), true),
            (ClientError::NotCreated("no thread".to_owned()).into(), false),
            (load.into(), true),
            (LoadError::CompileLimit { name: "a.wasm".to_owned(), limit: wall }.into(), false),
            (slow(true).into(), false),
            (slow(false).into(), true),
            (unreadable(ErrorKind::NotFound).into(), true),
            (unreadable(ErrorKind::TimedOut).into(), false),
            (not_mapped().into(), false),
            (no_runtime().into(), false),
            (no_process.into(), false),
            (source::Error::from(missing()).into(), false),
            (sink::Error::from(StartupError::Stopped).into(), false),
            (anyhow::anyhow!("anything"), false),
        ] {
            let error = Err::<(), _>(error).context("handler `a` can't start").expect_err("it is one");
            assert_eq!(is_permanent(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn a_start_interrupted_by_a_signal_is_detected() {
        for error in [
            LoadError::Stopped { name: "a.wasm".to_owned() }.into(),
            StartupError::Stopped.into(),
            anyhow::Error::from(source::Error::from(StartupError::Stopped)),
            sink::Error::from(StartupError::Stopped).into(),
        ] {
            assert!(is_stopped(&error.context("handler `a`")));
        }
        assert!(!is_stopped(&anyhow::anyhow!("anything")));
    }
}
