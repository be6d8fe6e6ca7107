//! Durable memory of gates, which needs transactional delivery.

use super::super::super::problem::Problems;
use super::super::super::written_gate::{GateMemory, GateRule};
use super::super::super::written_handler::Handler;
use super::super::super::written_transactions::Delivery;
use super::memory_of;

/// Transactional delivery is never switched on silently: it changes what readers of the outputs see, and when.
pub(super) fn needs_transactions(name: &str, handler: &Handler, problems: &mut Problems<'_, '_>) {
    let Some(gate) = handler.gate.as_ref().filter(|gate| memory_of(gate) == GateMemory::Durable) else {
        return;
    };
    if handler.delivery == Delivery::Transactional {
        return;
    }
    let default = if gate.memory.is_none() { ", the default," } else { "" };
    let transactional = format!(
        "add `delivery = \"transactional\"` to `[handlers.{name}]`: marks are then committed together with the outputs, \
         which readers with `isolation.level=read_committed` see up to 100 ms later"
    );
    let remedy = if gate.rule == GateRule::Consecutive {
        transactional
    } else {
        format!(
            "{transactional}; or set `memory = \"session\"` in `[handlers.{name}.gate]`: marks are then forgotten when a \
             partition gets another owner"
        )
    };
    problems
        .add(
            &["handlers", name, "gate", "memory"],
            format!("`memory = \"durable\"`{default} needs transactional delivery"),
        )
        .remedy(remedy);
}

/// Ids are remembered in memory only.
pub(super) fn refuse_durable_ids(name: &str, handler: &Handler, problems: &mut Problems<'_, '_>) {
    let is_durable = |memory: GateMemory| memory == GateMemory::Durable;
    if handler.duplicates.as_ref().is_some_and(|duplicates| is_durable(duplicates.memory)) {
        problems
            .add(
                &["handlers", name, "duplicates", "memory"],
                "`memory = \"durable\"`, the default, is not available yet",
            )
            .remedy(format!("set `memory = \"session\"` in `[handlers.{name}.duplicates]`"));
    }
}
