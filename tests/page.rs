//! Promise: a person who reads only the operator's page finds the cause of a problem. The page is read in a
//! browser, and its process runs with a real broker.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use keylane_tests::admin::{Admin, at};
use keylane_tests::background::Background;
use keylane_tests::browser::{Browser, ENTER, Screen};
use keylane_tests::flow::Flow;
use keylane_tests::guests::{example, guest};
use keylane_tests::kafka::{self, Options, Record, Transactions, unique};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::service::Service;
use keylane_tests::skip::print_line;
use keylane_tests::{janitor, wait};
use serde_json::Value;

const ANY_PORT: &str = "127.0.0.1:0";
const WIDE: Screen = Screen { width: 1280, scheme: "light" };
const ALL_WELL: &str = "All partitions make progress.";
/// A key and an error that would run a script if the page did not show them as text.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";
const TOKEN: &str = "0123456789abcdef";

/// The page, as its reader sees it.
struct Page {
    browser: Browser,
    admin: Admin,
}

impl Page {
    /// Starts a process and opens its page; `None`: skipped, with the reason printed.
    fn of(settings: Settings) -> Option<(Keylane, Page)> {
        Page::with_variables(settings, &[])
    }

    fn with_variables(settings: Settings, variables: &[(&str, &str)]) -> Option<(Keylane, Page)> {
        let browser = Browser::start()?;
        let file = janitor::folder("page").join("keylane.toml");
        let text = settings.set("admin", "listen", ANY_PORT).to_toml();
        std::fs::write(&file, text).expect("a temporary file can be written");
        let mut keylane = Keylane::run_with_variables(&file, &[], variables);
        let admin = Admin::of(&mut keylane);
        wait::until("the handler to be ready", wait::STATE_TIMEOUT, || admin.get("/health/ready").0 == 200);
        browser.set_screen(WIDE);
        browser.open(&admin.url);
        Some((keylane, Page { browser, admin }))
    }

    /// Waits until an element shows all of these texts.
    fn wait_for(&self, selector: &str, texts: &[&str]) {
        wait::until_ok(&format!("{texts:?} in {selector}"), wait::STATE_TIMEOUT, || {
            let shown = self.browser.text(selector);
            if texts.iter().all(|text| shown.contains(text)) {
                return Ok(());
            }
            Err(format!("it shows {shown:?}, and the summary {:?}", self.browser.text("#summary")))
        });
    }

    /// Waits until the sentence contains all of these texts.
    fn wait_for_sentence(&self, texts: &[&str]) {
        self.wait_for("#sentence", texts);
    }

    /// Writes a screenshot, and prints its path and what the summary says.
    fn shoot(&self, name: &str) {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder of the target");
        let file = target.join("page-screenshots").join(name).with_extension("png");
        self.browser.screenshot(&file);
        let summary = self.browser.text("#summary").replace("\n\n", "\n").replace('\n', "\n  ");
        print_line(&format!("{}:\n  {summary}", file.display()));
    }

    /// Asserts that the page has made no request to another server, that the browser enforces its policy, that nothing
    /// has failed, and that foreign text has not become HTML elements.
    fn assert_harmless(&self) {
        let network = self.browser.network();
        let values = |method: &str, pointer: &str| -> Vec<Value> {
            network.iter().filter(|event| event["method"] == method).map(|event| at(event, pointer)).collect()
        };
        let requests = values("Network.requestWillBeSent", "/params/request/url");
        let is_own = |url: &Value| url.as_str().is_some_and(|url| url.starts_with(&self.admin.url));
        assert!(requests.len() > 3 && requests.iter().all(is_own), "{requests:?}");
        let policy = "/params/response/headers/content-security-policy";
        let policies = values("Network.responseReceived", policy);
        let restricts =
            |policy: &Value| policy.as_str().is_some_and(|text| text.contains("default-src 'none'"));
        assert!(policies.len() > 3 && policies.iter().all(restricts), "{policies:?}");
        assert_eq!(self.browser.console(), [Value::Null; 0], "messages of the console");
        assert_eq!(self.browser.run("return document.querySelectorAll('img').length", &[]), 0);
    }
}

