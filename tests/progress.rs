//! Promise: a run on a terminal shows its progress below the log, and its log lines stay whole.

use std::process::{Command, Stdio};

use keylane_tests::child::Child;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::binary;
use keylane_tests::terminal::Terminal;
use keylane_tests::{janitor, wait};
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
    let (terminal, end) = Terminal::open();
    let mut command = Command::new(binary());
    command.args(["run", "--until-end", "--log-format", "json", "-c"]).arg(&file);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(end);
    let mut keylane = Child::start(&mut command).expect("the binary was built");
    drop(command); // the command holds the terminal
    assert_eq!(keylane.wait("keylane", wait::STATE_TIMEOUT).code(), Some(0));
    let shown = terminal.finish();
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
