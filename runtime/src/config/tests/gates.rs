//! Gates and the detection of duplicates.

use std::time::Duration;

use keylane_core::{GateRule, MaxAhead, NoValue};

use super::{check, expect_accepted, expect_refused, with};
use crate::config::checked::{EventField, NoKey, OrderBy, OrderFormat};

/// Returns a file with a gate. `lines`: of the gate.
fn with_gate(lines: &str) -> String {
    with("", &format!("[handlers.orders.gate]\n{lines}"))
}

const NEWEST: &str = "rule = \"newest\"\nby = \"header:version\"\nmemory = \"session\"";
const WINDOW: &str = "rule = \"window\"\nby = \"timestamp\"\nwindow = \"300ms\"";
const CONSECUTIVE: &str = "rule = \"consecutive\"\nby = \"header:version\"";
const DUPLICATES: &str = "[handlers.orders.duplicates]\nid = \"json:/event/id\"\nmemory = \"session\"";

#[test]
fn a_newest_gate_has_defaults() {
    let checked = expect_accepted(&with_gate(NEWEST));
    let handler = &checked.handlers[0];
    let gate = handler.order.gate.as_ref().expect("a gate");
    let header = EventField::Header("version".to_owned());
    assert_eq!((&gate.by, &gate.key), (&OrderBy::Field(header, OrderFormat::Integer), &None));
    assert_eq!(handler.lanes.no_key, NoKey::Reject);
    assert_eq!(handler.order.marks_memory, 8 << 20);
    let core = handler.core_config(1 << 20).gate.expect("a gate");
    assert_eq!((core.no_value, core.max_ahead, core.ends_at_tombstone), (NoValue::Reject, None, false));
    let GateRule::Newest(newest) = core.rule else { panic!("{core:?}") };
    assert_eq!((newest.equal_runs, newest.tolerance, newest.latest_first), (false, 0, false));
    let warnings = &checked.warnings;
    let lost = "etc/keylane.toml:12: with `memory = \"session\"`, the newest values are forgotten";
    assert!(warnings.iter().any(|warning| warning.starts_with(lost)), "{warnings:?}");
}

#[test]
fn a_window_gate_has_defaults() {
    let checked = expect_accepted(&with_gate(WINDOW));
    let core = checked.handlers[0].core_config(1 << 20).gate.expect("a gate");
    let GateRule::Window(window) = core.rule else { panic!("{core:?}") };
    assert_eq!((window.window, window.max_waiting), (Duration::from_millis(300), 10_000));
    assert_eq!((window.max_waiting_bytes, window.releases_on_overflow), (16 << 20, true));
    assert_eq!(core.max_ahead, Some(MaxAhead::OfClock(Duration::from_hours(1))));
    assert_eq!(checked.warnings, [] as [String; 0]);
}

#[test]
fn all_settings_of_a_gate() {
    let checked = expect_accepted(&with(
        "lanes.ordering = \"partition\"",
        "[handlers.orders.gate]\nrule = \"newest\"\nby = \"json:/updated\"\nformat = \"rfc3339\"\nkey = \"json:/row/id\"\n\
         memory = \"session\"\nno_value = \"pass\"\nmax_ahead = \"5m\"\nends = \"tombstone\"\nmarks_memory = \"1MiB\"\n\
         equal = \"deliver\"\nskew_tolerance = \"50ms\"",
    ));
    let handler = &checked.handlers[0];
    assert_eq!(handler.lanes.no_key, NoKey::Spread, "without lane keys none is missing");
    let gate = handler.order.gate.as_ref().expect("a gate");
    assert_eq!(gate.key, Some(EventField::Json("/row/id".to_owned())));
    let GateRule::Newest(newest) = gate.rule.rule else { panic!("{gate:?}") };
    assert_eq!((newest.equal_runs, newest.tolerance), (true, 50_000_000));
    assert_eq!((gate.rule.no_value, gate.rule.ends_at_tombstone), (NoValue::Pass, true));
    assert_eq!(gate.rule.max_ahead, Some(MaxAhead::OfClock(Duration::from_mins(5))));
    let numbers =
        "rule = \"window\"\nby = \"header:n\"\nwindow = \"1s\"\nmax_ahead = 1000\nconsecutive = true";
    let checked = expect_accepted(&with_gate(numbers));
    let core = checked.handlers[0].core_config(1 << 20).gate.expect("a gate");
    assert_eq!(core.max_ahead, Some(MaxAhead::OfMark(1000)));
}

