//! Failures of an event, and functions that return them.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::bindings;

/// The result of a handler: `Ok` if the event is done, otherwise the failure.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Why an event is not done. The reason appears in logs and dead letters, truncated to 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The event may succeed later. Its lane waits for it.
    Retry {
        /// The reason.
        reason: String,
        /// How long to wait, instead of the configured backoff.
        after: Option<Duration>,
    },
    /// The event can never succeed.
    Reject {
        /// The reason.
        reason: String,
    },
}

/// Ends this attempt: the event is retried after the configured backoff.
///
/// ```
/// # use keylane_sdk::{Effects, Event, Result, retry};
/// fn handle(event: &Event<'_>, _: &mut Effects) -> Result {
///     if event.attempt() == 1 {
///         return retry("the price list is not available yet");
///     }
///     Ok(())
/// }
/// ```
///
/// # Errors
/// Always.
pub fn retry<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure::retry(reason))
}

/// Ends this attempt: the event is retried after `wait`, limited to the configured maximum.
///
/// # Errors
/// Always.
pub fn retry_after<T>(wait: Duration, reason: impl Into<String>) -> Result<T> {
    Err(Failure::Retry { reason: reason.into(), after: Some(wait) })
}

/// Ends the event: it can never succeed, and gets the configured outcome (a dead letter, by default).
///
/// # Errors
/// Always.
pub fn reject<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failure::reject(reason))
}

impl Failure {
    /// Creates a retry with the configured backoff, for `map_err` and similar functions.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// Creates a rejection, for `map_err` and similar functions.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { reason, .. } => write!(f, "retry: {reason}"),
            Self::Reject { reason } => write!(f, "reject: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}

/// A conversion of a missing value or an error into a failure of the event.
///
/// ```
/// # use keylane_sdk::{Effects, Event, OrFail, Result};
/// fn handle(event: &Event<'_>, _: &mut Effects) -> Result {
///     let key = event.key().or_reject("orders need a key")?;
///     let amount: u32 = event.text()?.parse().or_reject("the amount is not a number")?;
///     # let _ = (key, amount);
///     Ok(())
/// }
/// ```
pub trait OrFail<T> {
    /// Rejects the event for this reason, followed by the error if there is one.
    ///
    /// # Errors
    /// If there is no value.
    fn or_reject(self, reason: &str) -> Result<T>;

    /// Requests a retry for this reason, followed by the error if there is one.
    ///
    /// # Errors
    /// If there is no value.
    fn or_retry(self, reason: &str) -> Result<T>;
}

impl<T> OrFail<T> for Option<T> {
    fn or_reject(self, reason: &str) -> Result<T> {
        self.ok_or_else(|| Failure::reject(reason))
    }

    fn or_retry(self, reason: &str) -> Result<T> {
        self.ok_or_else(|| Failure::retry(reason))
    }
}

impl<T, E: Display> OrFail<T> for std::result::Result<T, E> {
    fn or_reject(self, reason: &str) -> Result<T> {
        self.map_err(|error| Failure::reject(format!("{reason}: {error}")))
    }

    fn or_retry(self, reason: &str) -> Result<T> {
        self.map_err(|error| Failure::retry(format!("{reason}: {error}")))
    }
}

/// Conversions of decoding errors, so that `?` rejects the event: decoding the same bytes again
/// fails again. Other errors may be temporary or permanent; the author decides with [`OrFail`].
macro_rules! decoding_errors {
    ($($error:ty: $what:literal),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::reject(format!(concat!($what, ": {}"), error))
            }
        }
    )*};
}

decoding_errors! {
    serde_json::Error: "JSON",
    std::str::Utf8Error: "not UTF-8",
    std::string::FromUtf8Error: "not UTF-8",
    std::num::ParseIntError: "not a whole number",
    std::num::ParseFloatError: "not a number",
    std::str::ParseBoolError: "not a boolean",
}

impl From<Failure> for bindings::Failure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Retry { reason, after } => {
                Self::Retry(bindings::Retry { reason, after_ms: after.map(milliseconds) })
            }
            Failure::Reject { reason } => Self::Reject(reason),
        }
    }
}

impl From<bindings::Failure> for Failure {
    fn from(failure: bindings::Failure) -> Self {
        match failure {
            bindings::Failure::Retry(bindings::Retry { reason, after_ms }) => {
                Self::Retry { reason, after: after_ms.map(|ms| Duration::from_millis(ms.into())) }
            }
            bindings::Failure::Reject(reason) => Self::Reject { reason },
        }
    }
}

/// Converts a wait to milliseconds, rounded up so that a short wait does not become zero. Saturates at `u32::MAX`,
/// about 49 days.
fn milliseconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_and_saturates() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_micros(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(1500)), 1500);
        assert_eq!(milliseconds(Duration::MAX), u32::MAX);
    }

    #[test]
    fn a_decoding_error_rejects_with_its_reason() {
        fn number(text: &str) -> Result<u32> {
            Ok(text.parse()?)
        }
        assert_eq!(number("12"), Ok(12));
        let Err(Failure::Reject { reason }) = number("twelve") else {
            panic!("the event should be rejected")
        };
        assert_eq!(reason, "not a whole number: invalid digit found in string");
    }

    #[test]
    fn the_author_decides_about_other_errors() {
        let away: std::result::Result<(), &str> = Err("connection refused");
        assert_eq!(away.or_retry("no prices"), Err(Failure::retry("no prices: connection refused")));
        assert_eq!(None::<u8>.or_reject("no key"), Err(Failure::reject("no key")));
    }
}