/// The element of a partition.
fn partition(flow: &Flow<'_>, number: i32) -> String {
    format!("[data-partition=\"{}/{number}\"]", flow.input)
}

fn settings(flow: &Flow<'_>, component: &str) -> Settings {
    flow.settings(&guest(component), "page")
}

#[test]
fn a_process_without_problems_shows_that_its_partitions_move() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 4, &[]);
    let Some((_keylane, page)) = Page::of(settings(&flow, "sleepy")) else { return };
    let (producer, input) = (flow.producer(), flow.input.clone());
    let _load = Background::repeat(Duration::from_millis(100), move |_| {
        let events = (0..100).map(|number| Record::new(format!("key-{number}"), "5"));
        producer.send_all(&input, events).expect("acknowledged");
    });
    page.wait_for_sentence(&[ALL_WELL]);
    let open = "document.querySelector(arguments[0] + ' summary').click()";
    assert_eq!(page.browser.run(open, &[&partition(&flow, 0)]), Value::Null);
    page.wait_for(&partition(&flow, 0), &["Committed offset"]);
    let strip = "const row = document.querySelector(arguments[0]);
        const parts = [...row.querySelectorAll('.part')].map((part) => part.getAttribute('width'));
        return [parts.join(), row.querySelector('dd').textContent]";
    let (mut strips, mut commits) = (BTreeSet::new(), BTreeSet::new());
    wait::until("the strip to move", wait::STATE_TIMEOUT, || {
        let seen = page.browser.run(strip, &[&partition(&flow, 0)]);
        strips.insert(at(&seen, "/0").to_string());
        commits.insert(at(&seen, "/1").to_string());
        strips.len() >= 3 && commits.len() >= 3
    });
    page.wait_for("#limits", &["caught up"]);
    page.wait_for("#handler-cards", &["running", "/s", " idle", "Guest memory"]);
    page.wait_for_sentence(&[ALL_WELL]);
    page.shoot("all-well");
    page.assert_harmless();
}

#[test]
fn a_reducer_shows_its_transactions_and_its_states() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let settings = settings(&flow, "latest")
        .set("handlers.t", "delivery", "transactional")
        .set("handlers.t.lanes", "no_key", "reject")
        .set("handlers.t.state", "version", 1)
        .set("handlers.t.keys", "dir", janitor::folder("states").display().to_string());
    let Some((_keylane, page)) = Page::of(settings) else { return };
    let events = (0..100).map(|number| Record::new(format!("key-{number}"), "1"));
    flow.producer().send_all(&flow.input, events).expect("acknowledged");
    flow.wait_until_committed();
    page.wait_for("#handler-cards", &["transactional", " committed, 0 aborted", "Uncommitted states\n0"]);
    page.wait_for(
        "#handler-cards",
        &["Restored states\n2 partitions, 0 records", "Failing state files\nnone"],
    );
    page.shoot("reducer");
    page.assert_harmless();
}

#[test]
fn a_poison_key_appears_with_its_reason_and_its_lane() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let settings = settings(&flow, "failing").set("admin", "show_keys", true).set(
        "handlers.t.retry",
        "max_attempts",
        "unlimited",
    );
    let Some((_keylane, page)) = Page::of(settings) else { return };
    let good = (0..50).map(|number| Record::new(format!("key-{number}"), "done").to(number % 2));
    let poison = ["retry", "done", "done"].map(|value| Record::new(HOSTILE, value).to(0));
    flow.producer().send_all(&flow.input, good.chain(poison)).expect("acknowledged");
    let name = format!("{}/0", flow.input);
    page.wait_for_sentence(&[
        &format!("t: partition {name} has made no progress for "),
        "the event at offset 25 failed and waits for its next attempt (attempt ",
    ]);
    let lane = at(&page.admin.handler(), "/partitions/0/blocked/lane");
    let lane = lane.as_str().expect("the lane is known");
    page.wait_for("#summary", &["Last error: the value requests it", "What to do: see the handler's error"]);
    let place = format!("lane {lane}");
    let see = "See docs/operations.md#retrying.";
    page.wait_for(&partition(&flow, 0), &["stalled", "retrying, offset 25", &place, see]);
    let row = [&format!("key {HOSTILE}"), &format!("{name}, offset 25"), "delayed", "the value requests it"];
    page.wait_for(&format!("[data-lane=\"{lane}\"]"), &row);
    page.wait_for("#notices", &["partition stalled"]);
    page.shoot("poison-key");
    page.browser.set_screen(Screen { scheme: "dark", ..WIDE });
    page.shoot("poison-key-dark");
    page.browser.set_screen(Screen { width: 390, ..WIDE });
    let overflow = "return document.documentElement.scrollWidth - innerWidth";
    assert_eq!(page.browser.run(overflow, &[]), 0, "a narrow page does not scroll sideways");
    page.shoot("poison-key-narrow");
    page.assert_harmless();
}

