//! `[handlers.NAME.retry]` and `[handlers.NAME.dead_letters]`.

use std::time::Duration;

use super::super::attempts::Attempts;
use super::super::checked::DeadLettersConfig;
use super::super::problem::Problems;
use super::super::written_handler::Handler;
use super::super::written_retry::{self as written, DeadLetterHeaders, OnExhausted, Scope};
use super::{gate, names, ranges};

/// Checks the retry policy.
pub(super) fn retry(
    name: &str,
    retry: &written::Retry,
    problems: &mut Problems<'_, '_>,
) -> keylane_core::RetryPolicy {
    let at = |field| ["handlers", name, "retry", field];
    let initial =
        ranges::time(problems, &at("initial_interval"), retry.initial_interval, ranges::RETRY_INTERVAL);
    let longest = ranges::time(problems, &at("max_interval"), retry.max_interval, ranges::RETRY_INTERVAL);
    if longest < initial {
        let (initial, longest) = (retry.initial_interval, retry.max_interval);
        problems
            .add(
                &at("initial_interval"),
                format!(
                    "`handlers.{name}.retry.initial_interval` ({initial}) is above `max_interval` ({longest})"
                ),
            )
            .remedy("raise `max_interval`, or lower `initial_interval`");
    }
    keylane_core::RetryPolicy {
        max_attempts: match retry.max_attempts {
            Attempts::Limited(number) => {
                ranges::whole(problems, &at("max_attempts"), number, ranges::MAX_ATTEMPTS)
            }
            Attempts::Unlimited => keylane_core::UNLIMITED_ATTEMPTS,
        },
        initial_interval: initial,
        max_interval: longest,
        multiplier: ranges::number(problems, &at("multiplier"), retry.multiplier, ranges::RETRY_MULTIPLIER),
        jitter: ranges::number(problems, &at("jitter"), retry.jitter, ranges::RETRY_JITTER),
        seed: 0, // chosen when the process starts
        max_record_age: retry.max_record_age.map(|age| age.0).filter(|age| *age < Duration::MAX),
        on_exhausted: match retry.on_exhausted {
            OnExhausted::Dlq => keylane_core::OnExhausted::DeadLetter,
            OnExhausted::Skip => keylane_core::OnExhausted::Skip,
            OnExhausted::Stop => keylane_core::OnExhausted::Stop,
        },
        scope: match retry.scope {
            Scope::Key => keylane_core::RetryScope::Key,
            Scope::Partition => keylane_core::RetryScope::Partition,
        },
    }
}

/// Checks the dead-letter settings; `None`: no dead letters are published.
pub(super) fn dead_letters(
    name: &str,
    handler: &Handler,
    problems: &mut Problems<'_, '_>,
) -> Option<DeadLettersConfig> {
    let at = |field| ["handlers", name, "dead_letters", field];
    let dead_letters = &handler.dead_letters;
    let alert_after_redrives = ranges::whole(
        problems,
        &at("alert_after_redrives"),
        dead_letters.alert_after_redrives,
        ranges::ALERT_AFTER_REDRIVES,
    );
    if handler.retry.on_exhausted != OnExhausted::Dlq && !gate::publishes_dead_letters(handler) {
        if *dead_letters != written::DeadLetters::default() {
            let text = "`dead_letters` has no effect: `retry.on_exhausted` is not \"dlq\"";
            problems.warn(&["handlers", name, "dead_letters"], text);
        }
        return None;
    }
    let topics: Vec<String> =
        handler.topics.iter().map(|topic| dead_letters.topic.replace("{topic}", topic)).collect();
    if dead_letters.topic.replace("{topic}", "").contains(['{', '}']) {
        problems
            .add(&at("topic"), format!("`{}` is not a valid topic name", dead_letters.topic))
            .remedy("`{topic}`, the name of the event's own topic, is the only placeholder");
        return None;
    }
    for (topic, _) in topics.iter().zip(&handler.topics).filter(|(_, input)| names::is_topic(input)) {
        names::topic(problems, &at("topic"), topic);
        if handler.topics.contains(topic) {
            problems
                .add(
                    &at("topic"),
                    format!(
                        "`{topic}` is an input of the handler `{name}`: it would read its own dead letters"
                    ),
                )
                .remedy("use another topic, for example \"{topic}.dlq\"");
        }
    }
    Some(DeadLettersConfig {
        topics,
        spring: dead_letters.headers == DeadLetterHeaders::Spring,
        alert_after_redrives,
    })
}
