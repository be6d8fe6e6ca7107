//! The parts of URLs that a request needs.

use std::fmt::Write as _;

use super::Error;

/// Escapes text as one segment of a path, or one value of a query. Keys and values of events are untrusted: without
/// escaping, they could change the requested resource.
#[must_use]
pub fn segment(text: &str) -> String {
    // The segments `.` and `..` have a meaning in a path.
    if text.chars().all(|c| c == '.') {
        return text.replace('.', "%2E");
    }
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a string can't fail");
        }
        escaped
    })
}

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'u> {
    pub(super) https: bool,
    pub(super) authority: &'u str,
    pub(super) path: &'u str,
}

pub(super) fn parts(url: &str) -> Result<Parts<'_>, Error> {
    let (https, rest) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some(_) | None => return Err(Error::Request(format!("`{url}` is not an http or https URL"))),
    };
    let rest = rest.split('#').next().unwrap_or(rest); // fragments are not sent
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() {
        return Err(Error::Request(format!("`{url}` has no host")));
    }
    Ok(Parts { https, authority, path: if path.is_empty() { "/" } else { path } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_parts() {
        for (url, https, authority, path) in [
            ("http://a", false, "a", "/"),
            ("HTTPS://a.example:8443/b/c?d=e/f#g", true, "a.example:8443", "/b/c?d=e/f"),
            ("http://a?b", false, "a", "?b"),
            ("http://[::1]:80/", false, "[::1]:80", "/"),
        ] {
            assert_eq!(parts(url), Ok(Parts { https, authority, path }), "{url}");
        }
        for url in ["a/b", "ftp://a/b", "http:///b", ""] {
            assert!(matches!(parts(url), Err(Error::Request(_))), "{url}");
        }
    }

    #[test]
    fn segments_are_escaped() {
        for (text, escaped) in [
            ("c-17", "c-17"),
            ("a/../b?c#d", "a%2F..%2Fb%3Fc%23d"),
            ("..", "%2E%2E"),
            ("zoë 1%", "zo%C3%AB%201%25"),
        ] {
            assert_eq!(segment(text), escaped);
        }
    }
}
