//! Promise: `keylane status --group` names the owner, the committed offset and the lag of each partition, as the
//! brokers describe them. `keylane report` writes what a support ticket needs, without secrets.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use keylane_tests::admin::{Admin, at};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::janitor;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings, binary};
use serde_json::{Value, json};

const PARTITIONS: i32 = 4;
const EVENTS: usize = 100;
/// Represents a secret.
const CANARY: &str = "canary-0123456789";

/// The exit code, standard output and standard error of a command.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        serde_json::from_str(&self.out).expect("a line of JSON")
    }
}

fn run(arguments: &[&str]) -> Ended {
    let output = Command::new(binary()).args(arguments).output().expect("the binary was built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs `keylane status --group` with these settings.
fn status(settings: &Settings, arguments: &[&str]) -> Ended {
    let folder = janitor::folder("group-status");
    let file = write(&folder, &settings.to_toml());
    let ended = run(&[&["status", "-c", &file, "--group"], arguments].concat());
    janitor::remove(&folder);
    ended
}

fn write(folder: &Path, text: &str) -> String {
    let file: PathBuf = folder.join("keylane.toml");
    fs::write(&file, text).expect("a temporary file can be written");
    file.display().to_string()
}

fn numbers(partitions: &Value) -> Vec<i64> {
    let partitions = partitions.as_array().expect("a list");
    partitions.iter().map(|partition| at(partition, "/partition").as_i64().expect("a number")).collect()
}

fn send(flow: &Flow<'_>) {
    let records = (0..EVENTS).map(|number| Record::new(format!("k{number}"), "done"));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
}

#[test]
fn the_group_names_the_owner_and_the_position_of_each_partition() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let first = flow.settings(&guest("failing"), "first");
    let second = flow.settings(&guest("failing"), "second").set("handlers.t", "group_instance_id", "pod-2");
    let processes = [Keylane::run(&first, &[]), Keylane::run(&second, &[])];
    flow.wait_for_members(&["first", "second"]);
    send(&flow);
    flow.wait_until_committed();

    let shown = status(&first, &["t", "--json"]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    let group = shown.json();
    let text = |pointer: &str| at(&group, pointer).as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (text("/handler"), text("/group"), text("/state")),
        ("t".into(), flow.group.clone(), "Stable".into())
    );
    assert_eq!((text("/protocol"), text("/assignor")), ("Classic".into(), "cooperative-sticky".into()));
    assert_eq!(text("/coordinator"), cluster.bootstrap());
    assert_eq!(
        (text("/members/0/client_id"), text("/members/1/client_id")),
        ("first".into(), "second".into())
    );
    assert_eq!(
        (text("/members/0/instance_id"), text("/members/1/instance_id")),
        (String::new(), "pod-2".into())
    );
    let of_group = flow.members.state();
    for (member, client) in group["members"].as_array().expect("a list").iter().zip(["first", "second"]) {
        let mut expected: Vec<i64> = of_group.partitions_of(client).into_iter().map(i64::from).collect();
        expected.sort_unstable();
        assert_eq!(numbers(&member["partitions"]), expected, "{client}");
        assert_eq!(member["host"], "127.0.0.1");
    }
    assert_eq!(numbers(&group["partitions"]), [0, 1, 2, 3]);
    let ends = cluster.admin().watermarks(&flow.input);
    for (partition, end) in group["partitions"].as_array().expect("a list").iter().zip(ends) {
        let found = (&partition["committed"], &partition["log_end"], &partition["lag"]);
        assert_eq!(found, (&end.high.into(), &end.high.into(), &0.into()));
        assert!(partition["owner"]["client_id"].is_string() && partition["error"].is_null(), "{partition}");
    }

    let shown = status(&first, &[]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    assert!(shown.out.starts_with(&format!("handler t  group {}  Stable  ", flow.group)), "{}", shown.out);
    for part in ["first at 127.0.0.1", "second at 127.0.0.1", &format!("{}/3 ", flow.input)] {
        assert!(shown.out.contains(part), "no {part:?} in\n{}", shown.out);
    }
    for mut keylane in processes {
        keylane.terminate();
        keylane.expect_exit(0);
    }
}

#[test]
fn a_group_without_members_has_its_committed_offsets() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    send(&flow);
    flow.members.commit(&flow.input, 1, 7, b"");
    let settings = flow.settings(&guest("failing"), "none");
    let shown = status(&settings, &["--json"]);
    assert_eq!(shown.code, Some(1), "{}", shown.out);
    assert!(shown.err.contains("has no members") && shown.err.contains("keylane run"), "{}", shown.err);
    let group = shown.json();
    assert_eq!((&group["state"], &group["members"]), (&"Empty".into(), &Value::Array(Vec::new())));
    let ends = cluster.admin().watermarks(&flow.input);
    let of_partition = |number: usize| at(&group, &format!("/partitions/{number}"));
    let (first, second) = (of_partition(0), of_partition(1));
    assert!(first["committed"].is_null() && first["lag"].is_null() && first["owner"].is_null(), "{first}");
    assert_eq!((&second["committed"], &second["lag"]), (&7.into(), &(ends[1].high - 7).into()));
    assert_eq!((&second["log_end"], &second["owner"]), (&ends[1].high.into(), &Value::Null));
    let shown = status(&settings, &[]);
    assert!(shown.out.contains("no members") && shown.out.contains("  none\n"), "{}", shown.out);
}

#[test]
fn what_can_not_be_described_is_an_error_with_a_remedy() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = flow.settings(&guest("failing"), "none");
    let set = |section: &str, name: &str, value: Value| settings.clone().set(section, name, value);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
    let silent_address = silent.local_addr().expect("it is bound").to_string();
    let unused = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
    let unused_address = unused.local_addr().expect("it is bound").to_string();
    drop(unused);
    flow.members.commit(&flow.input, 0, 0, b"");
    let feed = json!([{ "topic": flow.input.as_str(), "file": "-" }]);
    let embedded = set("kafka", "bootstrap_servers", "embedded".into()).set("embedded", "feed", feed);
    for (settings, arguments, code, expected) in [
        (
            set("handlers.t", "group_id", "never-used".into()),
            [].as_slice(),
            1,
            "group `never-used` does not exist: ",
        ),
        (
            set("handlers.t", "topics", json!(["never-created"])),
            &[],
            1,
            "topic `never-created` can't be described: ",
        ),
        (set("kafka", "bootstrap_servers", unused_address.into()), &[], 1, "nothing listens at "),
        (set("kafka", "bootstrap_servers", silent_address.into()), &[], 1, "does not answer as a broker: "),
        (settings.clone(), &["x"], 2, " has no handler `x`, but `t`"),
        (set("kafka.client", "no.such.property", 1.into()), &[], 2, "librdkafka has no such property"),
        (embedded, &[], 2, "the embedded broker runs inside"),
    ] {
        let ended = status(&settings, arguments);
        assert_eq!(ended.code, Some(code), "{expected}: {}", ended.err);
        assert!(ended.err.contains(expected), "no {expected:?} in {}", ended.err);
    }
}

