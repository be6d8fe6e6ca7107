//! Promise: the admin server serves the health, status and metrics of a process during its whole run. The server
//! listens on loopback unless another address is configured. If a configured address can't be used, the start fails.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use keylane_tests::admin::{Admin, at};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::janitor;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings, binary};
use keylane_tests::service::Service;
use keylane_tests::wait;
use serde_json::{Value, json};

const ANY_PORT: &str = "127.0.0.1:0";

fn settings(flow: &Flow<'_>, component: &str) -> Settings {
    flow.settings(&guest(component), "admin").set("admin", "listen", ANY_PORT)
}

fn finish(mut keylane: Keylane) {
    keylane.terminate();
    keylane.expect_exit(0);
}

#[test]
fn status_and_metrics_follow_the_events() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let mut keylane = Keylane::run(&settings(&flow, "failing"), &[]);
    let admin = Admin::of(&mut keylane);
    assert_eq!(admin.get("/health/live"), (200, "ok\n".to_owned()), "from the first moment");
    wait::until("the handler to be ready", wait::STATE_TIMEOUT, || admin.get("/health/ready").0 == 200);

    let values = ["done", "reject", "done"];
    let records = (0..300).map(|number| Record::new(format!("k{number}"), values[number % 3]));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    flow.wait_until_committed();

    let status = admin.status();
    assert_eq!(status["state"]["name"], "running");
    let handler = wait::until_ok("the last commit to be shown", wait::STATE_TIMEOUT, || {
        let handler = admin.handler();
        let partitions = handler["partitions"].as_array().expect("a list").clone();
        let is_done = |partition: &Value| partition["lag_committed"] == 0 && partition["state"] == "active";
        if partitions.len() == 2 && partitions.iter().all(is_done) {
            Ok(handler)
        } else {
            Err(handler.to_string())
        }
    });
    assert_eq!((&handler["handler"], &handler["state"]), (&Value::from("t"), &Value::from("running")));
    assert_eq!(handler["component_sha256"].as_str().map(str::len), Some(64));
    assert_eq!(
        (&handler["totals"]["settled"], &handler["totals"]["dead_letters"]),
        (&300.into(), &100.into())
    );
    for (partition, end) in
        handler["partitions"].as_array().expect("a list").iter().zip(cluster.admin().watermarks(&flow.input))
    {
        assert_eq!((&partition["committed"], &partition["log_end"]), (&end.high.into(), &end.high.into()));
        assert_eq!((&partition["queued"], &partition["lag_unsettled"]), (&0.into(), &0.into()));
    }

    let metrics = admin.metrics();
    let value = |name: &str| metrics.get(name).map(String::as_str);
    assert_eq!(value("keylane_events_settled_total{handler=\"t\",outcome=\"done\"}"), Some("200"));
    assert_eq!(value("keylane_events_settled_total{handler=\"t\",outcome=\"dead_lettered\"}"), Some("100"));
    assert_eq!(value("keylane_handler_running{handler=\"t\"}"), Some("1"));
    let lag = format!(
        "keylane_lag_offsets{{handler=\"t\",topic=\"{}\",partition=\"1\",kind=\"committed\"}}",
        flow.input
    );
    assert_eq!(value(&lag), Some("0"));
    let idle: u64 = value("keylane_guest_instances{handler=\"t\",state=\"idle\"}")
        .expect("shown")
        .parse()
        .expect("a number");
    assert!(idle > 0, "the instances that served the events are kept");
    finish(keylane);
}

