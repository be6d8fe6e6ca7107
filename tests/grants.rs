//! Promise: a handler has the access that its section grants, and no other.

use std::fs;
use std::path::PathBuf;

use keylane_tests::guests::guest;
use keylane_tests::keylane::Keylane;
use keylane_tests::service::Service;
use keylane_tests::tls::Identity;
use keylane_tests::{janitor, wait};
use serde_json::Value;

#[test]
fn a_request_to_a_host_that_is_not_listed_is_denied_and_reported() {
    let listed = Service::start(|_| Some((200, "hello".to_owned())));
    let other = Service::start(|_| Some((200, "no".to_owned())));
    let denied = format!("HTTP: `{}` is not in the handler's `grants.http`", other.host());
    let values = [
        format!("http://{}/", listed.host()),
        format!("http://{}/", other.host()),
        "http://localhost/".into(),
    ];
    let file = prepare("http-client", &values, &format!("grants.http = [\"{}\"]", listed.host()));
    let mut keylane = Keylane::run_file(&file, &["--until-end"], std::process::Stdio::null());
    keylane.expect_exit(0);

    let expected = ["200 hello", &denied, "HTTP: `localhost` is not in the handler's `grants.http`"];
    assert_eq!(outputs(&keylane), expected);
    assert_eq!(other.seen().connections, 0, "no connection may be opened");
    for host in [other.host(), "localhost:80".to_owned()] {
        let named = |line: &&Value| line["level"] == "WARN" && line.to_string().contains(&host);
        let lines: Vec<Value> = keylane.lines().iter().filter(named).cloned().collect();
        assert_eq!(lines.len(), 1, "one warning names {host}{}", keylane.tail());
        assert!(lines[0].to_string().contains("\"handler\":\"t\""), "{lines:?}");
    }
}

#[test]
fn https_requires_a_certificate_that_the_system_trusts() {
    let Some(identity) = Identity::new() else { return };
    let certificate = identity.certificate().display().to_string();
    let service = Service::start_with_tls(identity, |_| Some((200, "hello".to_owned())));
    let host = service.host().replace("127.0.0.1", "localhost");
    let file = prepare("http-client", &[format!("https://{host}/")], &format!("grants.http = [\"{host}\"]"));
    let untrusted = format!("HTTP: no response from `{host}`: tls certificate error");
    for (trusted, expected) in [(certificate.as_str(), "200 hello"), ("/dev/null", &untrusted)] {
        let trust = [("SSL_CERT_FILE", trusted), ("SSL_CERT_DIR", "/nowhere")];
        let mut keylane = Keylane::run_with_variables(&file, &["--until-end"], &trust);
        keylane.expect_exit(0);
        assert_eq!(outputs(&keylane), [expected]);
        let warned = keylane.tail().contains("no trusted certificates found");
        assert_eq!(warned, trusted == "/dev/null", "{}", keylane.tail());
    }
}

#[test]
fn without_the_grant_a_component_that_imports_http_is_refused_with_the_remedy() {
    let file = prepare("http-client", &["http://localhost/".to_owned()], "");
    let mut keylane = Keylane::run_file(&file, &["--until-end"], std::process::Stdio::null());
    keylane.expect_exit(2);
    let log = keylane.tail();
    for part in ["handler `t` can't be loaded", "wasi:http/outgoing-handler@0.2", "grants.http = ["] {
        assert!(log.contains(part), "no {part:?} in{log}");
    }
}

#[test]
fn a_handler_sees_only_the_granted_variables() {
    let file = prepare("environment", &["x".to_owned()], "grants.env = [\"KEYLANE_GIVEN\"]");
    let variables = [("KEYLANE_GIVEN", "a b=c"), ("KEYLANE_KEPT", "secret")];
    let mut keylane = Keylane::run_with_variables(&file, &["--until-end"], &variables);
    keylane.expect_exit(0);
    assert_eq!(outputs(&keylane), ["KEYLANE_GIVEN=a b=c"]);

    let file = prepare("environment", &["x".to_owned()], "");
    let mut keylane = Keylane::run_with_variables(&file, &["--until-end"], &variables);
    keylane.expect_exit(0);
    assert_eq!(outputs(&keylane), [""], "by default no variable is granted");
}

#[test]
fn a_granted_variable_that_is_not_set_is_reported_at_the_start() {
    let file = prepare("environment", &["x".to_owned()], "grants.env = [\"KEYLANE_NOT_THERE\"]");
    let mut keylane = Keylane::run_file(&file, &["--until-end"], std::process::Stdio::null());
    keylane.expect_exit(2);
    let log = keylane.tail();
    assert!(log.contains("the environment variable `KEYLANE_NOT_THERE` is not set"), "{log}");
}

#[test]
fn an_unanswered_request_ends_with_its_call() {
    let silent = Service::start(|_| None);
    let once = "retry = { max_attempts = 1, on_exhausted = \"stop\" }";
    let settings = format!("timeout = \"300ms\"\n{once}\ngrants.http = [\"{}\"]", silent.host());
    let file = prepare("http-client", &[format!("http://{}/", silent.host())], &settings);
    let mut keylane = Keylane::run_file(&file, &["--until-end"], std::process::Stdio::null());
    keylane.expect_exit(1);
    let log = keylane.tail();
    assert!(log.contains("deadline of 300ms exceeded"), "{log}");
    assert!(!log.contains("stuck"), "{log}");
    wait::until_ok("the request to be closed", wait::STATE_TIMEOUT, || match silent.seen() {
        seen if seen.connections > 0 && seen.connections == seen.ended => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
}

/// A configuration with the handler `t`, its settings, and these values as events of one key.
fn prepare(name: &str, values: &[String], settings: &str) -> PathBuf {
    let folder = janitor::folder("grants");
    let event = |value: &String| serde_json::json!({"key": "k", "value": value}).to_string() + "\n";
    let events: String = values.iter().map(event).collect();
    fs::write(folder.join("events.jsonl"), events).expect("a temporary file can be written");
    let file = folder.join("keylane.toml");
    let text = format!(
        "kafka.bootstrap_servers = \"embedded\"
        [[embedded.feed]]
        topic = \"in\"
        file = \"events.jsonl\"
        [handlers.t]
        component = {:?}
        topics = [\"in\"]
        group_id = \"t\"
        outputs.out.topic = \"out\"
        {settings}
        ",
        guest(name)
    );
    fs::write(&file, text).expect("a temporary file can be written");
    file
}

/// The values of the outputs.
fn outputs(keylane: &Keylane) -> Vec<String> {
    let value = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of output is JSON");
        line.get("value").and_then(Value::as_str).expect("text").to_owned()
    };
    keylane.stdout().lines().map(value).collect()
}
