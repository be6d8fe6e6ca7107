//! Secrets do not occur in printed text. A canary represents a secret.

use super::{check, expect_accepted, with};

const CANARY: &str = "canary-4711";

#[test]
fn a_checked_configuration_prints_no_secrets() {
    let names = [
        "sasl.username",
        "sasl.password",
        "sasl.oauthbearer.config",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "some.token",
    ];
    let lines: Vec<String> = names.iter().map(|name| format!("{name} = \"{CANARY}\"")).collect();
    let checked = expect_accepted(&with("", &format!("[kafka.client]\n{}", lines.join("\n"))));
    let printed = format!("{checked:?} {checked:#?}");
    assert!(!printed.contains(CANARY), "{printed}");
    for name in names {
        assert!(printed.contains(name), "the name {name} must be printed: {printed}");
        assert_eq!(checked.kafka.producer.get(name), Some(CANARY), "the client receives it");
    }
}

#[test]
fn no_report_shows_a_secret() {
    for section in [
        // A secret that is not closed, without `=`, of the wrong type, or in an unknown field.
        &format!("[kafka.client]\nsasl.password = \"{CANARY}"),
        &format!("[kafka.client]\nsasl.password \"{CANARY}\""),
        &format!("[kafka.client]\nsasl.password = [\"{CANARY}\"]"),
        &format!("[kafka.client.sasl]\npassword = [\"{CANARY}\"]"),
        &format!("[kafka.client.sasl]\nusername = [\"{CANARY}\"]"),
        &format!("[runtime]\nsasl_password = \"{CANARY}\""),
        // A secret in a multi-line string that is never closed, or that has an invalid escape.
        &format!("[kafka.client]\nssl.key.pem = \"\"\"\n-----BEGIN\n{CANARY}=\n-----END\n"),
        &format!("[kafka.client]\nssl.key.pem = \"\"\"\n-----BEGIN\n{CANARY}\\q=\n-----END\n\"\"\""),
        // A property that is set twice, belongs to the Java client, or needs OIDC.
        &format!("[kafka.client]\nsasl.mechanism = \"{CANARY}\"\nsasl.mechanisms = \"{CANARY}\""),
        &format!("[kafka.client]\nsasl.jaas.config = \"{CANARY}\""),
        &format!("[kafka.client]\nsasl.oauthbearer.client.secret = \"{CANARY}\""),
        // A default of a variable; a variable in a setting whose error quotes its value.
        &format!("[runtime]\ndrain_timeout = \"${{DB_PASSWORD:-{CANARY}}}\""),
        &"[runtime]\ndrain_timeout = \"${KAFKA_PASSWORD}\"".to_owned(),
        // A secret with characters that a rendered report shows differently.
        &"[runtime]\ndrain_timeout = \"${TABBED_PASSWORD}\"".to_owned(),
        &"[runtime]\ndrain_timeout = \"${PRIVATE_PEM}\"".to_owned(),
    ] {
        let report = check(&with("", section)).map(|_| ()).expect_err(section);
        let leaked = [CANARY, "canary-"].into_iter().any(|value| report.contains(value));
        assert!(!leaked, "{section}\n=>\n{report}");
        assert!(report.contains("etc/keylane.toml:"), "the position is still reported: {report}");
    }
}
