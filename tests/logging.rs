//! Promise: what nobody reads holds nothing up and ends nothing: neither the log nor what a command prints.

use std::fs::File;
use std::io::{PipeReader, pipe};
use std::process::{Command, Stdio};

use keylane_tests::child::Child;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Settings, binary};
use keylane_tests::{janitor, wait};
use rustix::process::Signal;

const EVENTS: usize = 4_000;

/// Each event prints two lines; the pipe takes some twenty.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    run_with(cluster, || {
        let (reader, writer) = pipe().expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("pipes have sizes");
        (writer.into(), Some(reader))
    });
}

/// `keylane run 2>&1 | head -1`
#[test]
fn a_log_that_is_closed_stops_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    run_with(cluster, || (pipe().expect("a pipe").1.into(), None));
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let Some(cluster) = kafka::shared() else { return };
    run_with(cluster, || (full().into(), None));
}

/// Commands that print end with a code, whatever became of those who read them.
#[test]
fn what_can_not_be_printed_is_an_exit_code() {
    let folder = janitor::folder("logging");
    let sound = folder.join("keylane.toml");
    let settings = Settings::new("localhost:9092").handler(&guest("noop"), "in", "group");
    std::fs::write(&sound, settings.to_toml()).expect("a temporary file can be written");
    let unsound = folder.join("unsound.toml");
    std::fs::write(&unsound, "[kafka]\nbootstrap = 7\n").expect("a temporary file can be written");
    let (sound, unsound, component) = (path(&sound), path(&unsound), path(&guest("noop")));
    let commands: [&[&str]; 5] = [
        &["check", "-c", &sound],
        &["check", "-c", &unsound],
        &["inspect", &component],
        &["schema"],
        &["schema", "--format", "markdown"],
    ];
    for command in commands {
        let closed = || Stdio::from(pipe().expect("a pipe").1);
        let streams: [(Stdio, Stdio); 3] =
            [(full().into(), Stdio::null()), (closed(), closed()), (full().into(), full().into())];
        for (output, errors) in streams {
            let status = Command::new(binary())
                .args(command)
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors)
                .status();
            assert_eq!(status.expect("it can be started").code(), Some(1), "{command:?}");
        }
        let output = Command::new(binary()).args(command).stdout(full()).output().expect("it can be started");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("can't be written") || errors.contains("problem"), "{command:?}: {errors}");
    }
}

/// Where the log goes, and what must stay open meanwhile.
type Log = (Stdio, Option<PipeReader>);

fn run_with(cluster: &kafka::Cluster, log: impl Fn() -> Log) {
    let flow = Flow::new(cluster, 4, &[]);
    let event = |number: usize| {
        Record::new(format!("key-{number}"), if number.is_multiple_of(2) { "print" } else { "reject" })
    };
    flow.producer().send_all(&flow.input, (0..EVENTS).map(event)).expect("acknowledged");
    let file = janitor::folder("logging").join("keylane.toml");
    std::fs::write(&file, flow.settings(&guest("failing"), "t").to_toml())
        .expect("a temporary file can be written");
    let (stderr, _unread) = log();
    let mut command = Command::new(binary());
    command
        .args(["run", "--log", "debug", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let mut keylane = Child::start(&mut command).expect("the binary was just built");
    drop(command); // it holds the writing end
    flow.wait_until_committed();
    keylane.signal(Signal::TERM);
    let ended = wait::until_some("keylane to end", wait::PATIENCE, || keylane.has_ended());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(kafka::read_all(&cluster.bootstrap(), &flow.letters).len(), EVENTS / 2);
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has it")
}

fn path(path: &std::path::Path) -> String {
    path.to_str().expect("paths of tests are text").to_owned()
}