#[test]
fn duplicates_have_defaults() {
    let checked = expect_accepted(&with("", DUPLICATES));
    let handler = &checked.handlers[0];
    let duplicates = handler.order.duplicates.as_ref().expect("duplicates");
    assert_eq!(duplicates.id, EventField::Json("/event/id".to_owned()));
    let limits = handler.core_config(1 << 20).duplicates.expect("duplicates");
    assert_eq!((limits.keep, limits.window), (16, Duration::from_hours(24)));
    let warnings = &checked.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("ids are forgotten when")), "{warnings:?}");
    assert_eq!(handler.order.marks_memory, 8 << 20);
    let memory = format!("{DUPLICATES}\nmarks_memory = \"1MiB\"");
    assert_eq!(expect_accepted(&with("", &memory)).handlers[0].order.marks_memory, 1 << 20);
    let both = format!("[handlers.orders.gate]\n{NEWEST}\n{memory}");
    expect_refused(&with("", &both), &["marks and ids share their memory", "move `marks_memory` to `gate`"]);
}

#[test]
fn dead_letters_of_a_gate_have_a_topic() {
    let late = format!("{WINDOW}\nlate = \"dlq\"\n[handlers.orders.retry]\non_exhausted = \"stop\"");
    let checked = expect_accepted(&with_gate(&late));
    let topics = checked.handlers[0].dead_letters.as_ref().map(|dead_letters| dead_letters.topics.clone());
    assert_eq!(topics, Some(vec!["orders.dlq".to_owned()]));
    expect_refused(
        &with_gate(&format!("{late}\n[handlers.orders.dead_letters]\ntopic = \"orders\"")),
        &["`orders` is an input of the handler `orders`: it would read its own dead letters"],
    );
}

#[test]
fn durable_memory_needs_transactions() {
    let refused = |lines: &str, part: &str, remedy: &str| expect_refused(&with_gate(lines), &[part, remedy]);
    refused(
        "rule = \"newest\"\nby = \"header:version\"",
        "`memory = \"durable\"`, the default, needs transactional delivery",
        "or set `memory = \"session\"` in `[handlers.orders.gate]`",
    );
    refused(
        &format!("{WINDOW}\nmemory = \"durable\""),
        "`memory = \"durable\"` needs transactional delivery",
        "add `delivery = \"transactional\"` to `[handlers.orders]`",
    );
    refused(
        &format!("{CONSECUTIVE}\nfirst = 1"),
        "`memory = \"durable\"`, the default, needs transactional delivery",
        "add `delivery = \"transactional\"` to `[handlers.orders]`",
    );
    let text = with_gate(&format!("{CONSECUTIVE}\nfirst = 1"));
    let text = text.replace("[handlers.orders]\n", "[handlers.orders]\ndelivery = \"transactional\"\n");
    let checked = expect_accepted(&text);
    let handler = &checked.handlers[0];
    let keys = handler.keys.as_ref().expect("durable marks have keys");
    assert!(handler.order.is_durable() && handler.state.is_none());
    assert_eq!(keys.changelogs, ["orders.orders.keys"]);
    let limits = handler.core_config(64 << 20).transactions.expect("transactional delivery");
    assert!(limits.key_records && !limits.keyed_state && limits.event_bytes > 0);
    expect_refused(
        &with("", "[handlers.orders.duplicates]\nid = \"header:id\""),
        &["is not available yet", "set `memory = \"session\"` in `[handlers.orders.duplicates]`"],
    );
}

