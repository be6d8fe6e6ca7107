//! The admin servers of running processes, as commands request them.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::Deserialize;

use super::{AdminArguments, CommandFailure, DEFAULT_CONFIG};
use crate::config::{self, AdminEndpoint, AdminToken};

/// Timeout of a request: the server answers within a second, however slow the handlers are.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The admin servers to request, and their token.
pub(super) struct AdminServers {
    targets: Vec<Target>,
    token: Option<String>,
}

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
    /// Its status, as JSON.
    pub(super) status: anyhow::Result<String>,
}

impl AdminServers {
    /// Selects the server of the arguments or of the configuration; otherwise every default port of this machine, on
    /// which several processes may run.
    pub(super) fn select(file: &Path, arguments: &AdminArguments) -> Result<AdminServers, CommandFailure> {
        if let Some(address) = &arguments.admin {
            return Ok(AdminServers {
                targets: vec![Target::named(address)],
                token: arguments.token.clone(),
            });
        }
        let endpoint = config::load_admin(file, file == Path::new(DEFAULT_CONFIG))?;
        let token = match &arguments.token {
            Some(token) => Some(token.clone()),
            None => endpoint.token.as_ref().map(AdminToken::read).transpose().map_err(anyhow::Error::new)?,
        };
        Ok(AdminServers { targets: targets(&endpoint), token })
    }

    /// Requests the status of each server. Default ports without a server are left out.
    pub(super) fn fetch(&self) -> Vec<Fetched> {
        self.targets.iter().filter_map(|target| target.fetch(self.token.as_deref())).collect()
    }

    /// Requests another path of a server that has answered with its status.
    pub(super) fn get(&self, target: &Target, path: &str) -> anyhow::Result<String> {
        let mut response = target.request(path, self.token.as_deref())?;
        let code = response.status();
        let text = response.body_mut().read_to_string().context("the answer ended early")?;
        match serde_json::from_str(&text) {
            _ if code.is_success() => Ok(text),
            Ok(RefusalBody { error, hint }) => Err(anyhow!("{error} ({code}); {hint}")),
            Err(_) => Err(anyhow!("HTTP status {code}")),
        }
    }
}

/// Returns the address in the file, or all default ones.
fn targets(endpoint: &AdminEndpoint) -> Vec<Target> {
    match endpoint.address.as_deref() {
        Some(address) => vec![Target::named(address)],
        None => keylane_admin::DEFAULT_PORTS.map(Target::on_loopback).collect(),
    }
}

/// The error if none of the default ports has a status.
pub(super) fn nothing_answers() -> anyhow::Error {
    anyhow!(
        "no Keylane process responds on 127.0.0.1, ports {} to {}: pass `--admin URL`, or `-c FILE` with a file whose `[admin]` names the address",
        keylane_admin::DEFAULT_PORTS.start(),
        keylane_admin::DEFAULT_PORTS.end()
    )
}

impl Target {
    /// Returns the server at this address: a URL, or `host:port`.
    fn named(address: &str) -> Target {
        let address = address.trim_end_matches('/');
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Target { url, is_guess: false }
    }

    fn on_loopback(port: u16) -> Target {
        Target { url: format!("http://127.0.0.1:{port}"), is_guess: true }
    }

    fn request(
        &self,
        path: &str,
        token: Option<&str>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let mut request = agent.get(format!("{}{path}", self.url));
        // Any user of this machine can listen on a default port, so the token is not sent to all of them.
        if let Some(token) = token.filter(|_| !self.is_guess) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call()
    }

    /// Requests the status; `None`: nothing listens there.
    fn fetch(&self, token: Option<&str>) -> Option<Fetched> {
        let answer = match self.request("/v1/status", token) {
            Ok(response) => read(response),
            Err(error) => FetchResult::Other(anyhow::Error::new(error)),
        };
        let status = match answer {
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
        Some(Fetched { target: self.clone(), status })
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