#[test]
fn a_report_has_everything_but_secrets() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let settings = flow
        .settings(&guest("failing"), "reported")
        .set("admin", "listen", "127.0.0.1:0")
        .set("admin", "token", CANARY)
        .set("kafka.client", "sasl.password", CANARY);
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    send(&flow);
    flow.wait_until_committed();

    let folder = janitor::folder("report");
    let address = admin.url.trim_start_matches("http://");
    let text = settings.set("admin", "listen", address).to_toml();
    let file = write(&folder, &format!("# Our configuration.\n{text}"));
    let report = folder.join("report.json");
    let report_path = report.display().to_string();
    let ended = run(&["report", "-c", &file, "-o", &report_path]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""), "{}", ended.err);
    assert!(ended.err.contains(&report_path), "{}", ended.err);
    assert_eq!(fs::metadata(&report).expect("it exists").permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(&report).expect("the report is text");
    assert!(!written.contains(CANARY), "{written}");
    let written: Value = serde_json::from_str(&written).expect("the report is JSON");
    let get = |pointer: &str| at(&written, pointer);
    assert!(get("/versions/0").as_str().is_some_and(|line| line.starts_with("keylane ")), "{written:#}");
    assert!(get("/system/max_map_count").is_u64() && get("/system/cores").is_u64(), "{written:#}");
    assert_eq!(get("/processes/0/address"), admin.url.as_str());
    assert_eq!(get("/processes/0/status/handlers/0/group"), flow.group.as_str());
    assert!(get("/processes/0/limits/open_files/soft").is_u64(), "{written:#}");
    assert!(get("/processes/0/notices/notices/0/message").is_string(), "{written:#}");
    for order in ["depth", "attempts"] {
        assert_eq!(get(&format!("/processes/0/lanes/t/{order}/by")), order, "{written:#}");
    }
    let metrics = get("/processes/0/metrics");
    assert!(metrics.as_str().is_some_and(|text| text.contains("keylane_events_settled_total")), "{metrics}");
    let configuration = get("/configuration/text");
    let configuration = configuration.as_str().expect("text");
    assert!(configuration.starts_with("# Our configuration.\n"), "{configuration}");
    assert!(configuration.contains("\"sasl.password\" = \"(redacted)\""), "{configuration}");
    assert!(configuration.contains(&format!("\"group_id\" = \"{}\"", flow.group)), "{configuration}");

    let again = run(&["report", "-c", &file, "-o", &report_path]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("name another file with `-o FILE`"), "{}", again.err);
    keylane.terminate();
    keylane.expect_exit(0);
    let ended = run(&["report", "-c", &file, "-o", "-"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let report: Value = serde_json::from_str(&ended.out).expect("the report is JSON");
    let error = at(&report, "/processes/0/error");
    assert!(error.as_str().is_some_and(|error| error.contains("no status from ")), "{error}");
    janitor::remove(&folder);
}