#[test]
fn required_settings_and_ranges() {
    for (lines, expected) in [
        ("by = \"header:v\"", "missing setting `rule`"),
        ("rule = \"newest\"", "missing setting `by`"),
        (
            "rule = \"oldest\"\nby = \"header:v\"",
            "unknown variant `oldest`, expected one of `consecutive`, `newest`",
        ),
        (
            "rule = \"window\"\nby = \"timestamp\"",
            "`rule = \"window\"` needs `window`, the time that events wait",
        ),
        (
            "rule = \"window\"\nby = \"timestamp\"\nwindow = \"2h\"",
            "window` must be between 1ms and 1h, not 2h",
        ),
        (&format!("{WINDOW}\nmax_waiting = 0"), "max_waiting` must be between 1 and 1000000, not 0"),
        (&format!("{WINDOW}\nmax_waiting_bytes = \"1B\""), "must be between 64KiB and 1TiB, not 1B"),
        (&format!("{NEWEST}\nmarks_memory = \"1B\""), "marks_memory` must be between 64KiB and 1TiB, not 1B"),
        (&format!("{NEWEST}\nmax_ahead = 0"), "max_ahead` must be between 1 and 9223372036854775807, not 0"),
        (CONSECUTIVE, "`rule = \"consecutive\"` needs `first`, the value with which a key begins"),
        (
            &format!("{CONSECUTIVE}\nfirst = 1\ngap_timeout = \"25h\""),
            "gap_timeout` must be between 10ms and 1day",
        ),
        (
            &format!("{CONSECUTIVE}\nfirst = 1\nmax_early = 0"),
            "max_early` must be between 1 and 1000000, not 0",
        ),
        (&format!("{NEWEST}\nby = \"x\""), "duplicate key"),
    ] {
        expect_refused(&with_gate(lines), &[expected]);
    }
    for (line, expected) in [
        ("keep = 0", "keep` must be between 1 and 1000, not 0"),
        ("keep = 1001", "keep` must be between 1 and 1000, not 1001"),
        ("window = \"31d\"", "window` must be between 1s and 30days, not 1month"),
    ] {
        expect_refused(&with("", &format!("{DUPLICATES}\n{line}")), &[expected]);
    }
}

#[test]
fn values_that_cannot_be_read_or_compared() {
    for (lines, expected, remedy) in [
        ("rule = \"newest\"\nby = \"version\"", "`version` is not an order value", "write \"header:NAME\""),
        ("rule = \"newest\"\nby = \"json:a\"", "`json:a` is not an order value", "\"timestamp\""),
        (&format!("{NEWEST}\nkey = \"row\""), "`row` is not a gate key", "write \"lane\", \"header:NAME\""),
        (&format!("{WINDOW}\nformat = \"unix_ms\""), "`by = \"timestamp\"` has no format", "remove `format`"),
        (
            "rule = \"newest\"\nby = \"json:/v\"\nformat = \"int64\"",
            "`int64` is eight bytes, and JSON has no bytes",
            "use \"integer\"",
        ),
        (
            "rule = \"consecutive\"\nby = \"timestamp\"\nfirst = 1",
            "times do not ascend by one",
            "use `rule = \"newest\"` or \"window\"",
        ),
        (
            &format!("{NEWEST}\nskew_tolerance = \"1s\""),
            "`skew_tolerance` needs an order value that is a time",
            "`format`",
        ),
        (&format!("{WINDOW}\nconsecutive = true"), "times have holes", "remove `consecutive`"),
        (&format!("{WINDOW}\nmax_ahead = 10"), "`max_ahead` of a time is a duration", "write it like \"1h\""),
        (
            &format!("{NEWEST}\nmax_ahead = \"1h\""),
            "`max_ahead` of values that are not times is a number",
            "how far above",
        ),
        (
            "rule = \"window\"\nby = \"header:n\"\nwindow = \"1s\"",
            "`rule = \"window\"` needs `max_ahead`: after one absurd value",
            "set `max_ahead` to a number",
        ),
        (
            &format!("{CONSECUTIVE}\nfirst = 1\non_gap = \"pass\"\nmax_ahead = \"off\""),
            "`on_gap = \"pass\"` needs `max_ahead`",
            "set `max_ahead` to a number",
        ),
    ] {
        expect_refused(&with_gate(lines), &[expected, remedy]);
    }
    expect_refused(
        &with("", "[handlers.orders.duplicates]\nid = \"key\"\nmemory = \"session\""),
        &["`key` is not the id of an event", "write \"header:NAME\" or \"json:/pointer\""],
    );
}

