//! Credentials.

use std::path::Path;
use std::time::Duration;

use super::{MINIMAL, expect_accepted, expect_refused, with};

/// Returns the minimal file with these lines in `[kafka]`, or in sections behind it.
fn kafka(lines: &str) -> String {
    MINIMAL.replacen("\n\n", &format!("\n{lines}\n\n"), 1)
}

#[test]
fn auth_timeout_has_a_default_and_limits() {
    assert_eq!(expect_accepted(MINIMAL).kafka.auth_timeout, Duration::from_secs(60));
    assert_eq!(expect_accepted(&kafka("auth_timeout = \"5m\"")).kafka.auth_timeout, Duration::from_secs(300));
    expect_refused(
        &kafka("auth_timeout = \"2h\""),
        &["etc/keylane.toml:3:", "`kafka.auth_timeout` must be between 0s and 1h, not 2h"],
    );
}

#[test]
fn a_password_in_a_file() {
    let user = "password_file = \"secret/password\"\n[kafka.client]\nsasl.username = \"alice\"";
    let checked = expect_accepted(&kafka(user));
    assert_eq!(checked.kafka.password_file.as_deref(), Some(Path::new("etc/secret/password")));
    for (lines, (place, message)) in [
        (
            format!("{user}\nsasl.password = \"canary\""),
            ("3:17", "`password_file` and `sasl.password` are both set"),
        ),
        (
            format!("{user}\n[kafka.producer]\nsasl.password = \"canary\""),
            ("3:17", "`password_file` and `sasl.password` are both set"),
        ),
        (
            "password_file = \"password\"".to_owned(),
            ("3:17", "`password_file` needs `sasl.username`, which is not set"),
        ),
    ] {
        let report = expect_refused(&kafka(&lines), &[&format!("etc/keylane.toml:{place}\n"), message]);
        assert!(!report.contains("canary"), "{report}");
    }
}

#[test]
fn oidc_is_refused_by_name() {
    for (name, value) in [
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.method", "OIDC"),
        ("sasl.oauthbearer.client.id", "me"),
        ("sasl.oauthbearer.client.credentials.client.secret", "canary"),
        ("sasl.oauthbearer.token.endpoint.url", "https://example.com"),
        ("sasl.oauthbearer.assertion.file", "assertion.jwt"),
        ("https.ca.location", "/etc/ca.pem"),
    ] {
        for table in ["client", "consumer", "producer"] {
            let message =
                format!("`{name}` needs OIDC, but the Kafka client of this build can't fetch tokens");
            let text = with("", &format!("[kafka.{table}]\n{name} = \"{value}\""));
            let report = expect_refused(&text, &["etc/keylane.toml:10:", &message, "hint: remove it; "]);
            assert!(!report.contains("canary"), "{report}");
        }
    }
    expect_accepted(&with("", "[kafka.client]\nsasl.oauthbearer.method = \"default\""));
}

#[test]
fn a_token_in_a_file() {
    let bearer = "[kafka.client]\nsasl.mechanism = \"OAUTHBEARER\"";
    let file = "token_file = \"token\"";
    let checked = expect_accepted(&kafka(&format!("{file}\n{bearer}")));
    assert_eq!(checked.kafka.token_file.as_deref(), Some(Path::new("etc/token")));
    expect_accepted(&kafka(&format!("{bearer}\nenable.sasl.oauthbearer.unsecure.jwt = true")));
    for (lines, (place, message)) in [
        (bearer.to_owned(), ("1:2", "`sasl.mechanism = \"OAUTHBEARER\"` needs a token")),
        (file.to_owned(), ("3:14", "`token_file` needs `sasl.mechanism = \"OAUTHBEARER\"`")),
        (
            format!("{file}\npassword_file = \"p\"\n{bearer}\nsasl.username = \"alice\""),
            ("3:14", "`token_file` can't be combined with `password_file`"),
        ),
        (
            format!("{file}\n{bearer}\nenable.sasl.oauthbearer.unsecure.jwt = true"),
            ("3:14", "`token_file` can't be combined with"),
        ),
    ] {
        expect_refused(&kafka(&lines), &[&format!("etc/keylane.toml:{place}\n"), message]);
    }
}