/// The example's error contains the key.
#[test]
fn a_missing_dead_letter_topic_is_named_as_the_cause() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let service = Service::start(|_| Some((404, String::new())));
    let host = service.host();
    let settings = Settings::new(&cluster.bootstrap())
        .handler(&example("enrich"), &flow.input, &flow.group)
        .set("admin", "show_keys", true)
        .set("handlers.t.grants", "env", vec!["CUSTOMERS"])
        .set("handlers.t.grants", "http", vec![host.as_str()])
        .set("handlers.t.outputs.enriched", "topic", flow.output.as_str());
    let variables = [("CUSTOMERS", host.as_str())];
    let Some((_keylane, page)) = Page::with_variables(settings, &variables) else { return };
    cluster.admin().delete_topic(&flow.dead_letters);
    let order = Record::new(HOSTILE, r#"{"item": "tea", "cents": 350}"#);
    flow.producer().send_all(&flow.input, [order]).expect("acknowledged");
    page.wait_for_sentence(&[
        "has made no progress for ",
        &format!("the dead letter of the event at offset 0 (topic {})", flow.dead_letters),
    ]);
    let error = format!("Last error: customer not found: {HOSTILE}");
    page.wait_for("#summary", &[&error, "What to do: check that the dead-letter topic exists"]);
    page.wait_for(&partition(&flow, 0), &["stalled", "dead_letter_unacked, offset 0", &error]);
    page.wait_for("#lane-rows", &["unacked", &format!("key {HOSTILE}")]);
    page.wait_for("#last-warning", &["topic blocked", &flow.dead_letters, "What to do: "]);
    page.shoot("dead-letter-topic");
    page.assert_harmless();
}

/// Writing its lines keeps the guest busy. The lines are not logged.
#[test]
fn a_hot_key_limits_its_handler_by_one_lane() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let settings =
        settings(&flow, "failing").set("admin", "show_keys", true).set("handlers.t", "cpu_budget", "20s");
    let variables = [("KEYLANE_LOG", "info,keylane::guest=off")];
    let Some((_keylane, page)) = Page::with_variables(settings, &variables) else { return };
    let hot = (0..2_000).map(|_| Record::new("hot", "chatter").to(0));
    let other = (0..200).map(|number| Record::new(format!("key-{number}"), "done").to(1));
    flow.producer().send_all(&flow.input, hot.chain(other)).expect("acknowledged");
    page.wait_for("#limits", &["limited by one lane", " queued events ("]);
    page.wait_for("#lane-rows tr", &["key hot", "running"]);
    let lane = page.browser.text("#lane-rows code");
    page.wait_for("#limits", &[&format!("Lane {lane} has ")]);
    page.shoot("hot-key");
    page.assert_harmless();
}

#[test]
fn an_outage_of_the_broker_is_shown_until_it_ends() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let flow = Flow::new(&cluster, 2, &[]);
    let Some((_keylane, page)) = Page::of(settings(&flow, "echo")) else { return };
    page.wait_for_sentence(&[ALL_WELL]);
    cluster.kill(1);
    page.wait_for_sentence(&["t has no partition: ", "or the brokers do not respond"]);
    page.wait_for("#summary", &["What to do: check that the brokers run", "no broker can be reached"]);
    page.wait_for("#notices", &["consumer error", " times"]);
    page.shoot("broker-outage");
    cluster.restart(1);
    page.wait_for_sentence(&[ALL_WELL]);
    page.wait_for("#limits", &["caught up"]);
    page.assert_harmless();
}

