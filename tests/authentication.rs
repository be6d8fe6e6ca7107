//! Promise: Keylane runs over TLS and SASL/SCRAM; credentials or certificates that do not work are named, with the
//! remedy.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Options, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::tls::Identity;

const USER: &str = "alice";
const PASSWORD: &str = "first-password";
const EVENTS: usize = 200;
const REMEDY: &str = "check `sasl.*` and `security.protocol` under [kafka.client]";

#[test]
fn tls_and_scram() {
    let Some(identity) = Identity::new() else { return };
    let Some(cluster) = kafka::own(&options(Some(identity.clone()))) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let certificate = identity.certificate().display().to_string();
    let trusting = settings(&flow, PASSWORD).set("kafka.client", "security.protocol", "sasl_ssl").set(
        "kafka.client",
        "ssl.ca.location",
        certificate,
    );

    let another = Identity::new().expect("there was one before");
    let stranger = another.certificate().display().to_string();
    let refused = ends_at_start(&trusting.clone().set("kafka.client", "ssl.ca.location", stranger));
    for part in ["certificate verify failed", "`ssl.ca.location`"] {
        assert!(refused.contains(part), "no {part:?} in: {refused}");
    }
    let refused = ends_at_start(&trusting.clone().set("kafka.client", "sasl.password", "wrong-password"));
    assert!(refused.contains("authentication failed") && refused.contains(REMEDY), "{refused}");

    Keylane::run(&trusting, &["--until-end"]).expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.outcomes, EVENTS);
}

/// One broker with a user of SCRAM-SHA-512; with an `identity` her listener is encrypted.
fn options(identity: Option<Identity>) -> Options {
    let scram_users = vec![(USER.to_owned(), PASSWORD.to_owned())];
    Options { scram_users, identity, ..Options::default() }
}

/// An instance that says it is the user.
fn settings(flow: &Flow<'_>, password: &str) -> Settings {
    flow.settings(&guest("sleepy"), "worker")
        .set("kafka", "bootstrap_servers", flow.cluster.sasl_bootstrap())
        .set("kafka.client", "security.protocol", "sasl_plaintext")
        .set("kafka.client", "sasl.mechanism", "SCRAM-SHA-512")
        .set("kafka.client", "sasl.username", USER)
        .set("kafka.client", "sasl.password", password)
}

/// The last words of an instance that can't start. The password is not in its log.
fn ends_at_start(settings: &Settings) -> String {
    let mut keylane = Keylane::run(settings, &[]);
    keylane.expect_exit(1);
    let lines = keylane.lines();
    assert!(!lines.iter().any(|line| line.to_string().contains("-password")), "{}", keylane.tail());
    let last =
        lines.iter().rev().find(|line| line.is_string()).expect("its last words are no line of the log");
    last.to_string()
}

fn event(number: usize) -> Record {
    Record::new(format!("key-{}", number % 40), "v").with("sleep-ms", "0").with("emit", "")
}
