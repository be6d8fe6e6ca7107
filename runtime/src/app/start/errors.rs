//! Classifies the errors of a start: stopped by a signal, final, or worth a restart.

use std::io::ErrorKind;

use crate::guest::compiler::Limit;
use crate::guest::{EngineError, LoadError};
use crate::librdkafka::{ConfigError, PermanentStartupError};
use crate::{sink, source};

/// Returns whether a signal interrupted the start.
pub(in crate::app) fn is_stopped(reason: &anyhow::Error) -> bool {
    reason.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(LoadError::Stopped { .. }))
            || matches!(permanent(cause), Some(PermanentStartupError::Stopped))
    })
}

/// Returns whether a restart fails in the same way until the configuration, a component or a limit of the system is
/// changed. Errors of the brokers are not final: they can be fixed on the brokers. Errors of a file with a secret are
/// not final either: its renewal may only be late.
#[must_use]
pub fn is_final(reason: &anyhow::Error) -> bool {
    reason.chain().any(|cause| {
        matches!(properties(cause), Some(ConfigError::Property { .. }))
            || matches!(
                permanent(cause),
                Some(PermanentStartupError::TopicName(_) | PermanentStartupError::GroupName(_))
            )
            || matches!(
                cause.downcast_ref(),
                Some(EngineError::TooManyInstances { .. } | EngineError::NoInstances)
            )
            || cause.downcast_ref().is_some_and(is_final_load)
    })
}

/// Returns whether the error of a component is final. Not final are: a stop, a compiler process that failed, a time
/// limit on a busy machine, and a file that exists and that the user may read, but that can't be read now.
fn is_final_load(error: &LoadError) -> bool {
    if let LoadError::Unreadable { source, .. } = error {
        return matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
    }
    !matches!(
        error,
        LoadError::Stopped { .. }
            | LoadError::Compiler { .. }
            | LoadError::CompileLimit { limit: Limit::Wall(_), .. }
            | LoadError::Start { was_slow: true, .. }
    )
}

/// Returns the configuration error of a client. Transparent errors hide their content from the chain of causes.
fn properties<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e ConfigError> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(source::Error::Config(error)), _) | (_, Some(sink::Error::Config(error))) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// Returns the permanent startup error, found in the same way.
fn permanent<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e PermanentStartupError> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(source::Error::PermanentStartupError(permanent)), _)
        | (_, Some(sink::Error::PermanentStartupError(permanent))) => Some(permanent),
        _ => cause.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_that_a_restart_cannot_fix_are_final() {
        let config = || ConfigError::Property { name: "a".to_owned(), reason: "no".to_owned() };
        let wall = Limit::Wall(std::time::Duration::from_secs(120));
        let slow = |was_slow| LoadError::Start { name: "a.wasm".to_owned(), reason: String::new(), was_slow };
        let unreadable =
            |kind: ErrorKind| LoadError::Unreadable { name: "a".to_owned(), source: kind.into() };
        let missing =
            || PermanentStartupError::TopicsMissing { topics: vec!["a".to_owned()], role: "the topic" };
        let load = LoadError::NotWasm { name: "a.wasm".to_owned() };
        let no_process = LoadError::Compiler { name: "a.wasm".to_owned(), what: "is gone".to_owned() };
        for (error, expected) in [
            (config().into(), true),
            (anyhow::Error::from(source::Error::from(config())), true),
            (sink::Error::from(config()).into(), true),
            (source::Error::from(PermanentStartupError::TopicName("?".to_owned())).into(), true),
            (EngineError::NoInstances.into(), true),
            (ConfigError::Client("no thread".to_owned()).into(), false),
            (load.into(), true),
            (LoadError::CompileLimit { name: "a.wasm".to_owned(), limit: wall }.into(), false),
            (slow(true).into(), false),
            (slow(false).into(), true),
            (unreadable(ErrorKind::NotFound).into(), true),
            (unreadable(ErrorKind::TimedOut).into(), false),
            (no_process.into(), false),
            (source::Error::from(missing()).into(), false),
            (sink::Error::from(PermanentStartupError::Stopped).into(), false),
            (anyhow::anyhow!("anything"), false),
        ] {
            let error = Err::<(), _>(error).context("handler `a` can't start").expect_err("it is one");
            assert_eq!(is_final(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn a_start_interrupted_by_a_signal_is_detected() {
        for error in [
            LoadError::Stopped { name: "a.wasm".to_owned() }.into(),
            PermanentStartupError::Stopped.into(),
            anyhow::Error::from(source::Error::from(PermanentStartupError::Stopped)),
            sink::Error::from(PermanentStartupError::Stopped).into(),
        ] {
            assert!(is_stopped(&error.context("handler `a`")));
        }
        assert!(!is_stopped(&anyhow::anyhow!("anything")));
    }
}
