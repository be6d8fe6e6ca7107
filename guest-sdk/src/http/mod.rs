//! HTTP requests to other services, for handlers with granted hosts (`grants.http` in the handler's section of the
//! configuration).
//!
//! ```
//! use keylane_sdk::{Effects, Event, OrFail, Result, http};
//!
//! fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
//!     let customer = event.key_text()?;
//!     let url = format!("http://customers.internal/customers/{}", http::segment(customer));
//!     let response = http::get(&url)?; // no response, or a 5xx: the event is retried
//!     if response.status == 404 {
//!         return keylane_sdk::reject("no such customer");
//!     }
//!     let name: String = response.json()?;
//!     effects.emit("names").key(customer).value(name);
//!     Ok(())
//! }
//! # let _service = keylane_sdk::testing::http(|_| http::Response::new(200, "\"Ada\""));
//! # let verdict = keylane_sdk::testing::event().key("ada").run(handle);
//! # assert_eq!(verdict.outputs()[0].text(), "Ada");
//! ```
//!
//! A request blocks only its event and its lane: Keylane runs other calls in the meantime. A
//! request ends with its call, at the handler's `timeout` at the latest. Keylane may run an event
//! again after its requests were sent, so a request with side effects must be idempotent.
//!
//! Natively, requests are answered by the function that was passed to [`testing::http`](crate::testing::http).

mod error;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod native;
mod url;
#[cfg(target_family = "wasm")]
mod wasi;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(not(target_family = "wasm"))]
use native as transport;
#[cfg(target_family = "wasm")]
use wasi as transport;

pub use error::Error;
pub use url::segment;

/// Sends a GET request to a URL. [`Request`] has more settings.
///
/// # Errors
/// If there is no response, or one with a status that calls for a retry (see [`Error::Status`]).
pub fn get(url: &str) -> Result<Response, Error> {
    Request::get(url).send()
}

/// An HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Option<Duration>,
}

impl Request {
    /// Creates a request with this method.
    #[must_use]
    pub fn new(method: &str, url: &str) -> Self {
        Self {
            method: method.to_ascii_uppercase(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
        }
    }

    /// Creates a GET request.
    #[must_use]
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// Creates a POST request.
    #[must_use]
    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header. Keylane sets `Host` and connection headers, and refuses a request that contains them.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `value`, encoded as JSON, and the content type.
    ///
    /// # Errors
    /// Rejects the event if the value cannot be encoded as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> crate::Result<Self> {
        Ok(self.body(serde_json::to_vec(value)?).header("content-type", "application/json"))
    }

    /// Limits each step: connecting, waiting for the response, and each pause within the response. Without this limit a
    /// request ends only with the whole call, at the handler's own `timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request and waits for the whole response.
    ///
    /// # Errors
    /// If there is no response, or one with a status that calls for a retry (see [`Error::Status`]).
    pub fn send(&self) -> Result<Response, Error> {
        let response = transport::send(self)?;
        if response.calls_for_retry() { Err(Error::Status(response)) } else { Ok(response) }
    }

    /// Returns the method, in upper case.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the body.
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code. Redirects are not followed.
    pub status: u16,
    /// The headers: names, in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// Creates a response without headers, for tests.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Returns the value of the first header with this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let named = |(other, _): &&(String, Vec<u8>)| other.eq_ignore_ascii_case(name);
        self.headers.iter().find(named).map(|(_, value)| value.as_slice())
    }

    /// Returns the body as text.
    ///
    /// # Errors
    /// Rejects the event if the body is not UTF-8.
    pub fn text(&self) -> crate::Result<&str> {
        Ok(str::from_utf8(&self.body)?)
    }

    /// Returns the body, decoded from JSON.
    ///
    /// # Errors
    /// Rejects the event if the body does not decode to `T`.
    pub fn json<T: DeserializeOwned>(&self) -> crate::Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Returns whether the status is 408 Request Timeout, 429 Too Many Requests, or a server error.
    fn calls_for_retry(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..=599)
    }

    /// Returns the `Retry-After` header, if it is in seconds.
    fn retry_after(&self) -> Option<Duration> {
        let text = str::from_utf8(self.header("retry-after")?).ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }
}
