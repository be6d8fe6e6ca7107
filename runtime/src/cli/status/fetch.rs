//! Requests a status.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
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
        // Any user of this machine can listen on a default port, so the token is not sent to all of them.
        if let Some(token) = token.filter(|_| !self.is_guess) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = match request.call() {
            Ok(response) => read(response),
            Err(error) => FetchResult::Other(anyhow::Error::new(error)),
        };
        let text = match answer {
            // A default port may be unused, or used by another program.
            FetchResult::Other(_) if self.is_guess => return None,
            FetchResult::Status(text) => Ok(text),
            FetchResult::Refused(error) if self.is_guess && token.is_some() => Err(error.context(
                format!("no status from {self}: the token is sent only to a named address; set `admin.listen`, or pass `--admin` and `--token`"),
            )),
            FetchResult::Refused(error) => Err(error).with_context(|| format!("no status from {self}")),
            FetchResult::Other(error) => Err(error).with_context(|| {
                format!("no status from {self}; check the address, and that the process has an admin server")
            }),
        };
        Some(Fetched { target: self.clone(), text })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// An answer to a request.
enum FetchResult {
    /// A status, as JSON.
    Status(String),
    /// An admin server refused the request.
    Refused(anyhow::Error),
    /// No admin server answered.
    Other(anyhow::Error),
}

/// What every status contains.
#[derive(Deserialize)]
#[expect(dead_code, reason = "the fields only have to exist")]
struct AnyStatus {
    pid: u32,
    configuration_sha256: String,
}

/// The body of a refusal.
#[derive(Deserialize)]
struct RefusalBody {
    error: String,
    hint: String,
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> FetchResult {
    let code = response.status();
    let text = match response.body_mut().read_to_string().context("the answer ended early") {
        Ok(text) => text,
        Err(error) => return FetchResult::Other(error),
    };
    if let Ok(RefusalBody { error, hint }) = serde_json::from_str(&text) {
        return FetchResult::Refused(anyhow!("{error} ({code}); {hint}"));
    }
    match serde_json::from_str::<AnyStatus>(&text) {
        Ok(_) if code.is_success() => FetchResult::Status(text),
        _ => FetchResult::Other(anyhow!(
            "this is not the admin server of a Keylane process: HTTP status {code}"
        )),
    }
}
