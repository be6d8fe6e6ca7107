//! Errors of requests.

use std::fmt;

use super::Response;
use crate::Failure;

/// Why a request has no usable response. `?` converts it to a retry, except [`Error::Request`], which rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request can never be sent: its URL or a header is invalid. `?` rejects the event.
    Request(String),
    /// The host of the request is not in the handler's `grants.http`. The event is not the cause: `?` retries, so that
    /// there is time to grant the host.
    Denied(String),
    /// There is no response, or an incomplete one.
    Network(String),
    /// The service can't process the request now: 408, 429, or 5xx. A `Retry-After` in seconds is used for the retry.
    Status(Response),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(reason) => write!(f, "HTTP request: {reason}"),
            Self::Denied(host) => write!(f, "HTTP: `{host}` is not in the handler's `grants.http`"),
            Self::Network(reason) => write!(f, "HTTP: {reason}"),
            Self::Status(response) => write!(f, "HTTP: the service returned status {}", response.status),
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
    fn only_an_invalid_request_rejects_its_event() {
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
