//! Promise: a handler that waits for an HTTP service keeps the order of its keys and delays no other key.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use keylane_tests::guests::example;
use keylane_tests::janitor;
use keylane_tests::keylane::{Keylane, workspace};
use keylane_tests::service::Service;
use serde_json::Value;

const CUSTOMERS: usize = 4;

#[test]
fn the_example_looks_up_every_order_and_keeps_their_order() {
    let source = workspace().join("examples/enrich");
    let files = source.join("service");
    // The first four requests are answered when all four have arrived, so the only worker must wait
    // for four calls at once.
    let (requests, together) = (AtomicUsize::new(0), Barrier::new(CUSTOMERS));
    let service = Service::start(move |path| {
        match requests.fetch_add(1, Ordering::SeqCst) {
            first if first < CUSTOMERS => drop(together.wait()),
            // The next request fails, and its order is retried.
            CUSTOMERS => return Some((500, String::new())),
            _ => {}
        }
        match fs::read_to_string(files.join(path.trim_start_matches('/'))) {
            Ok(customer) => Some((200, customer)),
            Err(_) => Some((404, String::new())),
        }
    });

    let folder = janitor::folder("enrich");
    fs::copy(source.join("events.jsonl"), folder.join("events.jsonl")).expect("the example has its events");
    let text = fs::read_to_string(source.join("keylane.toml")).expect("the example has its configuration");
    let written = "../target/wasm32-wasip2/release/enrich.wasm";
    assert!(text.contains(written), "the example runs its own component");
    let text = text.replace(written, &example("enrich").display().to_string());
    let file = folder.join("keylane.toml");
    fs::write(&file, format!("runtime.workers = 1\n{text}")).expect("a temporary file can be written");

    let host = service.host();
    let mut keylane = Keylane::run_with_variables(&file, &["--until-end"], &[("CUSTOMERS", &host)]);
    keylane.expect_exit(0);

    let expected = fs::read_to_string(source.join("expected.jsonl")).expect("the example's result");
    assert_eq!(by_key(&keylane.stdout()), by_key(&expected));
    let seen = service.seen();
    assert_eq!(seen.paths.len(), 11, "one request for each order, and one for the retry: {seen:?}");
    assert!(seen.connections <= CUSTOMERS, "connections are reused: {seen:?}");
}

fn by_key(lines: &str) -> BTreeMap<String, Vec<Value>> {
    let mut keys: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in lines.lines() {
        let output: Value = serde_json::from_str(line).expect("a line of output is JSON");
        let part = |name: &str| output.get(name).expect("key and value are always present").clone();
        keys.entry(part("key").to_string()).or_default().push(part("value"));
    }
    keys
}
