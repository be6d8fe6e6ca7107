//! Invalid files and their reports.

use super::{MINIMAL, expect_accepted, expect_refused, with};

#[test]
fn at_least_one_handler_is_required() {
    expect_refused(
        "[kafka]\nbootstrap_servers = \"b:1\"",
        &["no handler is configured", "hint: add a section `[handlers.NAME]`"],
    );
}

#[test]
fn settings_of_a_handler() {
    for (line, expected) in [
        ("max_batch = 0", "`handlers.orders.max_batch` must be between 1 and 4096, not 0"),
        ("max_batch = 4097", "between 1 and 4096, not 4097"),
        ("max_batch = -1", "between 1 and 4096, not -1"),
        ("timeout = \"1ms\"", "`handlers.orders.timeout` must be between 10ms and 1h, not 1ms"),
        ("timeout = \"30 sekonds\"", "`30 sekonds` is not a duration: "),
        ("read_in_step = \"0s\"", "`handlers.orders.read_in_step` must be between 10ms and 1day, not 0s"),
        (
            "read_in_step = \"25h\"",
            "`handlers.orders.read_in_step` must be between 10ms and 1day, not 1day 1h",
        ),
        ("timeout = 5", "expected a duration such as \"250ms\""),
        ("memory = \"1KiB\"", "`handlers.orders.memory` must be between 1MiB and 4GiB, not 1KiB"),
        ("memory = \"much\"", "`much` is not a size (write it like"),
        (
            "start = \"yesterday\"",
            "`yesterday` is not a start position: write \"earliest\", \"latest\" or a time",
        ),
        ("start = \"2026-01-31\"", "`2026-01-31` is not a time since 1970 with a UTC offset"),
        ("start = \"1969-12-31T23:59:59Z\"", "is not a time since 1970 with a UTC offset"),
        ("start = \"1970-01-01T00:00:00+01:00\"", "is not a time since 1970 with a UTC offset"),
        (
            "out_of_range = \"ignore\"",
            "unknown variant `ignore`, expected one of `fail`, `earliest`, `latest`",
        ),
        ("group_instance_id = \"\"", "`handlers.orders.group_instance_id` must have 1 to 249"),
        ("timout = \"1s\"", "unknown field `timout`"),
    ] {
        expect_refused(&with(line, ""), &["etc/keylane.toml:8:", expected]);
    }
}

#[test]
fn settings_in_sections() {
    for (section, expected) in [
        (
            "[handlers.orders.lanes]\nmax_concurrency = 0",
            "max_concurrency` must be between 1 and 100000, not 0",
        ),
        ("[handlers.orders.lanes]\nmax_queued = 0", "max_queued` must be between 1 and"),
        ("[handlers.orders.lanes]\nmax_window = 0", "max_window` must be between 1 and"),
        ("[handlers.orders.lanes]\nordering = \"keys\"", "unknown variant `keys`"),
        ("[handlers.orders.commit]\ninterval = \"1ms\"", "interval` must be between 10ms and 1h, not 1ms"),
        (
            "[handlers.orders.commit]\nmetadata_limit = -1",
            "metadata_limit` must be between 0 and 65536, not -1",
        ),
        ("[handlers.orders.rebalance]\nrevoke_timeout = \"1h\"", "must be between 0s and 2m, not 1h"),
        ("[handlers.orders.outputs.x]\ntopic = \"a b\"", "`a b` is not a valid topic name"),
        ("[runtime]\nworkers = 0", "`runtime.workers` must be between 1 and 1024, not 0"),
        ("[runtime]\nmemory_budget = \"1MiB\"", "must be between 8MiB and 1TiB, not 1MiB"),
        ("[embedded]\npartitions = 1", "`[embedded]` is set, but `kafka.bootstrap_servers` is not"),
        (
            "[handlers.\"a b\"]\ncomponent=\"x\"\ntopics=[\"x\"]\ngroup_id=\"x\"",
            "`a b` is not a valid handler name",
        ),
        (
            "[handlers.twin]\ncomponent=\"x\"\ntopics=[\"x\"]\ngroup_id=\"orders\"",
            "the group `orders` is already used by the handler `orders`",
        ),
    ] {
        expect_refused(&with("", section), &[expected]);
    }
}

