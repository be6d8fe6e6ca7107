//! Promise: a run on a terminal shows its progress below the log, and its log lines stay whole.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use keylane_tests::child::Child;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::binary;
use keylane_tests::{janitor, wait};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

const EVENTS: usize = 20;

#[test]
fn a_run_on_a_terminal_shows_its_progress() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    // The last event takes long enough for the line to be drawn meanwhile.
    let events = (0..EVENTS).map(|number| Record::new("k", if number + 1 < EVENTS { "0" } else { "2000" }));
    flow.producer().send_all(&flow.input, events).expect("acknowledged");
    let file = janitor::folder("progress").join("keylane.toml");
    std::fs::write(&file, flow.settings(&guest("sleepy"), "reader").to_toml())
        .expect("a temporary file can be written");
    let (master, terminal) = terminal();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let reading = thread::spawn({
        let shown = Arc::clone(&shown);
        move || read(master, &shown)
    });
    let mut command = Command::new(binary());
    command.args(["run", "--until-end", "--log-format", "json", "-c"]).arg(&file);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal);
    let mut keylane = Child::start(&mut command).expect("the binary was built");
    drop(command); // the command holds the terminal
    assert_eq!(keylane.wait("keylane", wait::STATE_TIMEOUT).code(), Some(0));
    reading.join().expect("the reader ends with the process");
    let shown =
        String::from_utf8_lossy(&shown.lock().expect("no holder of this lock can panic")).into_owned();
    assert!(shown.contains(&format!(" of {EVENTS} events settled")), "{shown}");
    // Each log line begins after the progress line was removed.
    let lines: Vec<Value> = shown
        .split("\r\n")
        .filter_map(|line| line.find("{\"").map(|start| &line[start..]))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{shown}")))
        .collect();
    let totals = lines.last().expect("the run has a log");
    assert_eq!((&totals["message"], &totals["settled"]), (&"handler totals".into(), &EVENTS.into()));
}

/// Opens a terminal. Returns its master, and the end for a process.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("our own terminal");
    unlockpt(&master).expect("our own terminal");
    let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
    let terminal = open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("our own terminal");
    (master.into(), terminal.into())
}

/// Reads until no process has the terminal open: then the read fails.
fn read(mut master: File, shown: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        let read = buffer.get(..length).unwrap_or_default();
        shown.lock().expect("no holder of this lock can panic").extend_from_slice(read);
    }
}
