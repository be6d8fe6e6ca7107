//! `keylane check`

use std::fmt::Write as _;
use std::path::Path;

use keylane_core::{GateRule, OnExhausted};

use super::{CommandFailure, Completion, stdout};
use crate::app;
use crate::config::{
    self, Checked, Cluster, EmbeddedConfig, FeedSource, FetchLimits, HandlerConfig, HumanSize, RuntimeConfig,
};
use crate::guest::{AllowedImports, Inspection, load};
use crate::logging;

/// Checks the file, its Kafka client properties and its components, without starting anything. Problems in a readable
/// file are findings.
pub(super) fn execute(file: &Path) -> Result<Completion, CommandFailure> {
    match config::load(file) {
        Ok(checked) => check_components(file, &checked),
        Err(config::Error::Invalid(report)) => Ok(findings(file, &report.to_string(), report.count())),
        Err(error @ config::Error::Unreadable { .. }) => Err(error.into()),
    }
}

/// Checks the rest of a configuration whose file is valid.
fn check_components(file: &Path, checked: &Checked) -> Result<Completion, CommandFailure> {
    checked.warnings.iter().for_each(|warning| logging::report(&format!("warning: {warning}\n")));
    let mut sound = Vec::new();
    let mut problems = app::preflight_problems(checked);
    for handler in &checked.handlers {
        let allowed = AllowedImports { http: handler.uses_http() };
        match load::check(&handler.component, allowed, &handler.name, handler.state.is_some()) {
            Ok(inspection) => sound.push(inspection),
            Err(error) => problems.push(format!("handler `{}`: {error}", handler.name)),
        }
    }
    if !problems.is_empty() {
        let report: String = problems.iter().map(|problem| format!("error: {problem}\n")).collect();
        return Ok(findings(file, &report, problems.len()));
    }
    stdout::print(&summary(file, checked, &sound))
}

fn findings(file: &Path, report: &str, problems: usize) -> Completion {
    let noun = if problems == 1 { "problem" } else { "problems" };
    logging::report(&format!("{report}\n{}: {problems} {noun}\n", file.display()));
    Completion::Failure
}

/// Returns the summary of the configuration. `components`: one for each handler.
fn summary(file: &Path, checked: &Checked, components: &[Inspection]) -> String {
    let mut text = format!("{}: valid\n\n", file.display());
    let embedded = match &checked.kafka.cluster {
        Cluster::Brokers(servers) => {
            line(&mut text, "brokers", servers);
            None
        }
        Cluster::Embedded(embedded) => {
            line(&mut text, "broker", &format!("embedded, {} partitions per topic", embedded.partitions));
            feeds(&mut text, embedded);
            Some(embedded)
        }
    };
    memory(&mut text, checked, embedded);
    line(&mut text, "workers", &checked.runtime.workers.to_string());
    if let Some(folder) = &checked.runtime.cache_dir {
        line(&mut text, "compiled", &folder.display().to_string());
    }
    for (handler, component) in checked.handlers.iter().zip(components) {
        text.push('\n');
        describe(&mut text, handler, component);
    }
    text
}

fn feeds(text: &mut String, embedded: &EmbeddedConfig) {
    for feed in &embedded.feeds {
        let source = match &feed.source {
            FeedSource::StandardInput => "standard input".to_owned(),
            FeedSource::File(path) => path.display().to_string(),
        };
        line(text, "feed", &format!("{} from {source}", feed.topic));
    }
}

/// Adds the memory limits. The number of partitions is known here only for the embedded broker.
fn memory(text: &mut String, checked: &Checked, embedded: Option<&EmbeddedConfig>) {
    let RuntimeConfig { memory_budget, .. } = checked.runtime;
    let half = HumanSize(checked.runtime.arena_bytes());
    line(
        text,
        "memory",
        &format!(
            "{}: {half} for prefetching, {half} for queued and running events",
            HumanSize(memory_budget)
        ),
    );
    let handlers = u64::try_from(checked.handlers.len()).unwrap_or(u64::MAX);
    let note = match embedded {
        Some(embedded) => {
            let of_handler = |handler: &HandlerConfig| {
                let topics = u64::try_from(handler.topics.len()).unwrap_or(u64::MAX);
                checked.runtime.fetch_limits(handlers, topics.saturating_mul(u64::from(embedded.partitions)))
            };
            let limits: Vec<_> = checked.handlers.iter().map(of_handler).collect();
            let all = limits.iter().map(FetchLimits::total).fold(0, u64::saturating_add);
            let partitions = limits.iter().map(|limits| limits.partitions).fold(0, u64::saturating_add);
            format!("{partitions} partitions prefetch up to {} in total", HumanSize(all))
        }
        None => {
            let consumers = if handlers == 1 { "consumer" } else { "consumers" };
            let (least, most) =
                (HumanSize(config::FETCH_MIN), HumanSize(checked.runtime.fetch_limits(1, 1).per_partition()));
            format!(
                "all partitions of {handlers} {consumers} prefetch up to {half} in total, each {least} to {most}"
            )
        }
    };
    line(text, "", &note);
}