#[test]
fn topics() {
    let long = "x".repeat(250);
    for (topics, expected) in [
        ("[]", "the handler `orders` reads no topic"),
        ("[\"a\", \"a\"]", "`a` is listed twice"),
        ("[\"^a.*\"]", "topic patterns are not supported in this version of Keylane"),
        ("[\"\"]", "can't be empty"),
        ("[\"..\"]", "`..` is not a valid topic name"),
        ("[\"ä\"]", "hint: letters, digits"),
        (&format!("[\"{long}\"]"), "has at most 249 characters"),
    ] {
        expect_refused(&MINIMAL.replace("[\"orders\"]", topics), &["etc/keylane.toml:6:", expected]);
    }
}

#[test]
fn missing_files() {
    expect_refused(
        &MINIMAL.replace("orders.wasm", "missing.wasm"),
        &["component not found: etc/missing.wasm", "hint: relative paths are resolved from"],
    );
    expect_refused(
        &MINIMAL.replace("orders.wasm", "/"),
        &["the component is a directory: /", "hint: name the component file in it"],
    );
}

#[test]
fn the_embedded_broker() {
    let embedded = MINIMAL.replace("localhost:9092", "embedded");
    let feed = "[[embedded.feed]]\ntopic = \"orders\"\nfile = \"-\"\n";
    for (text, expected) in [
        (embedded.clone(), "the embedded broker has no feed"),
        (format!("{embedded}[embedded]\npartitions = 2\n"), "hint: add `[[embedded.feed]]`"),
        (format!("{embedded}[embedded]\npartitions = 65\n{feed}"), "must be between 1 and 64, not 65"),
        (format!("{embedded}start = \"2026-01-31T00:00:00Z\"\n{feed}"), "can't look up offsets by time"),
        (format!("{embedded}{feed}{feed}"), "the topic `orders` already has a feed"),
        (
            format!("{embedded}{feed}{}", feed.replace("orders", "o")),
            "standard input can feed only one topic",
        ),
        (format!("{embedded}{}", feed.replace('-', "missing.jsonl")), "feed not found: etc/missing.jsonl"),
    ] {
        expect_refused(&text, &[expected]);
    }
}

