//! Promise: Keylane runs over TLS and SASL/SCRAM. Rejected credentials and untrusted certificates
//! are reported with the remedy, at the start and at run time.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::janitor;
use keylane_tests::kafka::{self, Options, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::tls::Identity;
use keylane_tests::wait;
use serde_json::Value;

const USER: &str = "alice";
const PASSWORD: &str = "first-password";
const EVENTS: usize = 200;
const REMEDY: &str = "check `sasl.*` and `security.protocol` under [kafka.client]";

#[test]
fn tls_and_scram() {
    let Some(identity) = Identity::new() else { return };
    let Some(cluster) = kafka::dedicated(&options(Some(identity.clone()))) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let certificate = identity.certificate().display().to_string();
    let trusting = settings(&flow, PASSWORD).set("kafka.client", "security.protocol", "sasl_ssl").set(
        "kafka.client",
        "ssl.ca.location",
        certificate,
    );

    let another = Identity::new().expect("openssl worked before");
    let untrusted = another.certificate().display().to_string();
    let error = startup_error(&trusting.clone().set("kafka.client", "ssl.ca.location", untrusted));
    for part in ["certificate verify failed", "`ssl.ca.location`"] {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
    let error = startup_error(&trusting.clone().set("kafka.client", "sasl.password", "wrong-password"));
    assert!(error.contains("authentication failed") && error.contains(REMEDY), "{error}");

    Keylane::run(&trusting, &["--until-end"]).expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.outcomes, EVENTS);

    // Consumers and producer may authenticate as two users. No request is sent without the
    // credentials of one of them.
    let apart = ["kafka.consumer", "kafka.producer"].into_iter().fold(
        flow.settings(&guest("sleepy"), "worker").set("kafka", "bootstrap_servers", cluster.sasl_bootstrap()),
        |settings, table| {
            settings
                .set(table, "security.protocol", "sasl_ssl")
                .set(table, "ssl.ca.location", identity.certificate().display().to_string())
                .set(table, "sasl.mechanism", "SCRAM-SHA-512")
                .set(table, "sasl.username", USER)
                .set(table, "sasl.password", PASSWORD)
        },
    );
    Keylane::run(&apart, &["--until-end"]).expect_exit(0);
}

/// The user is deleted while the instance runs. Open connections continue; the restart of the broker closes them. Events
/// that are not committed by then are handled after the next start.
#[test]
fn credentials_that_stop_working_end_the_process() {
    let Some(cluster) = kafka::dedicated(&options(None)) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    let producer = flow.producer();
    producer.send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let settings = settings(&flow, PASSWORD).set("kafka", "auth_timeout", "4s");
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_until_committed();
    cluster.set_password(USER, None);
    cluster.restart(1);
    producer.send_all(&flow.input, (EVENTS..2 * EVENTS).map(event)).expect("acknowledged");
    let line = keylane.wait_for("the failure to be logged", is_authentication_failure);
    assert_eq!(line["auth_timeout"], "4s");
    assert!(line["error"].as_str().is_some_and(|error| error.contains(REMEDY)), "{line}");
    keylane.expect_exit(1);
    let failures = keylane.lines().iter().filter(|line| names_the_cause(line)).count();
    assert_eq!(failures, 1, "{}", keylane.tail());
    let failures = keylane.lines().iter().filter(|line| is_authentication_failure(line)).count();
    assert!(failures <= 2, "one for the consumers, one for the producer: {}", keylane.tail());

    cluster.set_password(USER, Some(PASSWORD));
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.outcomes - report.repeated(), 2 * EVENTS);
}

/// The broker requires every connection to reauthenticate, so it closes those of a deleted user.
#[test]
fn credentials_that_work_again_do_not_end_the_process() {
    let mut options = options(None);
    options.properties.push(("connections.max.reauth.ms".to_owned(), "1500".to_owned()));
    let Some(cluster) = kafka::dedicated(&options) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    let producer = flow.producer();
    producer.send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let mut keylane = Keylane::run(&settings(&flow, PASSWORD), &[]);
    flow.wait_until_committed();
    cluster.set_password(USER, None);
    keylane.wait_for("the failure to be logged", is_authentication_failure);
    producer.send_all(&flow.input, (EVENTS..2 * EVENTS).map(event)).expect("acknowledged");
    cluster.set_password(USER, Some(PASSWORD));
    keylane.wait_for("the recovery to be logged", |line| line["message"] == "authentication restored");
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.outcomes - report.repeated(), 2 * EVENTS);
}

