//! Requests a status.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// Timeout of a request: the server answers within a second, however slow the handlers are.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The address of an admin server.
#[derive(Clone, Debug)]
pub(super) struct Target {
    url: String,
    /// Whether the address is one of several that are tried.
    is_guess: bool,
}

/// What a server answered.
pub(super) struct Fetched {
    pub(super) target: Target,
    pub(super) text: anyhow::Result<String>,
}

impl Target {
    /// Returns the server at this address: a URL, or `host:port`.
    pub(super) fn named(address: &str) -> Target {
        let address = address.trim_end_matches('/');
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Target { url, is_guess: false }
    }

    pub(super) fn on_loopback(port: u16) -> Target {
        Target { url: format!("http://127.0.0.1:{port}"), is_guess: true }
    }

    /// Requests the status; `None`: nothing listens there.
    pub(super) fn fetch(&self, token: Option<&str>) -> Option<Fetched> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let mut request = agent.get(format!("{}/v1/status", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let text = match request.call() {
            Ok(response) => read(response),
            Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed) if self.is_guess => return None,
            Err(error) => Err(anyhow::Error::new(error)),
        };
        let text = text.with_context(|| format!("no status from {self}"));
        // Something else may listen on one of the default ports.
        if self.is_guess && text.is_err() {
            return None;
        }
        Some(Fetched { target: self.clone(), text })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    hint: String,
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<String> {
    let status = response.status();
    let text = response.body_mut().read_to_string().context("the answer ended early")?;
    if status.is_success() {
        return Ok(text);
    }
    match serde_json::from_str(&text) {
        Ok(Refusal { error, hint }) => bail!("{error} ({status}); {hint}"),
        Err(_) => bail!("it answered {status}"),
    }
}
