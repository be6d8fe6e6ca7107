//! Why a request has no useful answer.

use std::fmt;

use super::Response;
use crate::Failure;

/// Why there is no answer that could be used. `?` makes it a retry, but for [`Error::Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It can't be sent, and never will: a URL or header that is none. `?` rejects the event.
    Request(String),
    /// Its host is not in the handler's `grants.http`. Not the event's fault: `?` retries, so that there is
    /// time to grant it.
    Denied(String),
    /// Nobody answered, or not to the end.
    Network(String),
    /// The service could not do it now: 408, 429, or 5xx. A `Retry-After` in seconds is kept.
    Status(Response),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(reason) => write!(f, "HTTP request: {reason}"),
            Self::Denied(host) => write!(f, "HTTP: `{host}` is not in the handler's `grants.http`"),
            Self::Network(reason) => write!(f, "HTTP: {reason}"),
            Self::Status(response) => write!(f, "HTTP: the service answered {}", response.status),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = error.to_string();
        match error {
            Error::Request(_) => Self::Reject { reason },
            Error::Denied(_) | Error::Network(_) => Self::Retry { reason, after: None },
            Error::Status(response) => Self::Retry { reason, after: response.retry_after() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_request_that_is_none_rejects_its_event() {
        let mut busy = Response::new(429, "");
        busy.headers.push(("retry-after".to_owned(), b"7".to_vec()));
        for (error, after) in [
            (Error::Denied("a:80".to_owned()), None),
            (Error::Network("connection refused".to_owned()), None),
            (Error::Status(Response::new(500, "")), None),
            (Error::Status(busy), Some(Duration::from_secs(7))),
        ] {
            let reason = error.to_string();
            assert_eq!(Failure::from(error), Failure::Retry { reason, after });
        }
        let failure = Failure::from(Error::Request("no URL".to_owned()));
        assert_eq!(failure, Failure::reject("HTTP request: no URL"));
    }
}
