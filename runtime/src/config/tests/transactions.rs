//! Transactional delivery.

use std::time::Duration;

use super::{expect_accepted, expect_refused, with};

#[test]
fn transactional_delivery_has_limits_of_its_own_and_half_of_the_arena() {
    let checked = expect_accepted(&with(
        "delivery = \"transactional\"",
        "[handlers.orders.transactions]\ninterval = \"250ms\"\nmax_bytes = \"1MiB\"",
    ));
    let core = checked.handlers[0].core_config(64 << 20);
    let transactions = core.transactions.expect("transactional delivery");
    assert_eq!((transactions.interval.as_millis(), transactions.timeout.as_secs()), (250, 10));
    assert_eq!((core.arena_bytes, transactions.kept_bytes), (32 << 20, 32 << 20));
    assert_eq!((transactions.transaction_bytes, transactions.max_uncommitted), (1 << 20, None));
    let http = expect_accepted(&with("delivery = \"transactional\"\ngrants.http = [\"a.example\"]", ""));
    let transactions = http.handlers[0].core_config(1 << 20).transactions.expect("transactional delivery");
    assert_eq!(transactions.max_uncommitted, Some(1_000));
    assert_eq!(transactions.max_uncommitted_age, Some(Duration::from_secs(1)));
    let slow = "[handlers.orders.transactions]\ninterval = \"2s\"\nmax_uncommitted = 50";
    let http = expect_accepted(&with("delivery = \"transactional\"\ngrants.http = [\"a.example\"]", slow));
    let transactions = http.handlers[0].core_config(1 << 20).transactions.expect("transactional delivery");
    assert_eq!(transactions.max_uncommitted, Some(50));
    assert_eq!(transactions.max_uncommitted_age, Some(Duration::from_secs(4)), "two intervals");
}

#[test]
fn transactions_without_effect_are_warned_about() {
    let table = "[handlers.orders.transactions]\ninterval = \"1s\"";
    let warnings = expect_accepted(&with("", table)).warnings;
    let expected = "`transactions` has no effect: `delivery` is not \"transactional\"";
    assert!(warnings.iter().any(|warning| warning.contains(expected)), "{warnings:?}");
}

#[test]
fn what_transactions_exclude_is_refused() {
    let delivery = "delivery = \"transactional\"";
    let transactions = |setting| with(delivery, &format!("[handlers.orders.transactions]\n{setting}"));
    expect_refused(
        &with(delivery, "[kafka.consumer]\n\"isolation.level\" = \"read_uncommitted\""),
        &["etc/keylane.toml:8:", "reads with `isolation.level=read_committed`"],
    );
    expect_refused(&transactions("interval = \"1ms\""), &["must be between 10ms and 1m, not 1ms"]);
    expect_refused(&transactions("max_uncommitted = 0"), &["must be between 1 and"]);
    expect_refused(&transactions("max_uncommitted_age = \"150ms\""), &["less than two intervals"]);
    expect_refused(&transactions("timeout = \"1s\""), &["must be between 5s and 15m, not 1s"]);
    expect_refused(
        &with(
            delivery,
            "[handlers.orders.transactions]\non_refused_output = \"dead-letter\"\n[handlers.orders.retry]\non_exhausted = \"skip\"",
        ),
        &["refused outputs can't be dead-lettered: `retry.on_exhausted` is not \"dlq\""],
    );
    expect_refused(&with("", "[runtime]\ninstance = \"a/b\""), &["`instance` contains `/`"]);
    expect_refused(
        &with("delivery = \"once\"", ""),
        &["unknown variant `once`, expected `at-least-once` or `transactional`"],
    );
}
