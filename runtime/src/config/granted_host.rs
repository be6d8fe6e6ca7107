//! Entries of `grants.http`.

use std::fmt;

/// A host to which requests are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedHost {
    /// The entry as written.
    pub text: String,
    /// Host name or address, in lower case; IPv6 in brackets.
    pub name: String,
    /// Whether the entry allows all subdomains of the name, but not the name itself.
    pub subdomains: bool,
    /// The port; `None`: the default port of the request's scheme.
    pub port: Option<u16>,
}

const FORMS: &str = "`host`, `host:port`, `*.domain` or `*.domain:port`, one host per entry; without scheme and path, \
                     IPv6 addresses in brackets, non-ASCII names in xn-- form, no trailing dot";

impl GrantedHost {
    /// Parses one entry; the error is the remedy.
    pub(super) fn parse(text: &str) -> Result<GrantedHost, &'static str> {
        if text.contains(['/', '@']) {
            return Err(FORMS);
        }
        let (subdomains, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // The colons of an IPv6 address are in brackets.
        let (name, port) = match rest.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            Some(_) | None => (rest, None),
        };
        let digits = |port: &str| port.chars().all(|c| c.is_ascii_digit()).then(|| port.parse::<u16>().ok());
        let port = match port.map(|port| digits(port).flatten()) {
            None => None,
            Some(Some(port)) if port > 0 => Some(port),
            Some(_) => return Err("a port is a number from 1 to 65535"),
        };
        let name = name.to_ascii_lowercase();
        if name.contains('*') {
            return Err("`*.` is allowed only before a domain, for all its subdomains");
        }
        let name = match ipv6(&name) {
            Some(address) if !subdomains => format!("[{address}]"),
            None if is_name(&name) => name,
            _ => return Err(FORMS),
        };
        Ok(GrantedHost { text: text.to_owned(), name, subdomains, port })
    }
}

/// Returns whether a text is a host name or an IPv4 address.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Parses an IPv6 address in brackets. An address has several spellings; requests use the shortest.
fn ipv6(name: &str) -> Option<std::net::Ipv6Addr> {
    name.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

impl fmt::Display for GrantedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.subdomains { "*." } else { "" };
        write!(f, "{below}{}", self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_host_with_an_optional_port() {
        for (text, name, subdomains, port) in [
            ("api.example.com", "api.example.com", false, None),
            ("API.example.com:8443", "api.example.com", false, Some(8443)),
            ("*.example.com", "example.com", true, None),
            ("*.example.com:443", "example.com", true, Some(443)),
            ("127.0.0.1:80", "127.0.0.1", false, Some(80)),
            ("[::1]", "[::1]", false, None),
            ("[::1]:80", "[::1]", false, Some(80)),
            ("customer_service", "customer_service", false, None),
        ] {
            let host = GrantedHost::parse(text).expect(text);
            let (entry, name) = (text.to_owned(), name.to_owned());
            assert_eq!(host, GrantedHost { text: entry, name, subdomains, port });
            assert_eq!(host.to_string(), text.to_ascii_lowercase());
        }
        assert_eq!(
            GrantedHost::parse("[0:0:0:0:0:0:0:1]:80").expect("the address is valid").to_string(),
            "[::1]:80"
        );
    }

    #[test]
    fn invalid_hosts_are_refused_with_a_remedy() {
        for (text, remedy) in [
            ("", FORMS),
            ("https://api.example.com", FORMS),
            ("api.example.com/v1", FORMS),
            ("somebody@api.example.com", FORMS),
            ("api..example.com", FORMS),
            ("::1", FORMS),
            ("*.[::1]", FORMS),
            ("*", "`*.` is allowed only before"),
            ("api.*.com", "`*.` is allowed only before"),
            ("api.example.com:+80", "a port is a number"),
            ("api.example.com.", FORMS),
            ("api.example.com, b", FORMS),
            ("api.example.com:", "a port is a number"),
            ("api.example.com:0", "a port is a number"),
            ("api.example.com:70000", "a port is a number"),
        ] {
            let error = GrantedHost::parse(text).expect_err(text);
            assert!(error.starts_with(remedy), "{text}: {error}");
        }
    }
}
