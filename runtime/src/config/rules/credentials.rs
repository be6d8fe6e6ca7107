//! `kafka.password_file`, and what does not go together with it.

use std::path::PathBuf;

use super::super::Surroundings;
use super::super::client_properties::Properties;
use super::super::problem::Problems;
use super::super::written;
use super::cluster;

const PASSWORD_FILE: [&str; 2] = ["kafka", "password_file"];

/// The file with the password. `clients`: the properties of every kind of client.
pub(super) fn password_file(
    kafka: &written::Kafka,
    clients: &[&Properties],
    surroundings: &Surroundings<'_>,
    problems: &mut Problems<'_, '_>,
) -> Option<PathBuf> {
    let written = kafka.password_file.as_deref()?;
    if clients.iter().any(|client| client.get("sasl.password").is_some()) {
        problems
            .add(&PASSWORD_FILE, "the password is in `sasl.password`, too, and only one can be meant")
            .hint("keep one of them");
    }
    if clients.iter().any(|client| client.get("sasl.username").is_none()) {
        problems
            .add(&PASSWORD_FILE, "`sasl.username` says whose password it is, and is not set")
            .hint("set it under [kafka.client]");
    }
    Some(cluster::existing(written, &PASSWORD_FILE, "password file", surroundings, problems))
}
