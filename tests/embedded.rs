//! Promise: the examples run with the binary alone, and their results are the expected ones.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keylane_tests::guests::example;
use keylane_tests::janitor;
use keylane_tests::keylane::{Keylane, workspace};
use keylane_tests::skip::skip;
use keylane_tests::wait;
use serde_json::Value;

#[test]
fn hello_keeps_the_order_of_each_key() {
    let file = prepare("hello", "events.jsonl");
    let outputs = run_to_end(&file);
    let expected = expected("hello");
    assert_eq!(by_key(&outputs), by_key(&expected));
    assert!(outputs.iter().all(|output| output["topic"] == "greetings"), "{outputs:?}");
}

#[test]
fn javascript_gives_the_same_result_through_the_same_contract() {
    let example = folder("hello-js");
    for arguments in [&["ci", "--no-audit", "--no-fund"][..], &["run", "build"]] {
        match Command::new("npm").args(arguments).current_dir(&example).stdin(Stdio::null()).output() {
            Ok(npm) => {
                assert!(npm.status.success(), "npm {arguments:?}: {}", String::from_utf8_lossy(&npm.stderr))
            }
            Err(error) => return skip(&format!("npm can't be run: {error}")),
        }
    }
    let outputs = run_to_end(&example.join("keylane.toml"));
    let expected = expected("hello");
    assert_eq!(by_key(&outputs), by_key(&expected));
}

#[test]
fn orders_are_retried_and_dead_lettered() {
    let outputs = run_to_end(&prepare("orders", "events.jsonl"));
    let expected = expected("orders");
    let of_topic = |topic: &str, lines: &[Value]| {
        by_key(&lines.iter().filter(|line| line["topic"] == topic).cloned().collect::<Vec<_>>())
    };
    for topic in ["paid-orders", "orders.dlq"] {
        assert_eq!(of_topic(topic, &outputs), of_topic(topic, &expected), "{topic}");
    }
    let reason = |output: &Value| {
        let headers = output["headers"].as_array().into_iter().flatten();
        headers.filter(|header| header[0] == "keylane-reason").map(|header| header[1].clone()).next()
    };
    for dead_letter in expected.iter().filter(|line| line["topic"] == "orders.dlq") {
        let found = outputs
            .iter()
            .find(|output| output["value"] == dead_letter["value"])
            .expect("the event is dead-lettered");
        assert_eq!(reason(found).as_ref(), Some(&dead_letter["reason"]), "{found}");
    }
}

#[test]
fn balances_are_kept_in_states() {
    let outputs = run_to_end(&prepare("balances", "events.jsonl"));
    let expected = expected("balances");
    let of_topic = |topic: &str, lines: &[Value]| {
        by_key(&lines.iter().filter(|line| line["topic"] == topic).cloned().collect::<Vec<_>>())
    };
    for topic in ["balances", "bookings.dlq"] {
        assert_eq!(of_topic(topic, &outputs), of_topic(topic, &expected), "{topic}");
    }
    assert_eq!(outputs.len(), expected.len());
}

/// The versions of each account are displaced, and two events are sent twice.
#[test]
fn accounts_are_updated_in_the_order_of_their_versions() {
    let outputs = run_to_end(&prepare("accounts", "events.jsonl"));
    assert_eq!(by_key(&outputs), by_key(&expected("accounts")));
    assert!(outputs.iter().all(|output| output["topic"] == "balances"), "{outputs:?}");
}

#[test]
fn flights_reports_delays_and_oddities() {
    let file = prepare("flights", "flights.jsonl.zst");
    let outputs = run_to_end(&file);
    let expected = fs::read_to_string(folder("flights").join("expected.json")).expect("the example's result");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    let in_topic = |topic: &str| outputs.iter().filter(|output| output["topic"] == topic).count();
    assert_eq!(Value::from(in_topic("flight-delays")), expected["delays"]);
    assert_eq!(Value::from(in_topic("flight-oddities")), expected["oddities"]);

    let mut last: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for output in &outputs {
        let value: Value = serde_json::from_str(output["value"].as_str().expect("text")).expect("JSON");
        let number = |name: &str| value["source"][name].as_u64().expect("a number");
        let position = (number("partition"), number("offset"));
        let lane = (output["topic"].to_string(), output["key"].to_string());
        if output["key"].is_null() {
            continue;
        }
        let before = last.insert(lane, position);
        assert!(before.is_none_or(|before| before < position), "{output} comes after {before:?}");
    }
    assert!(last.len() > 1_000, "only {} planes", last.len());
}

