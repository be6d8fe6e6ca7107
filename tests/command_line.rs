//! Promise: what can be known before a run is said before a run, with the thing and the remedy named.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use keylane_tests::guests::guest;
use keylane_tests::janitor;
use keylane_tests::keylane::{Settings, binary};

#[test]
fn check_looks_into_the_components() {
    let sound = check(&guest("noop"));
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(text(&sound.stdout).contains("called as  batch-handler"), "{sound:?}");
}

#[test]
fn check_refuses_what_run_would_refuse() {
    let folder = janitor::folder("components");
    for (name, bytes, said) in [
        ("source.wasm", &b"(component)"[..], "is not a WebAssembly file"),
        ("compiled.wasm", &b"\x7fELF\x02\x01\x01"[..], "is compiled code"),
        ("module.wasm", &b"\0asm\x01\0\0\0"[..], "is a core module without component metadata"),
        ("empty.wasm", &b"\0asm\x0d\0\x01\0"[..], "exports no handler"),
    ] {
        let file = folder.join(name);
        fs::write(&file, bytes).expect("a temporary file can be written");
        let refused = check(&file);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let stderr = text(&refused.stderr);
        assert!(stderr.contains("handler `t`") && stderr.contains(name) && stderr.contains(said), "{stderr}");
    }
    janitor::remove(&folder);
}

/// The Kafka clients are asked, without a broker.
#[test]
fn check_names_what_the_kafka_clients_refuse() {
    for (section, name, value, said) in [
        ("kafka.client", "sesion.timeout.ms", "6000", "No such configuration property"),
        ("kafka.client", "session.timeout.ms", "6s", "`6s` would be taken as 6"),
        ("kafka.client", "security.protocol", "SASL", "Invalid value"),
        ("kafka.producer", "max.in.flight", "10", "must be set <= 5"),
        ("kafka.consumer", "partitioner", "random", "`partitioner` can't be set"),
        ("handlers.t.lanes", "max_concurrency", "100000", "more than the"),
    ] {
        let refused = check_settings(&settings(&guest("noop")).set(section, name, value));
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(said), "{refused:?}");
    }
}

fn settings(component: &Path) -> Settings {
    Settings::new("127.0.0.1:1").handler(component, "in", "group")
}

fn check(component: &Path) -> Output {
    check_settings(&settings(component))
}

fn check_settings(settings: &Settings) -> Output {
    let folder = janitor::folder("check");
    let file = folder.join("keylane.toml");
    fs::write(&file, settings.to_toml()).expect("a temporary file can be written");
    let output =
        Command::new(binary()).arg("check").arg("-c").arg(&file).output().expect("it was just built");
    janitor::remove(&folder);
    output
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