#[test]
fn settings_that_contradict_each_other() {
    for (lines, expected, remedy) in [
        (
            &format!("{NEWEST}\nlate = \"drop\""),
            "`late` has no effect with `rule = \"newest\"`",
            "\"consecutive\" and \"window\"",
        ),
        (
            &format!("{WINDOW}\nequal = \"deliver\""),
            "`equal` has no effect with `rule = \"window\"`",
            "a setting of \"newest\"",
        ),
        (
            &format!("{NEWEST}\nlatest_first = true\nequal = \"deliver\""),
            "`latest_first` can't be combined with `equal",
            "remove one",
        ),
        (
            &"rule = \"newest\"\nby = \"timestamp\"\nlatest_first = true\nskew_tolerance = \"1s\"".to_owned(),
            "`latest_first` can't be combined with `skew_tolerance`",
            "remove one of the two",
        ),
        (
            &format!("{CONSECUTIVE}\nfirst = 1\nfirst_wait = \"1s\""),
            "`first_wait` has no effect without",
            "remove it",
        ),
        (
            &format!("{CONSECUTIVE}\nfirst = 1\nmemory = \"session\""),
            "needs durable memory: after a rebalance",
            "remove `memory`",
        ),
    ] {
        expect_refused(&with_gate(lines), &[expected, remedy]);
    }
}

#[test]
fn what_gates_need_of_the_handler() {
    let gate = |line: &str, gate: &str| with(line, &format!("[handlers.orders.gate]\n{gate}"));
    let first = format!("{CONSECUTIVE}\nfirst = 1");
    for (line, lines, expected, remedy) in [
        (
            "lanes.ordering = \"unordered\"",
            NEWEST,
            "`gate` needs lanes",
            "use `ordering = \"key\"` or \"partition\"",
        ),
        (
            "lanes.no_key = \"spread\"",
            NEWEST,
            "`gate` compares the events of a lane key",
            "its default is \"reject\" here",
        ),
        (
            "retry.scope = \"partition\"",
            WINDOW,
            "`rule = \"window\"` runs events in another order",
            "use `scope = \"key\"`",
        ),
        (
            "retry.scope = \"partition\"",
            &first,
            "`rule = \"consecutive\"` runs events in another order",
            "\"key\"",
        ),
        (
            "retry.scope = \"partition\"",
            &format!("{NEWEST}\nlatest_first = true"),
            "`latest_first` runs events in",
            "\"key\"",
        ),
        ("start = \"latest\"", &first, "`first = 1` needs the whole log", "set `start = \"earliest\"` and"),
        ("out_of_range = \"earliest\"", &first, "`first = 1` needs the whole log", "or `first = \"any\"`"),
        (
            "lanes.lane_key = \"header:k\"",
            &first,
            "waits for values in other partitions",
            "partitioned_by_lane_key = true",
        ),
    ] {
        expect_refused(&gate(line, lines), &["etc/keylane.toml:", expected, remedy]);
    }
    let unordered = format!("[handlers.orders.lanes]\nordering = \"unordered\"\n{DUPLICATES}");
    expect_refused(&with("", &unordered), &["`duplicates` needs lanes"]);
    let any = check(&gate(
        "start = \"latest\"\nlanes.lane_key = \"header:k\"",
        &format!("{CONSECUTIVE}\nfirst = \"any\"\npartitioned_by_lane_key = true"),
    ));
    let report = any.map(|_| ()).expect_err("no transactional delivery");
    assert!(!report.contains("whole log") && !report.contains("other partitions"), "{report}");
    expect_accepted(&gate("retry.scope = \"partition\"", NEWEST));
}

#[test]
fn newest_across_topics_must_be_meant() {
    let two = |line: &str| {
        let text = with_gate(&format!("{NEWEST}\n{line}"));
        text.replace("topics = [\"orders\"]", "topics = [\"orders\", \"returns\"]")
    };
    expect_refused(
        &two(""),
        &["leaves out an event of one topic after a newer one", "`supersedes_across_topics = true`"],
    );
    expect_accepted(&two("supersedes_across_topics = true"));
}
