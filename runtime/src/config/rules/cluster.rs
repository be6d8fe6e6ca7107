//! `[kafka]` and `[embedded]`.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::Environment;
use super::super::checked::{Cluster, EmbeddedConfig, FeedConfig, FeedSource, KafkaConfig};
use super::super::client_properties::ClientProperties;
use super::super::problem::Problems;
use super::super::written::{self, Written};
use super::{credentials, names, ranges};

/// The value of `kafka.bootstrap_servers` for the broker in this process.
const EMBEDDED: &str = "embedded";
/// Similarity to [`EMBEDDED`] above which a host without a port is a typo. (0 to 1, Jaro-Winkler.)
const NEARLY: f64 = 0.9;

/// Checks the sections `[kafka]` and `[embedded]`.
pub(super) fn kafka(
    written: &Written,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> KafkaConfig {
    let kafka = &written.kafka;
    let client = ClientProperties::check(&kafka.client, "client", problems);
    let consumer = ClientProperties::check(&kafka.consumer, "consumer", problems);
    let producer = ClientProperties::check(&kafka.producer, "producer", problems);
    let (consumer, producer) = (consumer.over(&client), producer.over(&client));
    let clients = [&client, &consumer, &producer];
    KafkaConfig {
        password_file: credentials::password_file(kafka, &clients, environment, problems),
        token_file: credentials::token_file(kafka, &clients, environment, problems),
        cluster: cluster(written, environment, problems),
        assignor: kafka.assignor,
        create_topics: kafka.create_topics,
        auth_timeout: ranges::time(
            problems,
            &["kafka", "auth_timeout"],
            kafka.auth_timeout,
            ranges::AUTH_TIMEOUT,
        ),
        consumer,
        producer,
        client,
    }
}

fn cluster(written: &Written, environment: &Environment<'_>, problems: &mut Problems<'_, '_>) -> Cluster {
    let servers = written.kafka.bootstrap_servers.trim();
    if servers != EMBEDDED {
        for server in servers.split(',').map(str::trim) {
            let (what, remedy) = match address(server) {
                Address::Complete => continue,
                Address::WithoutPort => (
                    format!("`{server}` has no port"),
                    format!("add the port of the broker, for example `{server}:9092`"),
                ),
                Address::Invalid if server.is_empty() => {
                    ("`kafka.bootstrap_servers` names no broker".to_owned(), FORM.to_owned())
                }
                Address::Invalid => (format!("`{server}` is not the address of a broker"), FORM.to_owned()),
            };
            problems.add(&["kafka", "bootstrap_servers"], what).remedy(remedy);
        }
        if written.embedded.is_some() {
            problems
                .add(&["embedded"], "`[embedded]` is set, but `kafka.bootstrap_servers` is not \"embedded\"")
                .remedy("remove the section, or set `bootstrap_servers = \"embedded\"`");
        }
        return Cluster::Brokers(servers.to_owned());
    }
    let default = written::Embedded::default();
    let embedded = written.embedded.as_ref().unwrap_or(&default);
    if embedded.feed.is_empty() {
        let path: &[&str] =
            if written.embedded.is_some() { &["embedded"] } else { &["kafka", "bootstrap_servers"] };
        problems
            .add(path, "the embedded broker has no feed")
            .remedy("add `[[embedded.feed]]` with `topic` and `file`");
    }
    Cluster::Embedded(EmbeddedConfig {
        partitions: ranges::whole(
            problems,
            &["embedded", "partitions"],
            embedded.partitions,
            ranges::EMBEDDED_PARTITIONS,
        ),
        feeds: feeds(&embedded.feed, environment, problems),
    })
}

/// The form of a broker's address.
const FORM: &str = "`host:port`, several separated by commas, or only `embedded`";

/// The result of checking an address.
enum Address {
    Complete,
    WithoutPort,
    Invalid,
}

/// Checks `host:port`, with an optional security protocol before it, as clients accept it. Without a port the client
/// would use 9092, and a forgotten port would show only as a broker that does not respond.
fn address(server: &str) -> Address {
    const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
    let (protocol, address) = server.split_once("://").unwrap_or((PROTOCOLS[0], server));
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        None if strsim::jaro_winkler(&address.to_lowercase(), EMBEDDED) > NEARLY => return Address::Invalid,
        Some(_) | None => (address, None),
    };
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ';' | '@');
    let is_host =
        !host.is_empty() && !host.contains(forbidden) && (!host.contains(':') || host.starts_with('['));
    if !is_host || !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
        return Address::Invalid;
    }
    match port.map(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        None => Address::WithoutPort,
        Some(true) => Address::Complete,
        Some(false) => Address::Invalid,
    }
}

fn feeds(
    written: &[written::Feed],
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> Vec<FeedConfig> {
    let mut topics = BTreeSet::new();
    let mut stdin_is_used = false;
    let mut feeds = Vec::new();
    for (index, feed) in written.iter().enumerate() {
        let index = index.to_string();
        let topic_path = ["embedded", "feed", &index, "topic"];
        let file_path = ["embedded", "feed", &index, "file"];
        names::topic(problems, &topic_path, &feed.topic);
        if !topics.insert(&feed.topic) {
            problems.add(&topic_path, format!("the topic `{}` already has a feed", feed.topic));
        }
        let source = if feed.file == Path::new("-") {
            if std::mem::replace(&mut stdin_is_used, true) {
                problems.add(&file_path, "standard input can feed only one topic");
            }
            FeedSource::StandardInput
        } else {
            FeedSource::File(existing(&feed.file, &file_path, "feed", environment, problems))
        };
        feeds.push(FeedConfig { topic: feed.topic.clone(), source });
    }
    feeds
}

/// Resolves a path in the file to one relative to the working directory. Reports a problem if no file exists there.
pub(super) fn existing(
    written: &Path,
    path: &[&str],
    what: &str,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> std::path::PathBuf {
    let resolved = environment.resolve(written);
    if resolved.is_dir() {
        problems
            .add(path, format!("the {what} is a directory: {}", resolved.display()))
            .remedy(format!("name the {what} file in it"));
    } else if !(environment.is_file_or_pipe)(&resolved) {
        problems
            .add(path, format!("{what} not found: {}", resolved.display()))
            .remedy("relative paths are resolved from the directory of the configuration file");
    }
    resolved
}
