//! Refuses durable memory, which this version does not have, and `consecutive`, which needs it.

use super::super::super::problem::Problems;
use super::super::super::written_gate::{GateMemory, GateRule};
use super::super::super::written_handler::Handler;
use super::memory_of;

pub(super) fn refuse_durable_memory(name: &str, handler: &Handler, problems: &mut Problems<'_, '_>) {
    if let Some(gate) = &handler.gate {
        if gate.rule == GateRule::Consecutive {
            problems
                .add(
                    &["handlers", name, "gate", "rule"],
                    "`rule = \"consecutive\"` is not available yet: it needs durable memory",
                )
                .remedy("use \"newest\" or \"window\"");
        } else if memory_of(gate) == GateMemory::Durable {
            refuse(name, "gate", gate.memory, problems);
        }
    }
    if let Some(duplicates) = &handler.duplicates
        && duplicates.memory == GateMemory::Durable
    {
        refuse(name, "duplicates", None, problems);
    }
}

fn refuse(name: &str, table: &str, written: Option<GateMemory>, problems: &mut Problems<'_, '_>) {
    let default = if written.is_none() { ", the default," } else { "" };
    problems
        .add(
            &["handlers", name, table, "memory"],
            format!("`memory = \"durable\"`{default} is not available yet"),
        )
        .remedy(format!("set `memory = \"session\"` in `[handlers.{name}.{table}]`"));
}
