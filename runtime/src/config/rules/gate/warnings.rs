//! Warnings about gates and the detection of duplicates.

use keylane_core::{GateRule, OnExhausted};

use super::super::super::checked::HandlerConfig;
use super::super::super::problem::Problems;

/// Warns about consequences that are easily overlooked.
pub(in crate::config::rules) fn warn(handler: &HandlerConfig, problems: &mut Problems<'_, '_>) {
    let name = handler.name.as_str();
    let gate = handler.order.gate.as_ref();
    let is_durable = gate.is_some_and(|gate| gate.durable);
    match gate.map(|gate| gate.rule.rule) {
        Some(GateRule::Newest(_)) if !is_durable => problems.warn(
            &["handlers", name, "gate", "memory"],
            "with `memory = \"session\"`, the newest values are forgotten when a partition gets another owner: older states that \
             still come are then delivered until a newer one comes, and the last of them may stay",
        ),
        Some(GateRule::Consecutive(_)) if handler.retry.on_exhausted != OnExhausted::Stop => problems.warn(
            &["handlers", name, "gate", "rule"],
            "after an event that can't be handled, the next one of its key runs: set `retry.on_exhausted = \"stop\"` if it must not",
        ),
        Some(GateRule::Consecutive(_) | GateRule::Newest(_) | GateRule::Window(_)) | None => {}
    }
    if handler.order.duplicates.is_some() {
        problems.warn(
            &["handlers", name, "duplicates", "memory"],
            "with `memory = \"session\"`, ids are forgotten when a partition gets another owner: what a producer sends twice \
             around that time is delivered twice",
        );
    }
}
