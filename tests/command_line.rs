//! Promise: errors that can be found without a run are reported before a run, with their location
//! and the remedy.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use keylane_tests::guests::guest;
use keylane_tests::janitor;
use keylane_tests::kafka;
use keylane_tests::keylane::{Keylane, Settings, binary};

#[test]
fn check_inspects_the_components() {
    let valid = check(&guest("noop"));
    assert_eq!(valid.status.code(), Some(0), "{valid:?}");
    assert!(text(&valid.stdout).contains("interface  batch-handler"), "{valid:?}");
}

/// The errors are the same. The exit code 2 of `run` means that a restart does not help.
#[test]
fn check_and_inspect_refuse_what_run_refuses() {
    let folder = janitor::folder("components");
    let component =
        |content: &str| wat::parse_str(format!("(component {content})")).expect("a well-formed component");
    let large = "(core module $m (table 30000 funcref)) (core instance (instantiate $m))";
    for (name, bytes, expected) in [
        ("source.wasm", b"(component)".to_vec(), "is not a WebAssembly file"),
        ("compiled.wasm", b"\x7fELF\x02\x01\x01".to_vec(), "is compiled code"),
        ("module.wasm", b"\0asm\x01\0\0\0".to_vec(), "is a core module without component metadata"),
        ("empty.wasm", component(""), "exports no handler"),
        ("large.wasm", component(large), "has 30000 elements in one table, the limit is 20000"),
        ("throws.wasm", component("(core module (tag))"), "build it without exceptions"),
    ] {
        let file = folder.join(name);
        fs::write(&file, bytes).expect("a temporary file can be written");
        let settings = settings(&file);
        let inspected = keylane(&["inspect".as_ref(), file.as_os_str()]);
        for (verb, code, output) in [
            ("check", 1, with_settings("check", &settings)),
            ("run", 2, with_settings("run", &settings)),
            ("inspect", if name == "empty.wasm" { 1 } else { 2 }, inspected),
        ] {
            assert_eq!(output.status.code(), Some(code), "{verb} {name}: {output:?}");
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            assert!(verb == "inspect" || stderr.contains("handler `t`"), "{verb}: {stderr}");
            let is_reported =
                stderr.contains(expected) || (name == "empty.wasm" && stdout.contains("exports no"));
            assert!(
                is_reported && (stdout.contains(name) || stderr.contains(name)),
                "{verb} {name}: {stderr}"
            );
        }
    }
    janitor::remove(&folder);
}

/// The error names all of them, before the group is joined. The exit code is 1, because the next
/// start may succeed.
#[test]
fn run_names_all_missing_topics() {
    let Some(cluster) = kafka::shared() else { return };
    let settings = Settings::new(&cluster.bootstrap())
        .handler(&guest("noop"), "missing-a", &kafka::unique("group"))
        .set("handlers.t.outputs.out", "topic", "missing-b")
        .set("handlers.t.dead_letters", "topic", "missing-c");
    let mut keylane = Keylane::run(&settings, &[]);
    keylane.expect_exit(1);
    let expected = "the topics `missing-a`, `missing-b`, `missing-c` do not exist: create them";
    assert!(keylane.tail().contains(expected), "{}", keylane.tail());
}

/// The Kafka clients validate their settings without a broker.
#[test]
fn check_names_what_the_kafka_clients_refuse() {
    for (section, name, value, expected) in [
        ("kafka.client", "sesion.timeout.ms", "6000", "did you mean `session.timeout.ms`?"),
        ("kafka.client", "session.timeout.ms", "6s", "`6s` would be read as 6"),
        ("kafka.client", "security.protocol", "SASL", "Invalid value"),
        ("kafka.producer", "max.in.flight", "10", "must be set <= 5"),
        ("kafka.consumer", "partitioner", "random", "`partitioner` can't be set"),
        ("handlers.t.lanes", "max_concurrency", "100000", "exceed the limit of"),
    ] {
        let refused = with_settings("check", &settings(&guest("noop")).set(section, name, value));
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(expected), "{refused:?}");
    }
}

fn settings(component: &Path) -> Settings {
    Settings::new("127.0.0.1:1").handler(component, "in", "group")
}

fn check(component: &Path) -> Output {
    with_settings("check", &settings(component))
}

fn with_settings(verb: &str, settings: &Settings) -> Output {
    let folder = janitor::folder("settings");
    let file = folder.join("keylane.toml");
    fs::write(&file, settings.to_toml()).expect("a temporary file can be written");
    let output = keylane(&[verb.as_ref(), "-c".as_ref(), file.as_os_str()]);
    janitor::remove(&folder);
    output
}

fn keylane(arguments: &[&OsStr]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary was built")
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
