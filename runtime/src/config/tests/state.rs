//! Keyed state.

use std::path::Path;
use std::time::Duration;

use super::{expect_accepted, expect_refused, with};

const TRANSACTIONAL: &str = "delivery = \"transactional\"";

fn with_state(settings: &str) -> String {
    let tables = format!(
        "[handlers.orders.lanes]\nno_key = \"reject\"\n[handlers.orders.state]\nversion = 2\n{settings}"
    );
    with(TRANSACTIONAL, &tables)
}

#[test]
fn keyed_state_has_a_changelog_per_topic_and_a_directory() {
    let checked = expect_accepted(&with_state("[handlers.orders.keys]\ndir = \"keys\"\ncache = \"1GiB\""));
    let state = checked.handlers[0].state.as_ref().expect("state is configured");
    let keys = checked.handlers[0].keys.as_ref().expect("a state has keys");
    assert_eq!((state.max_value, state.version, keys.cache), (512 << 10, 2, 1 << 30));
    assert_eq!(keys.changelogs, ["orders.orders.keys"]);
    assert_eq!(keys.dir.as_deref(), Some(Path::new("etc/keys")));
    let core = checked.handlers[0].core_config(64 << 20);
    assert!(core.transactions.expect("transactional delivery").keyed_state);
    let default = expect_accepted(&with_state(""));
    let keys = default.handlers[0].keys.as_ref().expect("a state has keys");
    assert_eq!(keys.dir.as_deref(), Some(Path::new("/home/somebody/.local/state/keylane/state")));
}

#[test]
fn a_state_without_what_it_needs_is_refused() {
    let state = "[handlers.orders.state]\nversion = 1\n";
    expect_refused(
        &with("", &format!("[handlers.orders.lanes]\nno_key = \"reject\"\n{state}")),
        &["keyed state needs transactional delivery", "add `delivery = \"transactional\"`"],
    );
    expect_refused(&with(TRANSACTIONAL, state), &["events without a lane key have no state", "no_key"]);
    let unordered = format!("[handlers.orders.lanes]\nordering = \"unordered\"\n{state}");
    expect_refused(&with(TRANSACTIONAL, &unordered), &["keyed state needs lanes with a key"]);
    expect_refused(&with_state("max_value = \"1B\""), &["must be between 64B and 256MiB, not 1B"]);
    let keys = |setting: &str| with_state(&format!("[handlers.orders.keys]\n{setting}"));
    expect_refused(&keys("topic = \"orders\""), &["`orders` is also an input, output or dead-letter topic"]);
    expect_refused(&keys("topic = \"orders.dlq\""), &["`orders.dlq` is also an input"]);
    expect_refused(
        &keys("topic = \"{group}.keys\""),
        &["`{group_id}` and `{topic}` are the only placeholders"],
    );
    let forget_after = |value: &str| keys(&format!("forget_after = \"{value}\""));
    expect_refused(&forget_after("999ms"), &["forget_after` must be between 1s and 9years", "not 999ms"]);
    expect_refused(&forget_after("off"), &["`off` is not a duration", "write \"never\" or a duration"]);
}

#[test]
fn a_state_is_kept_for_ever_unless_an_age_is_configured() {
    let age = |keys: &str| {
        let checked = expect_accepted(&with_state(keys));
        checked.handlers[0].keys.as_ref().expect("a state has keys").forget_after
    };
    assert_eq!(age(""), None);
    assert_eq!(age("[handlers.orders.keys]\nforget_after = \"never\""), None);
    let day = Some(Duration::from_hours(24));
    assert_eq!(age("[handlers.orders.keys]\nforget_after = \"1d\""), day);
}

#[test]
fn keys_without_a_state_are_warned_about() {
    let warnings = expect_accepted(&with(TRANSACTIONAL, "[handlers.orders.keys]\ncache = \"1GiB\"")).warnings;
    let expected = "`keys` has no effect: the handler has neither a `state` nor a gate with durable memory";
    assert!(warnings.iter().any(|warning| warning.contains(expected)), "{warnings:?}");
}