#[test]
fn rotation_carries_delays_from_leg_to_leg() {
    let outputs = run_to_end(&prepare("flights-rotation", "../flights/flights.jsonl.zst"));
    let expected =
        fs::read_to_string(folder("flights-rotation").join("expected.json")).expect("the example's result");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");

    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    let mut lengths: BTreeMap<String, i64> = BTreeMap::new();
    let (mut carried, mut leg_numbers) = (0, 0);
    for output in &outputs {
        assert_eq!(output["topic"], "flight-knock-ons", "nothing is dead-lettered: {output}");
        let value: Value = serde_json::from_str(output["value"].as_str().expect("text")).expect("JSON");
        let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_i64).expect("a number");
        carried += number("/carried");
        leg_numbers += number("/plane/legs");
        // A chain of two legs was counted as a chain of one at its first leg.
        let chain = number("/chain");
        *lengths.entry(chain.to_string()).or_default() += 1;
        if chain > 1 {
            *lengths.entry((chain - 1).to_string()).or_default() -= 1;
        }
        last.insert(output["key"].as_str().expect("a tail number").to_owned(), value["plane"].clone());
    }
    assert_eq!(Value::from(outputs.len()), expected["knock_ons"]);
    assert_eq!(Value::from(carried), expected["carried_minutes"]);
    assert_eq!(Value::from(leg_numbers), expected["sum_of_leg_numbers"]);
    assert_eq!(serde_json::to_value(&lengths).expect("JSON"), expected["chains"]);

    // The totals in the states agree with the outputs.
    assert_eq!(Value::from(last.len()), expected["planes"]);
    let total = |name: &str| last.values().map(|plane| plane[name].as_i64().expect("a number")).sum::<i64>();
    assert_eq!(Value::from(total("knock_ons")), expected["knock_ons"]);
    assert_eq!(Value::from(total("carried")), expected["carried_minutes"]);
    let worst = &expected["worst_plane"];
    let of_worst = &last[worst["key"].as_str().expect("a tail number")];
    assert_eq!((&of_worst["knock_ons"], &of_worst["carried"]), (&worst["knock_ons"], &worst["carried"]));
}

#[test]
fn an_invalid_line_of_the_feed_is_reported_with_its_number() {
    let file = prepare("hello", "events.jsonl");
    let events = file.with_file_name("events.jsonl");
    let good = fs::read_to_string(&events).expect("the example's events");
    let mut lines: Vec<&str> = good.lines().collect();
    lines[2] = "{\"key\": \"ada\", \"value\": ";
    fs::write(&events, lines.join("\n")).expect("a temporary file can be written");
    let mut keylane = Keylane::run_file(&file, &["--until-end"], Stdio::null());
    assert!(
        keylane.wait_exit().is_some_and(|code| code != 0),
        "an invalid line must not exit with 0{}",
        keylane.tail()
    );
    let names_the_line = |line: &Value| {
        let text = line.to_string();
        text.contains("events.jsonl")
            && ["line 3", "jsonl:3", "\"line\":3"].iter().any(|form| text.contains(form))
    };
    assert!(keylane.lines().iter().any(names_the_line), "line 3 is not named{}", keylane.tail());
}

#[test]
fn sigterm_drains_a_feed_that_has_no_end() {
    let file = prepare("hello", "events.jsonl");
    let text = fs::read_to_string(&file).expect("just written");
    let from_input = text.replace("\"events.jsonl\"", "\"-\"");
    assert_ne!(text, from_input, "the example feeds events.jsonl");
    fs::write(&file, from_input).expect("a temporary file can be written");

    let mut keylane = Keylane::run_file(&file, &[], Stdio::piped());
    let mut feed = keylane.take_stdin().expect("standard input is piped");
    for number in 0..100 {
        writeln!(feed, "{{\"key\": \"key-{}\", \"value\": \"one two\"}}", number % 7)
            .expect("the process reads its feed");
    }
    feed.flush().expect("the process reads its feed");
    wait::until_ok("100 outputs", wait::STATE_TIMEOUT, || match outputs(&keylane).len() {
        100 => Ok(()),
        other => Err(format!("{other} so far{}", keylane.tail())),
    });
    keylane.terminate();
    keylane.expect_exit(0);
    drop(feed);
}

fn folder(name: &str) -> PathBuf {
    workspace().join("examples").join(name)
}

/// The expected records of an example.
fn expected(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder(name).join("expected.jsonl")).expect("the example's result");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Copies an example's configuration and events, with the path of the built component. Returns the configuration file.
fn prepare(name: &str, events: &str) -> PathBuf {
    let source = folder(name);
    let target = janitor::folder(name);
    let (_, copied) = events.rsplit_once('/').unwrap_or(("", events));
    fs::copy(source.join(events), target.join(copied)).expect("the example has its events");
    let text = fs::read_to_string(source.join("keylane.toml")).expect("the example has its configuration");
    let written = format!("../target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let built = example(name).display().to_string();
    assert!(text.contains(&written), "the example runs its own component");
    assert!(text.contains(events), "the example reads its events");
    let file = target.join("keylane.toml");
    let text = text.replace(&written, &built).replace(events, copied);
    fs::write(&file, text).expect("a temporary file can be written");
    file
}

fn run_to_end(file: &Path) -> Vec<Value> {
    let mut keylane = Keylane::run_file(file, &["--until-end"], Stdio::null());
    keylane.expect_exit(0);
    let warned = |line: &Value| line.to_string().contains("limits of output topics unknown");
    assert!(!keylane.lines().iter().any(warned), "a warning about topics whose limits are unknown");
    outputs(&keylane)
}

/// The events that the handlers emitted: one JSON object per line, with topic, key and value.
fn outputs(keylane: &Keylane) -> Vec<Value> {
    let text = keylane.stdout();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of output is JSON")).collect()
}

fn by_key(outputs: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut keys: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for output in outputs {
        keys.entry(output["key"].to_string()).or_default().push(output["value"].clone());
    }
    keys
}