/// One service answers, one never does, and a third is not granted.
#[test]
fn what_guests_use_is_shown() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let answering = Service::start(|path| Some((if path == "/" { 200 } else { 404 }, String::new())));
    let silent = Service::start(|_| None);
    let other = Service::start(|_| Some((200, String::new())));
    let settings = settings(&flow, "http-client")
        .set("handlers.t.grants", "http", vec![answering.host(), silent.host()])
        .set("handlers.t", "timeout", "2m")
        .set("runtime", "drain_timeout", "1s");
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    let urls = [(&answering, ""), (&answering, "missing"), (&answering, ""), (&other, "")]
        .map(|(service, path)| format!("http://{}/{path}", service.host()));
    let records = urls.iter().map(|url| Record::new("k", url.as_str()));
    flow.producer().send_all(&flow.input, records).expect("acknowledged");
    flow.wait_until_committed();

    // A call that waits for the silent service is busy.
    let url = format!("http://{}/", silent.host());
    flow.producer().send_all(&flow.input, [Record::new("k", url.as_str())]).expect("acknowledged");
    wait::until("the request", wait::STATE_TIMEOUT, || silent.seen().paths.len() == 1);
    let status = admin.status();
    let handler = at(&status, "/handlers/0");
    let memory = handler["guest_memory_bytes"].as_u64().expect("a number");
    assert!(memory >= 64 << 10 && memory.is_multiple_of(64 << 10), "{handler}");
    assert_eq!(handler["instances"]["busy"], 1, "{handler}");
    assert_eq!(status["memory"]["guest_bytes"], memory, "the only handler");

    let metrics = admin.metrics();
    let value = |name: &str, labels: &str| {
        metrics.get(&format!("{name}{{handler=\"t\"{labels}}}")).map(String::as_str)
    };
    assert_eq!(value("keylane_guest_memory_bytes", ""), Some(memory.to_string().as_str()));
    assert_eq!(value("keylane_guest_instances", ",state=\"busy\""), Some("1"));
    let requests = |grant: &str, class: &str| {
        value("keylane_http_requests_total", &format!(",grant=\"{grant}\",class=\"{class}\""))
    };
    assert_eq!(requests(&answering.host(), "2xx"), Some("2"));
    assert_eq!(requests(&answering.host(), "4xx"), Some("1"));
    assert_eq!(requests(&silent.host(), "error"), Some("0"), "the request has not ended");
    assert_eq!(requests("", "denied"), Some("1"));
    let named = |name: &String| name.starts_with("keylane_http") && name.contains(&other.host());
    assert!(!metrics.keys().any(named), "a host that the guest chose is no label");
    assert!(shown(&admin, &[]).contains("  instances 1 busy, "));
    keylane.terminate();
    keylane.expect_exit(1); // the drain has to cancel the call
}

#[test]
fn metrics_of_partitions_can_be_switched_off() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&settings(&flow, "failing").set("admin", "partition_metrics", false), &[]);
    let admin = Admin::of(&mut keylane);
    wait::until("a partition", wait::STATE_TIMEOUT, || admin.handler()["partitions"][0].is_object());
    let metrics = admin.metrics();
    assert!(metrics.contains_key("keylane_handler_running{handler=\"t\"}"), "{metrics:?}");
    assert!(!metrics.keys().any(|name| name.contains("partition=")), "{metrics:?}");
    finish(keylane);
}

#[test]
fn a_slow_call_is_the_reason() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = settings(&flow, "sleepy").set("handlers.t", "timeout", "2m");
    let mut keylane = Keylane::run(&settings.set("runtime", "drain_timeout", "1s"), &[]);
    let admin = Admin::of(&mut keylane);
    flow.producer().send_all(&flow.input, [Record::new("k", "100000")]).expect("acknowledged");
    let stall = admin.wait_for_stall("running");
    assert_eq!((&stall["offset"], &stall["attempt"]), (&0.into(), &1.into()));
    assert!(stall["remedy"].as_str().is_some_and(|remedy| remedy.contains("`timeout`")), "{stall}");
    let stalls = "keylane_stalls{handler=\"t\",reason=\"running\"}";
    assert_eq!(admin.metrics().get(stalls).map(String::as_str), Some("1"));
    let shown = shown(&admin, &[]);
    assert!(shown.contains("running at 0, attempt 1, lane "), "{shown}");
    keylane.terminate();
    keylane.expect_exit(1); // the drain has to cancel the call
}