/// The password is changed on the broker, and then in its file: the instance continues.
#[test]
fn a_new_password_in_its_file_is_used() {
    let mut options = options(None);
    options.properties.push(("connections.max.reauth.ms".to_owned(), "1500".to_owned()));
    let Some(cluster) = kafka::dedicated(&options) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    let producer = flow.producer();
    producer.send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let folder = janitor::folder("secrets");
    let file = folder.join("password");
    fs::write(&file, format!("{PASSWORD}\n")).expect("a temporary file can be written");
    let settings = user(&flow).set("kafka", "password_file", file.display().to_string());
    let mut keylane = Keylane::run(&settings, &[]);
    flow.wait_until_committed();
    cluster.set_password(USER, Some("second-password"));
    keylane.wait_for("the failure to be logged", is_authentication_failure);
    producer.send_all(&flow.input, (EVENTS..2 * EVENTS).map(event)).expect("acknowledged");
    fs::write(&file, "second-password\n").expect("a temporary file can be written");
    keylane.wait_for("the recovery to be logged", |line| line["message"] == "authentication restored");
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    let log = keylane.lines();
    assert!(!log.iter().any(|line| line.to_string().contains("-password")), "{}", keylane.tail());
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.outcomes - report.repeated(), 2 * EVENTS);
    janitor::remove(&folder);
}

/// The broker rejects expired tokens and closes connections whose token expires. The first token is replaced while the
/// instance runs.
#[test]
fn a_token_in_a_file_is_renewed() {
    let properties = vec![("connections.max.reauth.ms".to_owned(), "3600000".to_owned())];
    let options = Options { tokens: true, properties, ..Options::default() };
    let Some(cluster) = kafka::dedicated(&options) else { return };
    let flow = Flow::new(&cluster, 4, &[]);
    let producer = flow.producer();
    producer.send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let folder = janitor::folder("secrets");
    let file = folder.join("token");
    let bearer = user(&flow).set("kafka.client", "sasl.mechanism", "OAUTHBEARER").set(
        "kafka",
        "token_file",
        file.display().to_string(),
    );

    let now = || wait::unix_ms() / 1_000;
    fs::write(&file, token(now() - 60)).expect("a temporary file can be written");
    let error = startup_error(&bearer);
    assert!(error.contains("it has expired") && error.contains("token file"), "{error}");

    let first_expiry = now() + 40; // long enough for a start on a busy machine
    fs::write(&file, token(first_expiry)).expect("a temporary file can be written");
    let mut keylane = Keylane::run(&bearer, &[]);
    flow.wait_until_committed();
    fs::write(&file, token(now() + 3_600)).expect("a temporary file can be written");
    keylane.wait_for("the new token to be logged", |line| {
        line["message"].as_str().is_some_and(|message| message.starts_with("the credentials have changed"))
    });
    wait::until("the first token to expire", wait::STATE_TIMEOUT, || now() > first_expiry);
    producer.send_all(&flow.input, (EVENTS..2 * EVENTS).map(event)).expect("acknowledged");
    flow.wait_until_committed();
    keylane.terminate();
    keylane.expect_exit(0);
    assert!(!keylane.lines().iter().any(is_authentication_failure), "{}", keylane.tail());
    let report = check::check(&flow.history());
    report.assert_clean();
    assert_eq!(report.outcomes - report.repeated(), 2 * EVENTS);
    janitor::remove(&folder);
}

/// A JWT without a signature that expires at this second since 1970.
fn token(end: i64) -> String {
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    let claims = format!(r#"{{"sub":"{USER}","iat":{},"exp":{end}}}"#, end - 7_200);
    format!("{}.{}.\n", part(r#"{"alg":"none"}"#.to_owned()), part(claims))
}

/// One broker with a SCRAM-SHA-512 user. With an `identity`, the user's listener uses TLS.
fn options(identity: Option<Identity>) -> Options {
    let scram_users = vec![(USER.to_owned(), PASSWORD.to_owned())];
    Options { scram_users, identity, ..Options::default() }
}

/// The settings of an instance that authenticates as the user with this password.
fn settings(flow: &Flow<'_>, password: &str) -> Settings {
    user(flow).set("kafka.client", "sasl.password", password)
}

/// The settings of an instance that authenticates as the user.
fn user(flow: &Flow<'_>) -> Settings {
    flow.settings(&guest("sleepy"), "worker")
        .set("kafka", "bootstrap_servers", flow.cluster.sasl_bootstrap())
        .set("kafka.client", "security.protocol", "sasl_plaintext")
        .set("kafka.client", "sasl.mechanism", "SCRAM-SHA-512")
        .set("kafka.client", "sasl.username", USER)
}

/// The error of an instance that can't start. The password must not be in its log.
fn startup_error(settings: &Settings) -> String {
    let mut keylane = Keylane::run(settings, &[]);
    keylane.expect_exit(1);
    let lines = keylane.lines();
    assert!(!lines.iter().any(|line| line.to_string().contains("-password")), "{}", keylane.tail());
    let last = lines.iter().rev().find(|line| line.is_string()).expect("the error is a line of plain text");
    last.to_string()
}

/// The line at the beginning of an authentication failure.
fn is_authentication_failure(line: &Value) -> bool {
    line["message"] == "authentication failed" && line["level"] == "ERROR"
}

/// The line with the reason why the process ends.
fn names_the_cause(line: &Value) -> bool {
    line["failure"].as_str().is_some_and(|why| why.contains(REMEDY) && why.contains("`kafka.auth_timeout`"))
}

fn event(number: usize) -> Record {
    Record::new(format!("key-{}", number % 40), "v").with("sleep-ms", "0").with("emit", "")
}