fn describe(text: &mut String, handler: &HandlerConfig, component: &Inspection) {
    let lanes = &handler.lanes;
    line(text, "handler", &handler.name);
    line(text, "  component", &handler.component.display().to_string());
    if let Some(interface) = component.interface(handler.state.is_some()) {
        let size = HumanSize(u64::try_from(component.size).unwrap_or(u64::MAX));
        line(text, "  interface", &format!("{interface}, component size {size}"));
    }
    line(text, "  topics", &handler.topics.join(", "));
    line(text, "  group", &format!("{}; a new group starts at {}", handler.group_id, handler.start));
    let order = match (lanes.ordering, &lanes.lane_key) {
        (config::Ordering::Key, config::LaneKey::Key) => "events of a partition with the same key".to_owned(),
        (config::Ordering::Key, lane_key) => format!("events of a partition with the same `{lane_key}`"),
        (config::Ordering::Partition, _) => "all events of a partition".to_owned(),
        (config::Ordering::Unordered, _) => "none".to_owned(),
    };
    line(text, "  order", &order);
    describe_gate(text, handler);
    if let Some(ahead) = handler.read_in_step {
        let value =
            format!("a partition is at most {} ahead of the slowest", humantime::format_duration(ahead));
        line(text, "  in step", &value);
    }
    if !handler.filter.is_empty() {
        let rule =
            |rule: &config::FilterRule| format!("{} {}", if rule.keep { "keep" } else { "drop" }, rule.name);
        let rules: Vec<String> = handler.filter.iter().map(rule).collect();
        line(text, "  filter", &rules.join(", "));
    }
    let (calls, memory) = (lanes.max_concurrency, HumanSize(handler.memory));
    line(text, "  calls", &format!("up to {calls} concurrent, each up to {memory}"));
    if let Some(keys) = &handler.keys {
        line(text, "  keys", &format!("{}; cache {}", keys.changelogs.join(", "), HumanSize(keys.cache)));
    }
    line(text, "  failures", &failures(handler));
    for variable in &handler.grants.env {
        line(text, "  env", &variable.name);
    }
    for host in &handler.grants.http {
        line(text, "  http", &host.to_string());
    }
    for output in &handler.outputs {
        line(text, "  output", &format!("{} to {}", output.target, output.topic));
    }
}

/// Describes the gate, the detection of duplicates, and their memory.
fn describe_gate(text: &mut String, handler: &HandlerConfig) {
    let order = &handler.order;
    if let Some(gate) = &order.gate {
        let key = gate.key.as_ref().map_or(String::new(), |key| format!(" for each `{key}`"));
        let rule = match gate.rule.rule {
            GateRule::Consecutive(_) => "consecutive",
            GateRule::Newest(_) => "newest",
            GateRule::Window(_) => "window",
        };
        let by = match &gate.by {
            config::OrderBy::Timestamp => "timestamp".to_owned(),
            config::OrderBy::Field(field, _) => field.to_string(),
        };
        line(text, "  gate", &format!("{rule} by `{by}`{key}"));
        // If failed events are not dead-lettered, nothing else names the topics, which must exist.
        if let Some(dead_letters) = &handler.dead_letters
            && handler.retry.on_exhausted != OnExhausted::DeadLetter
        {
            line(text, "", &format!("with dead letters in {}", dead_letters.topics.join(", ")));
        }
    }
    if let Some(duplicates) = &order.duplicates {
        line(
            text,
            "  duplicates",
            &format!("by `{}`, the last {} of a key", duplicates.id, duplicates.limits.keep),
        );
    }
    if order.is_used() {
        let memory = HumanSize(order.marks_memory);
        line(text, "  marks", &format!("up to {memory}, in addition to `memory_budget`"));
    }
}

