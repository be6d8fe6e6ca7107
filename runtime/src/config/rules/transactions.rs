//! `delivery`, `[handlers.NAME.transactions]`, and what transactions exclude.

use std::time::Duration;

use super::super::checked::{Cluster, KafkaConfig, TransactionsConfig};
use super::super::problem::Problems;
use super::super::written_handler as written;
use super::super::written_retry::OnExhausted;
use super::super::written_transactions::{Delivery, OnRefusedOutput};
use super::{gate, ranges};

/// The limits of settled events of a handler with HTTP requests that no transaction has claimed: after a crash they run again,
/// and repeat their requests. The time is at least twice the interval, so that a running system does not reach it.
const UNCOMMITTED_WITH_HTTP: u64 = 1_000;
const UNCOMMITTED_AGE_WITH_HTTP: Duration = Duration::from_secs(1);

/// Checks the transactions of a handler. `None`: at-least-once delivery. The embedded broker has no transactions.
pub(super) fn transactions(
    name: &str,
    handler: &written::Handler,
    kafka: &KafkaConfig,
    problems: &mut Problems<'_, '_>,
) -> Option<TransactionsConfig> {
    let at = |field| ["handlers", name, "transactions", field];
    let written = handler.transactions.as_ref();
    if handler.delivery == Delivery::AtLeastOnce {
        if written.is_some() {
            let text = "`transactions` has no effect: `delivery` is not \"transactional\"";
            problems.warn(&["handlers", name, "transactions"], text);
        }
        return None;
    }
    let default = super::super::written_transactions::Transactions::default();
    let written = written.unwrap_or(&default);
    let interval = ranges::time(problems, &at("interval"), written.interval, ranges::TRANSACTION_INTERVAL);
    let max_uncommitted = written
        .max_uncommitted
        .map(|max| ranges::whole(problems, &at("max_uncommitted"), max, ranges::UNCOMMITTED));
    let max_uncommitted_age = written
        .max_uncommitted_age
        .map(|age| ranges::time(problems, &at("max_uncommitted_age"), age, ranges::UNCOMMITTED_AGE));
    if max_uncommitted_age.is_some_and(|age| age < interval * 2) {
        problems
            .add(&at("max_uncommitted_age"), "less than two intervals: calls would wait for each transaction")
            .remedy("raise `max_uncommitted_age`, or lower `interval`");
    }
    let has_http = !handler.grants.http.is_empty();
    let checked = TransactionsConfig {
        interval,
        timeout: ranges::time(problems, &at("timeout"), written.timeout, ranges::TRANSACTION_TIMEOUT),
        max_bytes: ranges::size(problems, &at("max_bytes"), written.max_bytes, ranges::TRANSACTION_BYTES),
        on_refused_output: written.on_refused_output,
        max_uncommitted: max_uncommitted.or_else(|| has_http.then_some(UNCOMMITTED_WITH_HTTP)),
        max_uncommitted_age: max_uncommitted_age
            .or_else(|| has_http.then_some(UNCOMMITTED_AGE_WITH_HTTP.max(interval * 2))),
    };
    if written.on_refused_output == OnRefusedOutput::DeadLetter
        && handler.retry.on_exhausted != OnExhausted::Dlq
    {
        problems
            .add(
                &at("on_refused_output"),
                "refused outputs can't be dead-lettered: `retry.on_exhausted` is not \"dlq\", so there is no dead-letter topic",
            )
            .remedy("set `retry.on_exhausted = \"dlq\"`, or `on_refused_output = \"stop\"`");
    }
    if kafka.consumer.get("isolation.level").is_some_and(|level| level != "read_committed") {
        problems
            .add(
                &["handlers", name, "delivery"],
                "transactional delivery reads with `isolation.level=read_committed`, and another level is set",
            )
            .remedy("remove `isolation.level` from `[kafka.client]` and `[kafka.consumer]`");
    }
    if let Cluster::Embedded(_) = kafka.cluster {
        problems.warn(
            &["handlers", name, "delivery"],
            "the embedded broker has no transactions: delivery is at least once there",
        );
        // Records of keys belong to transactions, even if they are not atomic.
        return (handler.state.is_some() || gate::is_durable(handler)).then_some(checked);
    }
    Some(checked)
}