#[test]
fn settings_of_retries_and_dead_letters() {
    for (line, expected) in [
        ("retry.max_attempts = 0", "max_attempts` must be between 1 and 1000000, not 0"),
        ("retry.multiplier = 0.5", "multiplier` must be between 1 and 100, not 0.5"),
        ("retry.jitter = 1.5", "jitter` must be between 0 and 1, not 1.5"),
        ("retry.initial_interval = \"1m\"", "initial_interval` (1m) is above `max_interval` (30s)"),
        (
            "dead_letters.topic = \"{topics}.dlq\"",
            "`{topic}`, the name of the event's own topic, is the only",
        ),
        ("dead_letters.topic = \"orders\"", "`orders` is an input of the handler `orders`"),
        ("dead_letters.topic = \"{topic}\"", "it would read its own dead letters"),
        ("dead_letters.topic = \"a b\"", "`a b` is not a valid topic name"),
        ("dead_letters.headers = \"jms\"", "unknown variant `jms`, expected `keylane` or `spring`"),
        ("reuse_max_memory = \"1GiB\"", "reuse_max_memory` must be between 0B and 64MiB, not 1GiB"),
        ("cpu_budget = \"0s\"", "cpu_budget` must be between 10ms and 1h, not 0s"),
        ("lanes.lane_key = \"value\"", "`value` is not a lane key: write \"key\", \"header:NAME\""),
        ("lanes.lane_key = []", "the lane key is empty"),
        ("lanes.lane_key = [\"key\", \"key\"]", "`key` is listed twice in the lane key"),
        ("lanes.lane_key = [\"key\", \"json:id\"]", "`json:id` is not a lane key"),
        ("lanes.lane_key = 7", "\"registry-json:/pointer\", or a list of these"),
        ("lanes.lane_key = \"json:id\"", "`json:id` is not a lane key"),
        ("lanes = { lane_key = \"header:a\", ordering = \"partition\" }", "`lane_key` needs `ordering"),
        ("filter = [{ equals = \"x\" }]", "test a header, but `header` is not set"),
        ("filter = [{ header = \"x\" }]", "`header` is set, but the rule does not test it"),
        ("filter = [{ keep = false }]", "the rule tests nothing"),
        ("filter = [{ header = \"\", equals = \"x\" }]", "`header` is empty"),
        ("filter = [{ header = \"x\", any_of = [] }]", "`any_of` lists no value, so no event matches"),
        (
            "filter = [{ header = \"x\", equals = \"a\", prefix = \"b\" }]",
            "only one of `equals`, `any_of` and `prefix`",
        ),
        ("filter = [{ header = \"x\", equals = \"a\", present = false }]", "so no event matches"),
        (
            "filter = [{ name = \"a\", tombstone = true }, { name = \"a\", key_prefix = \"x\" }]",
            "rule 1 already has the name `a`",
        ),
        ("filter = [{ tombstone = true }, { tombstone = true, keep = false }]", "so this rule has no effect"),
        ("lanes.lane_key = \"json:/a~2b\"", "`json:/a~2b` is not a lane key"),
        ("lanes.lane_key = \"header: tenant\"", "`header: tenant` is not a lane key"),
        ("filter = \"x\"", "expected a list: `[…]`"),
        ("max_batch = \"many\"", "invalid type: string \"many\", expected a whole number"),
        ("max_batch = true", "expected a whole number"),
        ("retry.jitter = \"x\"", "expected a number"),
        ("outputs.x = { topic = \"x\", provenance = 1 }", "expected true or false"),
        (
            "outputs.x = { topic = \"x\", order_value = \"version\" }",
            "`version` is not a header for the order value",
        ),
        ("outputs.x = { topic = \"x\", order_value = \"header:\" }", "`header:` is not a header"),
        ("outputs.x = { topic = \"x\", order_value = \"json:/a\" }", "`json:/a` is not a header"),
        (
            "outputs.x = { topic = \"x\", order_value = \"header:keylane-v\" }",
            "the header `keylane-v` has a name that is reserved for Keylane",
        ),
    ] {
        expect_refused(&with(line, ""), &["etc/keylane.toml:8:", expected]);
    }
}

#[test]
fn grants() {
    for (line, expected, remedy) in [
        (
            "grants.env = [\"HOST\", \"NOT_THERE\"]",
            "the environment variable `NOT_THERE` is not set",
            "remove it from `grants.env`",
        ),
        ("grants.env = [\"HOME=x\"]", "`HOME=x` is not the name of an environment variable", "only the name"),
        ("grants.env = [\"\"]", "`` is not the name", "only the name"),
        ("grants.env = [\"HOST\", \"HOST\"]", "`HOST` is listed twice", ""),
        ("grants.http = [\"a\", \"a\"]", "`a` is listed twice", ""),
        ("grants.http = [\"https://a/b\"]", "`https://a/b` is not a valid host", "hint: `host`, `host:port`"),
        ("grants.http = [\"*\"]", "`*` is not a valid host", "hint: `*.` is allowed only before"),
        ("grants.files = [\"/tmp\"]", "unknown field `files`", "expected `env` or `http`"),
    ] {
        expect_refused(&with(line, ""), &["etc/keylane.toml:8:", expected, remedy]);
    }
}

