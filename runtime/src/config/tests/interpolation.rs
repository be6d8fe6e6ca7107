//! `${NAME}` in string values.

use super::super::Cluster;
use super::{MINIMAL, expect_accepted, expect_refused};

fn servers(written: &str) -> String {
    let checked = expect_accepted(&MINIMAL.replace("localhost:9092", written));
    match checked.kafka.cluster {
        Cluster::Brokers(servers) => servers,
        Cluster::Embedded(embedded) => panic!("unexpected embedded broker: {embedded:?}"),
    }
}

#[test]
fn variables_and_defaults() {
    for (written, meant) in [
        ("${HOST}", "broker.example:9092"),
        ("a:1,${HOST},b:2", "a:1,broker.example:9092,b:2"),
        ("${HOST:-a:1}", "broker.example:9092"),
        ("${NOWHERE:-a:1}", "a:1"),
        ("${EMPTY:-a:1}", "a:1"),
        ("a${EMPTY}:1", "a:1"),
        ("a$b:1", "a$b:1"),
    ] {
        assert_eq!(servers(written), meant, "{written}");
    }
}

#[test]
fn values_of_variables_are_not_interpolated() {
    for written in ["$${HOST}", "${NESTED}"] {
        let checked =
            expect_accepted(&MINIMAL.replace("group_id = \"orders\"", &format!("group_id = \"{written}\"")));
        assert_eq!(checked.handlers[0].group_id, "${HOST}", "{written}");
    }
}

/// Values from the environment are strings, even for settings of other types.
#[test]
fn numbers_and_booleans_may_come_from_the_environment() {
    let text = "max_batch = \"${NOWHERE:-64}\"\nretry.jitter = \"${NOWHERE:-0.5}\"\nretry.multiplier = 3";
    let checked = expect_accepted(
        &format!("{MINIMAL}{text}\n")
            .replace("[handlers.orders]", "create_topics = \"${NOWHERE:-true}\"\n\n[handlers.orders]"),
    );
    let handler = &checked.handlers[0];
    assert_eq!((handler.max_batch, handler.retry.jitter, handler.retry.multiplier), (Some(64), 0.5, 3.0));
    assert!(checked.kafka.create_topics);
}

#[test]
fn all_unset_variables_are_reported_together() {
    let text = MINIMAL.replace("localhost:9092", "${NOWHERE}").replace("[\"orders\"]", "[\"${NOBODY}\"]");
    expect_refused(
        &text,
        &[
            "error: the environment variable `NOWHERE` is not set\n --> etc/keylane.toml:2:21\n",
            "hint: set it, or give it a default: ${NOWHERE:-…}",
            "error: the environment variable `NOBODY` is not set\n --> etc/keylane.toml:6:11\n",
        ],
    );
}

#[test]
fn syntax_errors() {
    expect_refused(&MINIMAL.replace("localhost:9092", "${HOST"), &["`${` without `}`", "hint: write `$${`"]);
    expect_refused(
        &MINIMAL.replace("localhost:9092", "${a b}"),
        &["`a b` is not the name of an environment variable"],
    );
}

#[test]
fn only_values_are_interpolated() {
    let checked = expect_accepted(&format!(
        "{MINIMAL}[handlers.orders.outputs.\"${{HOST}}\"]\ntopic = \"t\" # ${{NOWHERE}}"
    ));
    let target =
        checked.handlers.first().and_then(|handler| handler.outputs.first()).map(|o| o.target.clone());
    assert_eq!(target.as_deref(), Some("${HOST}"));
}
