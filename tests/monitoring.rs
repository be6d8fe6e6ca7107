//! Promise: alerts and dashboard name only metrics that exist, and each alert has a test and a section of the manual.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use keylane_tests::keylane::workspace;
use keylane_tests::{janitor, skip};
use serde_json::{Value, json};

/// The rendered chart: its autoscaler reads a metric.
const CHART: &str = "helm/golden.yaml";

/// Metrics of every process, by the conventions of Prometheus.
const PROCESS_METRICS: [&str; 4] = [
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

#[test]
fn alerts_and_dashboard_name_only_metrics_that_exist() {
    let documented = documented_metrics();
    let exists = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        documented.contains_key(name)
            || histogram.is_some_and(|name| documented.get(name).is_some_and(|kind| kind == "histogram"))
            || PROCESS_METRICS.contains(&name)
    };
    for file in ["prometheus/alerts.yaml", "prometheus/alerts_test.yaml", "grafana/keylane.json", CHART] {
        let text = deploy(file);
        let is_metric = |name: &&str| name.starts_with("keylane_") || name.starts_with("process_");
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let unknown: BTreeSet<&str> = words.filter(is_metric).filter(|name| !exists(name)).collect();
        assert!(unknown.is_empty(), "{file} names metrics that docs/metrics.md does not: {unknown:?}");
    }
}

/// The metrics of the reference, and their types.
fn documented_metrics() -> BTreeMap<String, String> {
    let page = read("docs/metrics.md");
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((name.to_owned(), rest.split_once(" | ")?.0.to_owned()))
    };
    page.lines().filter_map(row).collect()
}

#[test]
fn every_alert_has_a_severity_a_test_and_a_section_of_the_manual() {
    let (alerts, tests) = (deploy("prometheus/alerts.yaml"), deploy("prometheus/alerts_test.yaml"));
    let anchors = anchors(&read("docs/operations.md"));
    let mut missing = Vec::new();
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().expect("a name");
        for field in ["for", "severity", "summary", "description"] {
            assert!(alert.contains(&format!(" {field}: ")), "{name} has no {field}");
        }
        let tested = |expected: &str| tests.contains(&format!("alertname: {name}\n        {expected}"));
        assert!(
            tested("exp_alerts:\n") && tested("exp_alerts: []\n"),
            "no test in which {name} fires, or does not"
        );
        let (_, runbook) =
            alert.split_once("runbook: docs/operations.md#").expect("every alert has a runbook");
        let anchor = runbook.lines().next().expect("an anchor");
        if !anchors.contains(anchor) {
            missing.push(anchor.to_owned());
        }
    }
    assert!(missing.is_empty(), "docs/operations.md has no section for {missing:?}");
}

/// The anchors of a page: those of its headings, and written ones.
fn anchors(page: &str) -> BTreeSet<String> {
    let written = page.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    let heading = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        Some(title.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect())
    };
    written.chain(page.lines().filter_map(heading)).collect()
}

/// Also the expressions of the dashboard, as rules.
#[test]
fn promtool_accepts_the_alerts_and_the_dashboard() {
    let promtool = |arguments: &[&OsStr]| Command::new("promtool").args(arguments).output();
    if let Err(error) = promtool(&["--version".as_ref()]) {
        return skip::skip(&format!("promtool can't be run: {error}"));
    }
    let expressions: Vec<Value> = dashboard_panels()
        .iter()
        .filter_map(|panel| panel.get("targets")?.as_array().cloned())
        .flatten()
        .filter_map(|target| Some(target.get("expr")?.as_str()?.to_owned()))
        .map(|expr| expr.replace("$__rate_interval", "5m").replace("$__range", "1h"))
        .enumerate()
        .map(|(number, expr)| json!({ "record": format!("panel:{number}"), "expr": expr }))
        .collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    let rules = janitor::folder("rules").join("dashboard.yaml");
    fs::write(&rules, json!({ "groups": [{ "name": "dashboard", "rules": expressions }] }).to_string())
        .expect("a temporary file can be written");
    let folder = workspace().join("deploy/prometheus");
    for (verb, file) in
        [("check", folder.join("alerts.yaml")), ("test", folder.join("alerts_test.yaml")), ("check", rules)]
    {
        let result = promtool(&[verb.as_ref(), "rules".as_ref(), file.as_os_str()]).expect("it ran before");
        assert!(result.status.success(), "promtool {verb} rules {}: {result:?}", file.display());
    }
}

#[test]
fn the_dashboard_selects_source_handler_and_topic() {
    let dashboard: Value = serde_json::from_str(&deploy("grafana/keylane.json")).expect("JSON");
    assert!(dashboard.get("schemaVersion").and_then(Value::as_u64) >= Some(39), "an old schema");
    let variables = dashboard.pointer("/templating/list").and_then(Value::as_array).expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable.get("name")?.as_str()).collect();
    assert_eq!(names, ["datasource", "instance", "handler", "topic"]);
    for panel in dashboard_panels() {
        let is_row = panel.get("type").and_then(Value::as_str) == Some("row");
        let source = panel.pointer("/datasource/uid").and_then(Value::as_str);
        assert!(is_row || source == Some("${datasource}"), "not the selected source: {panel}");
        assert!(is_row || panel.get("description").is_some(), "no description: {panel}");
    }
}

fn dashboard_panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&deploy("grafana/keylane.json")).expect("JSON");
    dashboard.get("panels").and_then(Value::as_array).cloned().expect("panels")
}

fn deploy(file: &str) -> String {
    read(&format!("deploy/{file}"))
}

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).expect("a readable file")
}
