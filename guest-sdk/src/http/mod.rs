//! Requests to other services, for handlers that were granted their hosts (`grants.http` in the handler's
//! section of the configuration).
//!
//! ```
//! use keylane_sdk::{Effects, Event, OrFail, Result, http};
//!
//! fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
//!     let customer = event.key_text()?;
//!     let url = format!("http://customers.internal/customers/{}", http::segment(customer));
//!     let response = http::get(&url)?; // no answer, or a 5xx: the event is tried again
//!     if response.status == 404 {
//!         return keylane_sdk::reject("no such customer");
//!     }
//!     let name: String = response.json()?;
//!     effects.emit("names").key(customer).value(name);
//!     Ok(())
//! }
//! # let _service = keylane_sdk::testing::http(|_| http::Response::new(200, "\"Ada\""));
//! # let outcome = keylane_sdk::testing::event().key("ada").run(handle);
//! # assert_eq!(outcome.outputs()[0].text(), "Ada");
//! ```
//!
//! A request blocks its event and its lane, nothing else: Keylane takes other calls meanwhile. It ends with
//! the call, at the handler's `timeout` at the latest. Keylane runs an event again when it can't know how
//! its call ended, so a request that changes something must be one that may come twice.
//!
//! Natively, requests go to what [`testing::http`](crate::testing::http) put in place of the service.

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

/// Gets what lies at a URL. [`Request`] has more to set.
///
/// # Errors
/// When there is no answer, or one that says "try again later" (see [`Error::Status`]).
pub fn get(url: &str) -> Result<Response, Error> {
    Request::get(url).send()
}

/// A request to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Option<Duration>,
}

impl Request {
    /// A request with this method.
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

    /// GET.
    #[must_use]
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// POST.
    #[must_use]
    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header. `host` and those of the connection are the host's business and are refused.
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

    /// Sets the body to this, encoded as JSON, with its content type.
    ///
    /// # Errors
    /// Rejects the event if the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> crate::Result<Self> {
        Ok(self.body(serde_json::to_vec(value)?).header("content-type", "application/json"))
    }

    /// Limits each step: connecting, the wait for the answer, and each pause within it. Without it only the
    /// handler's own `timeout` ends a request, and the whole call with it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it and waits for the whole answer.
    ///
    /// # Errors
    /// When there is no answer, or one that says "try again later" (see [`Error::Status`]).
    pub fn send(&self) -> Result<Response, Error> {
        let response = transport::send(self)?;
        if response.asks_for_another_try() { Err(Error::Status(response)) } else { Ok(response) }
    }

    /// Its method, in capitals.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its body.
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status: 200 and so on. Redirections are not followed.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without headers: for tests.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let named = |(other, _): &&(String, Vec<u8>)| other.eq_ignore_ascii_case(name);
        self.headers.iter().find(named).map(|(_, value)| value.as_slice())
    }

    /// The body as text.
    ///
    /// # Errors
    /// Rejects the event if it is not UTF-8.
    pub fn text(&self) -> crate::Result<&str> {
        Ok(str::from_utf8(&self.body)?)
    }

    /// The body, decoded from JSON.
    ///
    /// # Errors
    /// Rejects the event if it does not decode to `T`.
    pub fn json<T: DeserializeOwned>(&self) -> crate::Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// 408 Request Timeout, 429 Too Many Requests, and every fault of the server.
    fn asks_for_another_try(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..=599)
    }

    /// How long the service wants to be left alone, if it says so in seconds.
    fn retry_after(&self) -> Option<Duration> {
        let text = str::from_utf8(self.header("retry-after")?).ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }
}
