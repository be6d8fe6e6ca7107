//! The hosts to which requests may be sent.

use std::sync::Arc;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// A permitted destination: a host, or all subdomains of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// The text of the grant, under which the requests are counted.
    pub grant: Arc<str>,
    /// The name or address, in lower case; IPv6 in brackets.
    pub name: String,
    /// Whether all subdomains of the name are allowed, instead of the name itself.
    pub subdomains: bool,
    /// The port; `None`: the default port of the request's scheme.
    pub port: Option<u16>,
}

impl AllowedHost {
    /// Returns whether a request to this URI is allowed. Names are compared as written: the name server decides what
    /// they resolve to.
    pub(super) fn allows(&self, uri: &Uri) -> bool {
        let Some((name, port)) = destination_of(uri) else { return false };
        let same_host = if self.subdomains {
            name.strip_suffix(&self.name).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
        } else {
            name == self.name
        };
        same_host && Some(port) == self.port.or_else(|| default_port(uri))
    }
}

/// Returns the host and port of a request, parsed as the client parses them.
pub(super) fn destination_of(uri: &Uri) -> Option<(String, u16)> {
    Some((uri.host()?.to_ascii_lowercase(), uri.port_u16().or_else(|| default_port(uri))?))
}

fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => Some(443),
        Some(scheme) if *scheme == Scheme::HTTP => Some(80),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_allowed_to_listed_hosts_only() {
        let host = |name: &str, subdomains, port| AllowedHost {
            grant: name.into(),
            name: name.to_owned(),
            subdomains,
            port,
        };
        let api = host("api.example.com", false, None);
        let on_port = host("api.example.com", false, Some(8080));
        let below = host("example.com", true, None);
        let ipv6 = host("[::1]", false, Some(80));
        for (grant, uri, allowed) in [
            (&api, "https://api.example.com/v1", true),
            (&api, "http://API.example.com", true),
            (&api, "https://api.example.com:443", true),
            (&api, "https://api.example.com:80", false),
            (&api, "https://api.example.com:8443", false),
            (&api, "https://example.com", false),
            (&api, "https://api.example.com.evil.net", false),
            (&api, "https://api.example.com@evil.net", false),
            (&api, "https://evil.net@api.example.com", true),
            (&api, "https://api.example.com.", false),
            (&on_port, "http://api.example.com:8080", true),
            (&on_port, "http://api.example.com", false),
            (&below, "https://a.example.com", true),
            (&below, "https://a.b.example.com", true),
            (&below, "https://example.com", false),
            (&below, "https://.example.com", false),
            (&below, "https://badexample.com", false),
            (&ipv6, "http://[::1]", true),
            (&ipv6, "http://[::2]", false),
            (&ipv6, "/just/a/path", false),
        ] {
            let parsed: Uri = uri.parse().unwrap();
            assert_eq!(grant.allows(&parsed), allowed, "{grant:?} {uri}");
        }
    }
}
