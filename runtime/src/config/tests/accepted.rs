//! Valid files and their checked configurations.

use std::path::Path;
use std::time::Duration;

use keylane_core::OutOfRange;

use super::super::{Assignor, Cluster, FeedSource, NoKey, Ordering, StartPolicy};
use super::{MINIMAL, expect_accepted, with};

#[test]
fn defaults_match_the_core() {
    let checked = expect_accepted(MINIMAL);
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    assert!(matches!(&checked.kafka.cluster, Cluster::Brokers(servers) if servers == "localhost:9092"));
    assert_eq!(checked.kafka.assignor, Assignor::CooperativeSticky);
    assert!(!checked.kafka.create_topics);
    assert_eq!(checked.runtime.memory_budget, 128 << 20);
    assert_eq!(checked.runtime.workers.get(), 3);
    assert_eq!(checked.runtime.drain_timeout, Duration::from_secs(10));
    assert_eq!(
        checked.runtime.cache_dir.as_deref(),
        Some(Path::new("/home/somebody/.cache/keylane/compiled"))
    );

    let [handler] = checked.handlers.as_slice() else { panic!("not one handler: {:?}", checked.handlers) };
    assert_eq!(handler.name, "orders");
    assert_eq!(handler.component, Path::new("etc/orders.wasm"));
    assert_eq!(handler.timeout, Duration::from_secs(5));
    assert_eq!(handler.memory, 64 << 20);
    assert_eq!(handler.start, StartPolicy::Earliest);
    assert_eq!(handler.lanes.ordering, Ordering::Key);
    assert_eq!(handler.lanes.no_key, NoKey::Spread);
    let ours = format!("{:?}", handler.core_config(64 << 20));
    assert_eq!(ours, format!("{:?}", keylane_core::Config::default()));
}

/// Every setting of this version, with non-default values where possible.
const EVERYTHING: &str = r#"
[kafka]
bootstrap_servers = "embedded"
assignor = "range"
create_topics = true
[embedded]
partitions = 4
[[embedded.feed]]
topic = "flights"
file = "flights.jsonl.zst"
[[embedded.feed]]
topic = "weather"
file = "-"
[runtime]
memory_budget = "64MiB"
workers = 2
cache_dir = "cache"
drain_timeout = "2s 500ms"
[handlers.b]
component = "/opt/b.wasm"
topics = ["weather", "delays"]
group_id = "b"
start = "latest"
out_of_range = "latest"
[handlers.a]
component = "a.wasm"
topics = ["flights"]
group_id = "a"
group_instance_id = "a-1"
timeout = "250ms"
memory = "16MiB"
max_batch = 32
isolation = "shared"
read_in_step = "30s"
[handlers.a.lanes]
ordering = "unordered"
lane_key = "key"
no_key = "partition"
max_concurrency = 8
max_queued = 1000
max_window = 5000
[handlers.a.commit]
interval = "200ms"
every = 7
timeout = "1s"
metadata_limit = 0
[handlers.a.rebalance]
revoke_timeout = "3s"
[handlers.a.retry]
on_exhausted = "stop"
[handlers.a.outputs.late]
topic = "delays"
provenance = true
order_value = "header:version"
"#;

#[test]
fn all_settings_are_applied() {
    let checked = expect_accepted(EVERYTHING);
    let Cluster::Embedded(embedded) = &checked.kafka.cluster else { panic!("not the embedded broker") };
    assert_eq!(embedded.partitions, 4);
    let sources: Vec<_> = embedded.feeds.iter().map(|feed| feed.source.clone()).collect();
    assert_eq!(sources, [FeedSource::File("etc/flights.jsonl.zst".into()), FeedSource::StandardInput]);
    assert_eq!(checked.kafka.assignor, Assignor::Range);
    assert_eq!(checked.runtime.cache_dir.as_deref(), Some(Path::new("etc/cache")));
    assert_eq!(checked.runtime.drain_timeout, Duration::from_millis(2500));
    assert_eq!(checked.input_topics(), ["delays", "flights", "weather"]);

    let [a, b] = checked.handlers.as_slice() else { panic!("not two handlers: {:?}", checked.handlers) };
    assert_eq!((a.name.as_str(), b.name.as_str()), ("a", "b"));
    assert_eq!(b.component, Path::new("/opt/b.wasm"));
    assert_eq!(b.start, StartPolicy::Latest);
    assert_eq!(b.out_of_range, OutOfRange::Latest);
    assert_eq!(a.group_instance_id.as_deref(), Some("a-1"));
    assert_eq!((a.max_batch, a.memory, a.timeout), (Some(32), 16 << 20, Duration::from_millis(250)));
    assert_eq!((a.lanes.ordering, a.lanes.no_key), (Ordering::Unordered, NoKey::Partition));
    assert_eq!((a.lanes.max_concurrency, a.lanes.max_queued, a.lanes.max_window), (8, 1000, 5000));
    assert_eq!((a.commit.every, a.commit.metadata_limit), (7, 0));
    assert_eq!(a.revoke_timeout, Duration::from_secs(3));
    assert_eq!((a.read_in_step, b.read_in_step), (Some(Duration::from_secs(30)), None));
    let [late] = a.outputs.as_slice() else { panic!("not one output: {:?}", a.outputs) };
    assert_eq!((late.target.as_str(), late.topic.as_str(), late.provenance), ("late", "delays", true));
    assert_eq!(late.order_value.as_deref(), Some("version"));
}