/// The queued events of one slow key reach the limit of their partition: nothing more is read from it.
#[test]
fn a_hot_key_that_fills_the_limit_is_shown_and_logged() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = settings(&flow, "sleepy")
        .set("handlers.t.lanes", "max_queued", 10)
        .set("handlers.t", "timeout", "2m")
        .set("runtime", "drain_timeout", "1s");
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    let slow = (0..20).map(|_| Record::new("hot", "60000"));
    flow.producer().send_all(&flow.input, slow.chain([Record::new("other", "0")])).expect("acknowledged");
    let limited = wait::until_some("the limit", wait::STATE_TIMEOUT, || {
        let partition = at(&admin.handler(), "/partitions/0");
        (at(&partition, "/read_limit") == "max_queued").then_some(partition)
    });
    assert_eq!((&limited["queued"], &limited["blocked"]["reason"]), (&10.into(), &"running".into()));
    let line = keylane.wait_for("the pause", |line| line["message"] == "reading paused: a limit is reached");
    assert_eq!((&line["limit"], &line["partition"]), (&"max_queued".into(), &0.into()));
    keylane.terminate();
    keylane.expect_exit(1); // the drain has to cancel the call
}

#[test]
fn a_missing_dead_letter_topic_is_the_reason() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&settings(&flow, "failing"), &[]);
    let admin = Admin::of(&mut keylane);
    wait::until("the handler to be ready", wait::STATE_TIMEOUT, || admin.get("/health/ready").0 == 200);
    cluster.admin().delete_topic(&flow.dead_letters);
    flow.producer().send_all(&flow.input, [Record::new("k", "reject")]).expect("acknowledged");
    let stall = admin.wait_for_stall("dead_letter_unacked");
    assert_eq!((&stall["offset"], &stall["awaited_topics"]), (&0.into(), &json!([flow.dead_letters])));
    assert_eq!(at(&admin.handler(), "/dead_letter_topics"), json!([flow.dead_letters]));
    assert_eq!(admin.get("/health/live").0, 200, "a restart would not help");
    cluster.admin().create_topic(&flow.dead_letters, 1, &[]);
    flow.wait_until_committed();
    wait::until("the stall to end", wait::STATE_TIMEOUT, || {
        at(&admin.handler(), "/partitions/0/stalled") == false
    });
    finish(keylane);
}

#[test]
fn a_partition_that_stopped_is_not_ready_if_strict() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    flow.members.commit(&flow.input, 1, 20, b""); // outside the log
    let mut keylane = Keylane::run(&settings(&flow, "failing"), &[]);
    let admin = Admin::of(&mut keylane);
    wait::until("the handler to be ready", wait::STATE_TIMEOUT, || admin.get("/health/ready").0 == 200);
    let (code, body) = admin.get("/health/ready?strict=true");
    assert_eq!((code, body), (503, format!("handler `t`: partition {}/1 has stopped\n", flow.input)));
    let stopped = at(&admin.handler(), "/partitions/1");
    assert_eq!((&stopped["blocked"]["reason"], &stopped["stalled"]), (&"stopped".into(), &false.into()));
    let stopped = "keylane_partitions_stopped{handler=\"t\"}";
    assert_eq!(admin.metrics().get(stopped).map(String::as_str), Some("1"));
    keylane.terminate();
    keylane.expect_exit(1);
}

#[test]
fn the_start_is_visible_while_no_broker_answers() {
    let silent = TcpListener::bind(ANY_PORT).expect("a free port exists");
    let address = silent.local_addr().expect("it is bound").to_string();
    let settings = Settings::new(&address)
        .handler(&guest("failing"), "in", "group")
        .output("out")
        .set("admin", "listen", ANY_PORT);
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    let step = wait::until_some("the step", wait::STATE_TIMEOUT, || {
        let status = admin.status();
        let step = status["state"]["step"].as_str()?.to_owned();
        (step == "connecting to the brokers").then_some(status)
    });
    assert_eq!(step["state"]["name"], "starting");
    assert_eq!(
        (&step["handlers"][0]["handler"], &step["handlers"][0]["state"]),
        (&"t".into(), &"starting".into())
    );
    assert_eq!(admin.get("/health/live").0, 200);
    let (code, body) = admin.get("/health/ready");
    assert_eq!(code, 503);
    assert!(body.starts_with("starting: connecting to the brokers\n"), "{body}");
    assert!(shown(&admin, &[]).contains("starting: connecting to the brokers"));
    finish(keylane);
}