#[test]
fn an_open_transaction_is_named_as_the_cause() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let Some((_keylane, page)) = Page::of(settings(&flow, "echo")) else { return };
    let transactions = Transactions::new(&cluster.bootstrap(), &unique("writer")).expect("a coordinator");
    transactions.open(&flow.input, [Record::new("k", "held back")]).expect("acknowledged");
    page.wait_for_sentence(&[
        "has made no progress",
        "the log has records that do not arrive, although the leader responds (offset 0)",
    ]);
    page.wait_for("#summary", &["What to do: look for an open transaction"]);
    page.wait_for(&partition(&flow, 0), &["stalled", "not_fetched, offset 0"]);
    page.shoot("open-transaction");
    transactions.commit_open().expect("committed");
    page.wait_for_sentence(&[ALL_WELL]);
    page.assert_harmless();
}

#[test]
fn a_slow_service_limits_its_handler() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    let service = Service::start(|_| {
        std::thread::park_timeout(Duration::from_secs(1));
        Some((200, "late".to_owned()))
    });
    let settings = settings(&flow, "http-client").set("handlers.t.grants", "http", vec![service.host()]);
    let Some((_keylane, page)) = Page::of(settings) else { return };
    let url = format!("http://{}/", service.host());
    let events = (0..20_000).map(|number| Record::new(format!("key-{number}"), url.as_str()));
    flow.producer().send_all(&flow.input, events).expect("acknowledged");
    page.wait_for("#limits", &["limited by service", "calls wait for I/O or a timer"]);
    page.shoot("slow-service");
    page.assert_harmless();
}

#[test]
fn a_stopped_partition_is_shown_with_its_cause() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 2, &[]);
    flow.members.commit(&flow.input, 1, 20, b""); // outside the log
    let Some((_keylane, page)) = Page::of(settings(&flow, "failing")) else { return };
    page.wait_for_sentence(&[
        &format!("t: partition {}/1 has stopped: offset 20 is outside the log", flow.input),
        "set out_of_range to",
    ]);
    page.wait_for(&partition(&flow, 1), &["stopped", "Offset 20 is outside the log"]);
    page.shoot("stopped-partition");
    page.assert_harmless();
}

#[test]
fn a_token_is_asked_for_and_a_restart_is_reported() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let settings = settings(&flow, "echo").set("admin", "token", TOKEN);
    let Some((mut keylane, page)) = Page::of(settings.clone()) else { return };
    page.wait_for_sentence(&["This server requires a token."]);
    assert_eq!(page.browser.text("#data"), "");
    page.shoot("token");
    page.browser.type_keys(&format!("{TOKEN}-not{ENTER}"));
    page.wait_for("#token-error", &["The token is wrong"]);
    page.shoot("token-wrong");
    page.browser.type_keys(&format!("{TOKEN}{ENTER}"));
    page.wait_for_sentence(&[ALL_WELL]);
    keylane.kill();
    page.wait_for_sentence(&["The connection to the process is lost. Before that: ", ALL_WELL]);
    page.wait_for("#connection", &["Connection lost for ", "Reconnecting"]);
    page.shoot("connection-lost");
    let address = page.admin.url.trim_start_matches("http://");
    let _again = Keylane::run(&settings.set("admin", "listen", address), &[]);
    page.wait_for("#connection", &["The process was restarted at "]);
    page.wait_for_sentence(&[ALL_WELL]);
    page.shoot("restarted");
    page.assert_harmless();
}

#[test]
fn an_outage_of_all_brokers_is_in_the_sentence() {
    let Some(cluster) = kafka::dedicated(&Options::default()) else { return };
    let flow = Flow::new(&cluster, 1, &[]);
    // The outage is shown before the client's default session timeout, after which the partition is lost.
    let settings = settings(&flow, "echo").set("kafka.client", "session.timeout.ms", 45_000);
    let Some((_keylane, page)) = Page::of(settings) else { return };
    page.wait_for("#handlers", &["1 up"]);
    cluster.kill(1);
    page.wait_for_sentence(&["t: no broker can be reached"]);
    page.wait_for("#remedy", &["check that the brokers run and respond"]);
    page.wait_for("#handlers", &["1 down"]);
    page.shoot("no-broker");
    page.assert_harmless();
}