#[test]
fn settings_of_later_versions_are_refused_by_name() {
    for (line, section, name) in [
        ("", "[handlers.orders.gates]", "handlers.orders.gates"),
        ("pipeline = true", "", "handlers.orders.pipeline"),
        ("consumers = 2", "", "handlers.orders.consumers"),
        ("retry.on_exhausted = \"hold\"", "", "handlers.orders.retry.on_exhausted = \"hold\""),
        ("retry.on_exhausted = \"dlq-key\"", "", "handlers.orders.retry.on_exhausted = \"dlq-key\""),
    ] {
        expect_refused(
            &with(line, section),
            &[&format!("`{name}` is not supported in this version of Keylane"), "hint: "],
        );
    }
}

#[test]
fn the_table_of_a_misplaced_setting_is_suggested() {
    for (line, section, remedy) in [
        ("", "[dead_letters]\ntopic = \"x\"", "set it for each handler: `[handlers.NAME.dead_letters]`"),
        ("env = [\"HOME\"]", "", "use `grants.env`"),
        ("http = [\"x\"]", "", "use `grants.http`"),
    ] {
        expect_refused(&with(line, section), &["belongs in another table", remedy]);
    }
}

#[test]
fn brokers() {
    for (servers, expected) in [
        ("a:1,,b:2", "names no broker"),
        ("embeded", "`embeded` is not the address of a broker"),
        ("Embedded", "`Embedded` is not the address of a broker"),
        ("http://localhost:9092", "`http://localhost:9092` is not"),
        ("localhost:port", "`localhost:port` is not"),
        ("kafka:99999", "`kafka:99999` is not"),
        ("a:9092;b:9092", "`a:9092;b:9092` is not"),
        ("::1:9092", "`::1:9092` is not"),
        ("kafka1,kafka2:9092", "`kafka1` has no port"),
        ("SASL_SSL://kafka1", "hint: add the port of the broker, for example `SASL_SSL://kafka1:9092`"),
        ("[::1]", "`[::1]` has no port"),
        ("a:9092,embedded", "hint: `host:port`, several separated by commas, or only `embedded`"),
    ] {
        expect_refused(&MINIMAL.replace("localhost:9092", servers), &["etc/keylane.toml:2:", expected]);
    }
    for servers in
        ["sasl_ssl://a:1", "a:1, b:2", "SASL_SSL://kafka-1.example:9093", "[::1]:9092", "10.0.0.1:9092"]
    {
        expect_accepted(&MINIMAL.replace("localhost:9092", servers));
    }
}

#[test]
fn the_admin_server() {
    for (setting, expected, remedy) in [
        ("listen = \"9277\"", "`9277` is not an address", "hint: write `host:port`"),
        ("listen = \":9277\"", "`:9277` is not an address", "hint: write `host:port`"),
        ("listen = \"localhost:port\"", "`localhost:port` is not an address", "hint: write `host:port`"),
        ("token = \"short\"", "`admin.token` is shorter than 16 characters", "openssl rand -hex 16"),
        (
            "protect_metrics = true",
            "`protect_metrics` needs a token",
            "set `admin.token` or `admin.token_file`",
        ),
        ("hosts = [\"https://a\"]", "`https://a` is not a host name", "without scheme and port"),
        ("hosts = [\"a:80\"]", "`a:80` is not a host name", "without scheme and port"),
        ("port = 1", "unknown field `port`", "etc/keylane.toml:"),
    ] {
        expect_refused(&with("", &format!("[admin]\n{setting}")), &[expected, remedy]);
    }
    let both = "[admin]\ntoken = \"0123456789abcdef\"\ntoken_file = \"f\"";
    expect_refused(&with("", both), &["`token` and `token_file` are both set", "hint: keep one of them"]);
    for accepted in ["listen = \"off\"", "listen = \"[::]:9277\"", "listen = \"keylane.example:0\"", ""] {
        expect_accepted(&with("", &format!("[admin]\n{accepted}")));
    }
}

#[test]
fn a_log_filter_is_checked() {
    let file = format!("{MINIMAL}\n[log]\nfilter = \"keylane=loud\"");
    expect_refused(
        &file,
        &["`keylane=loud` is not a log filter: ", "hint: write a level, or levels by module"],
    );
    expect_accepted(&format!("{MINIMAL}\n[log]\nfilter = \"warn,keylane=debug\""));
}