#[test]
fn a_start_may_be_a_time() {
    for (written, millis) in [
        ("\"1970-01-01T00:00:01Z\"", 1000),
        ("\"2026-01-31T00:00:00Z\"", 1_769_817_600_000),
        ("\"2026-01-31T01:00:00.250+01:00\"", 1_769_817_600_250),
        ("2026-01-31T00:00:00Z", 1_769_817_600_000),
    ] {
        let checked = expect_accepted(&with(&format!("start = {written}"), ""));
        let start = checked.handlers.first().map(|handler| handler.start);
        assert_eq!(start, Some(StartPolicy::Time(millis)), "{written}");
    }
}

#[test]
fn half_of_the_budget_is_divided_among_partitions() {
    let runtime = expect_accepted(MINIMAL).runtime;
    let limits = |consumers, partitions| {
        let limits = runtime.fetch_limits(consumers, partitions);
        (limits.queue_bytes >> 10, limits.partition_response_bytes >> 10, limits.total() >> 20)
    };
    assert_eq!(limits(1, 16), (3 << 10, 1 << 10, 64), "half of the budget");
    assert_eq!(limits(4, 16), (512, 512, 16), "a quarter of that for each of four consumers");
    assert_eq!(limits(1, 1), (3 << 10, 1 << 10, 4), "a higher limit for one partition has no benefit");
    assert_eq!(limits(1, 1_000), (32, 32, 63));
    assert_eq!(limits(1, 10_000), (32, 32, 625), "never below the minimum per partition");
    assert_eq!([1, 8].map(|consumers| runtime.fetch_limits(consumers, 0).response_bytes >> 20), [16, 2]);
    assert_eq!(runtime.arena_bytes(), 64 << 20);
}

#[test]
fn warnings_name_their_lines() {
    let cases = [
        (
            with("", "[handlers.orders.outputs.again]\ntopic = \"orders\""),
            "etc/keylane.toml:10: the handler `orders` reads and writes `orders`",
        ),
        (
            with("group_instance_id = \"one\"", ""),
            "etc/keylane.toml:8: a static member does not leave its group",
        ),
        (
            with("", "[handlers.orders.rebalance]\nrevoke_timeout = \"30s\""),
            "etc/keylane.toml:10: nothing is fetched for `orders`",
        ),
        (embedded("other", 8), "etc/keylane.toml:6: no handler reads `other`"),
        (embedded("other", 8), "etc/keylane.toml:10: `orders` stays empty"),
        (
            with("isolation = \"event\"\nmax_batch = 64", ""),
            "etc/keylane.toml:9: `isolation = \"event\"` sets `max_batch` to 1",
        ),
        (
            with("lanes = { ordering = \"partition\", no_key = \"reject\" }", ""),
            "8: `no_key` has no effect without",
        ),
        (with("retry.max_record_age = \"0s\"", ""), "8: no event is retried: every event is older than"),
        (
            with("retry = { initial_interval = \"0s\", max_interval = \"0s\" }", ""),
            "8: events are retried without a wait",
        ),
        (with("cpu_budget = \"1m\"", ""), "8: `cpu_budget` has no effect: it is above `timeout`"),
        (with("timeout = \"1m\"", ""), "8: `timeout` is above `runtime.drain_timeout`"),
        (
            with("retry.on_exhausted = \"skip\"\ndead_letters.headers = \"spring\"", ""),
            "9: `dead_letters` has no effect: `retry.on_exhausted` is not",
        ),
        (
            with("dead_letters.topic = \"out\"\noutputs.x.topic = \"out\"", ""),
            "8: the dead-letter topic `out` is also an output topic of `orders`",
        ),
        (
            with("dead_letters.topic = \"back\"", BACK),
            "8: the handler `two` reads `back`, the dead-letter topic of `orders`",
        ),
        (
            embedded("orders", 64) + BACK + "[runtime]\nmemory_budget = \"8MiB\"",
            "fetch queues use up to 8MiB, more than their half of the budget (4MiB)",
        ),
    ];
    for (text, expected) in cases {
        let warnings = expect_accepted(&text).warnings;
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "no {expected:?} in {warnings:?}");
    }
}

/// A handler that reads another handler's dead letters.
const BACK: &str = "\
[handlers.two]
component = \"two.wasm\"
topics = [\"back\"]
group_id = \"two\"
";

fn embedded(topic: &str, partitions: u16) -> String {
    let (kafka, handler) = MINIMAL.split_once("\n\n").expect("the file has two sections");
    let kafka = kafka.replace("localhost:9092", "embedded");
    format!(
        "{kafka}\n[embedded]\npartitions = {partitions}\n[[embedded.feed]]\ntopic = \"{topic}\"\nfile = \"-\"\n{handler}"
    )
}

#[test]
fn grants_are_resolved() {
    let text =
        with("grants.env = [\"KAFKA_PASSWORD\"]\ngrants.http = [\"api.example.com\", \"${HOST}\"]", "");
    let checked = expect_accepted(&text);
    let [handler] = &*checked.handlers else { panic!("not one handler") };
    let [variable] = &*handler.grants.env else { panic!("not one variable") };
    assert_eq!(
        (variable.name.as_str(), variable.value.as_str()),
        ("KAFKA_PASSWORD", "canary-in-environment")
    );
    let hosts: Vec<String> = handler.grants.http.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["api.example.com", "broker.example:9092"]);
    assert!(!format!("{checked:?}").contains("canary"), "values of variables are not printed");
}

#[test]
fn a_handler_with_http_gets_one_event_per_call_by_default() {
    for (line, max_batch, fixed) in [
        ("", 64, false),
        ("grants.env = [\"HOST\"]", 64, false),
        ("grants.http = [\"a\"]", 1, false),
        ("grants.http = [\"a\"]\nmax_batch = 16", 16, true),
    ] {
        let core = expect_accepted(&with(line, "")).handlers[0].core_config(1 << 20);
        assert_eq!((core.max_batch, core.max_batch_is_fixed), (max_batch, fixed), "{line}");
    }
}