/// Runs `keylane status` for this server.
fn shown(admin: &Admin, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.args(["status", "--admin", &admin.url]).args(arguments);
    let output = command.output().expect("the binary was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_command_shows_what_the_server_answers() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let folder = janitor::folder("admin");
    let token = folder.join("token");
    std::fs::write(&token, "0123456789abcdef\n").expect("a temporary file can be written");
    let settings = settings(&flow, "failing").set("admin", "token_file", token.display().to_string());
    let mut keylane = Keylane::run(&settings, &[]);
    let admin = Admin::of(&mut keylane);
    assert_eq!(admin.get("/v1/status").0, 401);
    assert_eq!(admin.get("/health/live").0, 200);
    // The command reads the token from the file that the process was started with. The rest of the file
    // does not matter.
    let address = admin.url.trim_start_matches("http://");
    let file = folder.join("keylane.toml");
    let text =
        format!("[admin]\nlisten = \"{address}\"\ntoken_file = \"token\"\n[kafka]\nx = \"${{UNSET}}\"\n");
    std::fs::write(&file, text).expect("a temporary file can be written");
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).output().expect("the binary was built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let path = file.display().to_string();
    let (code, out, err) = run(&["status", "-c", &path]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("handler t  group ") && out.contains(&admin.url), "{out}");
    let (code, out, _) = run(&["status", "-c", &path, "--json"]);
    let status: Value = serde_json::from_str(&out).expect("one line of JSON");
    assert_eq!((code, &status["handlers"][0]["handler"]), (Some(0), &"t".into()));
    let (code, _, err) = run(&["status", "--admin", &admin.url]);
    assert_eq!(code, Some(1));
    assert!(err.contains("a token is required") && err.contains("Authorization: Bearer"), "{err}");
    finish(keylane);
    let (code, _, err) = run(&["status", "-c", &path]);
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("no status from {}", admin.url)), "{err}");
    janitor::remove(&folder);
}

#[test]
fn a_configured_address_that_is_taken_ends_the_start() {
    let taken = TcpListener::bind(ANY_PORT).expect("a free port exists");
    let address = taken.local_addr().expect("it is bound").to_string();
    let settings = Settings::new("127.0.0.1:1").handler(&guest("failing"), "in", "group").output("out");
    let mut keylane = Keylane::run(&settings, &["--admin-listen", &address]);
    keylane.expect_exit(1);
    let error = keylane.tail();
    assert!(error.contains(&format!("can't listen on `{address}`")), "{error}");
}

#[test]
fn a_token_file_that_is_missing_or_too_short_ends_the_start() {
    let folder = janitor::folder("admin");
    let token = folder.join("token");
    let settings = Settings::new("127.0.0.1:1")
        .handler(&guest("failing"), "in", "group")
        .output("out")
        .set("admin", "listen", ANY_PORT)
        .set("admin", "token_file", token.display().to_string());
    let start = || {
        let mut keylane = Keylane::run(&settings, &[]);
        keylane.expect_exit(1);
        keylane.tail()
    };
    let error = start();
    assert!(error.contains(&format!("can't be read from {}", token.display())), "{error}");
    std::fs::write(&token, "short").expect("a temporary file can be written");
    let error = start();
    assert!(error.contains("is shorter than 16 characters"), "{error}");
    janitor::remove(&folder);
}

/// The clock of liveness is the server's own: a process that was suspended as a whole is still live.
#[test]
fn a_suspended_process_is_live_when_it_continues() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut keylane = Keylane::run(&settings(&flow, "failing"), &[]);
    let admin = Admin::of(&mut keylane);
    wait::until("the handler to be ready", wait::STATE_TIMEOUT, || admin.get("/health/ready").0 == 200);
    keylane.freeze();
    let suspended = wait::Deadline::after(Duration::from_secs(12));
    wait::until("twelve seconds to pass", wait::STATE_TIMEOUT, || suspended.passed());
    keylane.thaw();
    assert_eq!(admin.get("/health/live").0, 200);
    finish(keylane);
}