/// Describes what happens to a failed event.
fn failures(handler: &HandlerConfig) -> String {
    let attempts = handler.retry.max_attempts;
    let outcome = match (handler.retry.on_exhausted, &handler.dead_letters) {
        (OnExhausted::DeadLetter, Some(dead_letters)) => dead_letters.topics.join(", "),
        (OnExhausted::Skip, _) => "skipped".to_owned(),
        (OnExhausted::Stop | OnExhausted::DeadLetter, _) => "the handler stops".to_owned(),
    };
    match attempts {
        keylane_core::UNLIMITED_ATTEMPTS => format!("unlimited attempts; rejected events: {outcome}"),
        1 => format!("1 attempt, then {outcome}"),
        _ => format!("{attempts} attempts, then {outcome}"),
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _infallible = writeln!(text, "{name:<13}{value}");
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::guest::HandlerInterface;

    fn summary_of(text: &str) -> String {
        let environment = config::Environment {
            file: Path::new("keylane.toml"),
            variable: &|name| (name == "HOME").then(|| "/home/somebody".to_owned()),
            is_file_or_pipe: &|_| true,
            cores: NonZero::new(2).expect("2 is not 0"),
        };
        let component = Inspection {
            interfaces: vec![HandlerInterface::BatchHandler],
            exports: Vec::new(),
            imports: Vec::new(),
            size: 25 << 10,
            sha256: [0; 32],
            was_core_module: false,
        };
        summary(environment.file, &config::check(text, &environment).expect(text), &[component])
    }

    const HANDLER: &str = "
        [handlers.orders]
        component = \"orders.wasm\"
        topics = [\"orders\", \"returns\"]
        group_id = \"shop\"
        filter = [{ name = \"paid\", header = \"type\", equals = \"paid\" }, { key_prefix = \"test-\", keep = false }]
        lanes.lane_key = \"json:/order/id\"
        grants.env = [\"HOME\"]
        grants.http = [\"api.example.com\", \"*.example.net:8443\"]
        outputs.totals.topic = \"order-totals\"
    ";

    #[test]
    fn summary_with_brokers() {
        let shown = summary_of(&format!("kafka.bootstrap_servers = \"a:1,b:2\"\n{HANDLER}"));
        let expected = "\
keylane.toml: valid

brokers      a:1,b:2
memory       128MiB: 64MiB for prefetching, 64MiB for queued and running events
             all partitions of 1 consumer prefetch up to 64MiB in total, each 64KiB to 4MiB
workers      2
compiled     /home/somebody/.cache/keylane/compiled

handler      orders
  component  orders.wasm
  interface  batch-handler, component size 25KiB
  topics     orders, returns
  group      shop; a new group starts at earliest
  order      events of a partition with the same `json:/order/id`
  filter     keep paid, drop 2
  calls      up to 256 concurrent, each up to 64MiB
  failures   10 attempts, then orders.dlq, returns.dlq
  env        HOME
  http       api.example.com
  http       *.example.net:8443
  output     totals to order-totals
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn summary_with_keyed_state() {
        let state = "delivery = \"transactional\"\nlanes.no_key = \"reject\"\nstate.version = 1\nkeys.cache = \"1GiB\"";
        let shown = summary_of(&format!("kafka.bootstrap_servers = \"a:1\"\n{HANDLER}{state}"));
        let line = "  keys       shop.orders.keys, shop.returns.keys; cache 1GiB\n";
        assert!(shown.contains(line), "no {line:?} in\n{shown}");
    }

    #[test]
    fn summary_with_a_gate() {
        let gate = "gate.rule = \"newest\"\ngate.by = \"header:version\"\ngate.memory = \"session\"\n\
                    gate.supersedes_across_topics = true\nduplicates.id = \"header:id\"\nduplicates.memory = \"session\"\n\
                    read_in_step = \"90s\"\nretry.on_exhausted = \"skip\"";
        let shown = summary_of(&format!("kafka.bootstrap_servers = \"a:1\"\n{HANDLER}{gate}"));
        for line in [
            "  gate       newest by `header:version`\n",
            "  duplicates by `header:id`, the last 16 of a key\n",
            "  marks      up to 8MiB, in addition to `memory_budget`\n",
            "  in step    a partition is at most 1m 30s ahead of the slowest\n",
            "  failures   10 attempts, then skipped\n",
        ] {
            assert!(shown.contains(line), "no {line:?} in\n{shown}");
        }
    }

    #[test]
    fn summary_with_dead_letters_of_a_gate_alone() {
        let gate = "gate.rule = \"window\"\ngate.by = \"timestamp\"\ngate.window = \"1s\"\ngate.late = \"dlq\"\n\
                    retry.on_exhausted = \"stop\"";
        let shown = summary_of(&format!("kafka.bootstrap_servers = \"a:1\"\n{HANDLER}{gate}"));
        for lines in [
            "  gate       window by `timestamp`\n             with dead letters in orders.dlq, returns.dlq\n",
            "  failures   10 attempts, then the handler stops\n",
        ] {
            assert!(shown.contains(lines), "no {lines:?} in\n{shown}");
        }
    }

    #[test]
    fn summary_with_the_embedded_broker() {
        let embedded = "
            kafka.bootstrap_servers = \"embedded\"
            embedded.partitions = 4
            [[embedded.feed]]
            topic = \"orders\"
            file = \"-\"
        ";
        let shown = summary_of(&format!("{embedded}{HANDLER}"));
        for part in [
            "broker       embedded, 4 partitions per topic\n",
            "feed         orders from standard input\n",
            "             8 partitions prefetch up to 32MiB in total\n",
        ] {
            assert!(shown.contains(part), "no {part:?} in\n{shown}");
        }
    }
}
