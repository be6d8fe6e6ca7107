//! Who may request what.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq as _;

use crate::responses::Refusal;

/// Minimum length of a token, in bytes.
pub const TOKEN_MIN: usize = 16;
/// Maximum size of a request's body, in bytes.
const BODY_MAX: u64 = 64 << 10;

/// The rules of access.
#[derive(Clone, Default)]
pub struct AccessRules {
    /// The token; `None`: none is configured.
    pub token: Option<String>,
    /// Host names that requests may name, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Whether metrics need the token, too.
    pub protect_metrics: bool,
}

impl std::fmt::Debug for AccessRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "set");
        f.debug_struct("AccessRules")
            .field("token", &token)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// What a path serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// For probes, which may send any `Host`.
    Health,
    Metrics,
    /// The page and its files, which hold no data.
    Page,
    /// Everything else.
    Data,
}

impl PathKind {
    pub(crate) fn of(path: &str) -> PathKind {
        match path {
            "/metrics" => PathKind::Metrics,
            "/" | "/page.css" | "/page.js" | "/favicon.ico" => PathKind::Page,
            _ if path.starts_with("/health/") => PathKind::Health,
            _ => PathKind::Data,
        }
    }

    /// Returns whether the `Host` of the request is checked. Probes and scrapes may use any name, such as that of a
    /// service.
    fn checks_host(self) -> bool {
        matches!(self, PathKind::Page | PathKind::Data)
    }

    /// Returns whether connections are reserved for requests of this kind.
    pub(crate) fn has_reserve(self) -> bool {
        matches!(self, PathKind::Health | PathKind::Metrics)
    }
}

impl AccessRules {
    /// Checks a request. `loopback`: whether the server listens on loopback only.
    pub(crate) fn check(&self, kind: PathKind, headers: &HeaderMap, loopback: bool) -> Result<(), Refusal> {
        if kind.checks_host() {
            self.check_host(headers)?;
            check_origin(headers)?;
        }
        check_size(headers)?;
        let is_open = match kind {
            PathKind::Health | PathKind::Page => true,
            PathKind::Metrics => !self.protect_metrics,
            PathKind::Data => false,
        };
        if !is_open {
            self.check_token(headers, loopback)?;
        }
        Ok(())
    }

    /// A page of another site can make a browser send requests to a name of its own that resolves to this machine. Such
    /// a request has that name as its host, so only known names and addresses are served.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the request has no `Host`", "use HTTP/1.1"));
        };
        let name = without_port(host);
        let known = name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
        if known {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("the host `{name}` is not served"),
            "use the address, or add the name to `admin.hosts`",
        ))
    }

    fn check_token(&self, headers: &HeaderMap, loopback: bool) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            if loopback {
                return Ok(());
            }
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "on addresses other than loopback, this is served only with a token",
                "set `admin.token` or `admin.token_file`, or listen on 127.0.0.1",
            ));
        };
        let unauthorized = |error: &str| {
            Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                error,
                "send `Authorization: Bearer TOKEN` with the token of `admin.token` or `admin.token_file`",
            ))
        };
        let Some(sent) = headers.get(AUTHORIZATION).map(|value| value.as_bytes()) else {
            return unauthorized("a token is required");
        };
        let bearer = sent.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let Some((_, sent)) = bearer else { return unauthorized("a token is required") };
        if bool::from(sent.trim_ascii().ct_eq(token.as_bytes())) {
            return Ok(());
        }
        unauthorized("the token is wrong")
    }
}

/// A browser names the site of the page that sends a request in `Origin`, except for GET requests to the same site.
/// Requests from pages of other sites are refused.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, from)| from);
    if from.is_some() && from == headers.get(HOST).and_then(|host| host.to_str().ok()) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "the request comes from a page of another site",
        "open the page of this server",
    ))
}

/// Removes the port of a `Host` header, and the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed.split_once(']').map_or(host, |(address, _)| address);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn check_size(headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_none_or(|length| length <= BODY_MAX) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {BODY_MAX} bytes"),
        "send no body",
    ))
}
