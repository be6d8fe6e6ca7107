//! `kafka.password_file` and `kafka.token_file`, and settings that conflict with them.

use std::path::PathBuf;

use super::super::Environment;
use super::super::client_properties::ClientProperties;
use super::super::problem::Problems;
use super::super::written;

const PASSWORD_FILE: [&str; 2] = ["kafka", "password_file"];
const TOKEN_FILE: [&str; 2] = ["kafka", "token_file"];
const UNSECURED: &str = "enable.sasl.oauthbearer.unsecure.jwt";

/// Checks the file with the password and the settings that it needs. `clients`: the properties of every kind of client.
pub(super) fn password_file(
    kafka: &written::Kafka,
    clients: &[&ClientProperties],
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> Option<PathBuf> {
    let written = kafka.password_file.as_deref()?;
    if clients.iter().any(|client| client.get("sasl.password").is_some()) {
        problems
            .add(&PASSWORD_FILE, "`password_file` and `sasl.password` are both set")
            .remedy("keep one of them");
    }
    if clients.iter().any(|client| client.get("sasl.username").is_none()) {
        problems
            .add(&PASSWORD_FILE, "`password_file` needs `sasl.username`, which is not set")
            .remedy("set it under [kafka.client]");
    }
    // Whether the file exists is checked when it is read: the program that writes the file may be late, and a restart
    // resolves that.
    Some(environment.resolve(written))
}

/// Checks the file with the token and the settings that it needs. `clients`: the properties of every kind of client.
pub(super) fn token_file(
    kafka: &written::Kafka,
    clients: &[&ClientProperties],
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> Option<PathBuf> {
    let takes_tokens = |client: &ClientProperties| {
        client.get("sasl.mechanism").is_some_and(|name| name.trim().eq_ignore_ascii_case("OAUTHBEARER"))
    };
    let makes_tokens = |client: &ClientProperties| {
        client.get(UNSECURED).is_some_and(|value| matches!(value.trim(), "true" | "t" | "1"))
    };
    let Some(written) = kafka.token_file.as_deref() else {
        if clients.iter().any(|client| takes_tokens(client) && !makes_tokens(client)) {
            problems
                .add(
                    &["kafka"],
                    "`sasl.mechanism = \"OAUTHBEARER\"` needs a token, but `token_file` is not set",
                )
                .remedy("set `token_file` under [kafka]");
        }
        return None;
    };
    if !clients.iter().all(|client| takes_tokens(client)) {
        problems
            .add(&TOKEN_FILE, "`token_file` needs `sasl.mechanism = \"OAUTHBEARER\"`")
            .remedy("set that under [kafka.client], or remove `token_file`");
    }
    if kafka.password_file.is_some() || clients.iter().any(|client| makes_tokens(client)) {
        problems
            .add(&TOKEN_FILE, format!("`token_file` can't be combined with `password_file` or `{UNSECURED}`"))
            .remedy("keep one of them");
    }
    Some(environment.resolve(written))
}
