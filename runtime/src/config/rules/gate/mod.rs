//! `[handlers.NAME.gate]` and `[handlers.NAME.duplicates]`.

mod durable;
mod rules;
mod values;
mod warnings;

use keylane_core::{GateConfig as CoreGate, GateRule as CoreRule, NoValue};

use super::super::checked::{DuplicatesConfig, GateConfig, NoKey, OrderConfig, Ordering};
use super::super::event_field::EventField;
use super::super::problem::Problems;
use super::super::size::HumanSize;
use super::super::written_gate::{Gate, GateEnds, GateMemory, GateRule, NoOrderValue, OnGap, OnLate};
use super::super::written_handler::Handler;
use super::super::written_retry::Scope;
use super::ranges;
pub(super) use warnings::warn;

/// The default of `marks_memory`.
const MARKS_MEMORY: HumanSize = HumanSize::from_mib(8);

/// The gate that is being checked.
struct InGate<'w> {
    /// The name of the handler.
    name: &'w str,
    handler: &'w Handler,
    gate: &'w Gate,
}

impl InGate<'_> {
    /// Returns the path of a setting.
    fn at<'a>(&'a self, setting: &'a str) -> [&'a str; 4] {
        ["handlers", self.name, "gate", setting]
    }
}

/// Checks the gate and the detection of duplicates.
pub(super) fn order(name: &str, handler: &Handler, problems: &mut Problems<'_, '_>) -> OrderConfig {
    if is_used(handler) {
        needs_lanes(name, handler, problems);
    }
    durable::needs_transactions(name, handler, problems);
    durable::refuse_durable_ids(name, handler, problems);
    let gate = handler.gate.as_ref().map(|gate| InGate { name, handler, gate });
    OrderConfig {
        marks_memory: marks_memory(name, handler, problems),
        gate: gate.map(|gate| gate.checked(problems)),
        duplicates: duplicates(name, handler, problems),
    }
}

/// Marks and ids share their memory.
fn marks_memory(name: &str, handler: &Handler, problems: &mut Problems<'_, '_>) -> u64 {
    let of_ids = handler.duplicates.as_ref().and_then(|duplicates| duplicates.marks_memory);
    let (table, size) = match &handler.gate {
        Some(gate) => ("gate", gate.marks_memory),
        None => ("duplicates", of_ids.unwrap_or(MARKS_MEMORY)),
    };
    if handler.gate.is_some() && of_ids.is_some() {
        problems
            .add(
                &["handlers", name, "duplicates", "marks_memory"],
                "marks and ids share their memory, and `gate` has the setting for both",
            )
            .remedy("move `marks_memory` to `gate`");
    }
    ranges::size(problems, &["handlers", name, table, "marks_memory"], size, ranges::MARKS_MEMORY)
}

/// Returns whether events of the handler have an order value or an id.
fn is_used(handler: &Handler) -> bool {
    handler.gate.is_some() || handler.duplicates.is_some()
}

/// Returns what happens to events without a lane key.
pub(super) fn no_key(handler: &Handler) -> NoKey {
    let rejects = is_used(handler) && handler.lanes.ordering == Ordering::Key;
    handler.lanes.no_key.unwrap_or(if rejects { NoKey::Reject } else { NoKey::Spread })
}

/// Returns whether the gate publishes dead letters, even if failed events are not dead-lettered.
pub(super) fn publishes_dead_letters(handler: &Handler) -> bool {
    let Some(gate) = &handler.gate else { return false };
    let on_gap = gate.rule == GateRule::Consecutive && gate.on_gap.unwrap_or_default() == OnGap::Dlq;
    on_gap || (gate.rule != GateRule::Newest && gate.late == Some(OnLate::Dlq))
}

/// Only the events of a lane have an order, so every event needs a lane.
fn needs_lanes(name: &str, handler: &Handler, problems: &mut Problems<'_, '_>) {
    let table = if handler.gate.is_some() { "gate" } else { "duplicates" };
    let lanes = &handler.lanes;
    if lanes.ordering == Ordering::Unordered {
        problems
            .add(
                &["handlers", name, "lanes", "ordering"],
                format!("`{table}` needs lanes: events of the same key must not run at the same time"),
            )
            .remedy("use `ordering = \"key\"` or \"partition\"");
    }
    if lanes.ordering == Ordering::Key && lanes.no_key.is_some_and(|no_key| no_key != NoKey::Reject) {
        problems
            .add(&["handlers", name, "lanes", "no_key"], format!("`{table}` compares the events of a lane key, and events without one would not be compared with those of their key"))
            .remedy("remove `no_key`: its default is \"reject\" here");
    }
}

impl InGate<'_> {
    fn checked(&self, problems: &mut Problems<'_, '_>) -> GateConfig {
        let by = self.by(problems);
        let is_time = by.as_ref().is_some_and(values::is_time);
        self.settings_of_other_rules(problems);
        self.needs_key_scope(problems);
        let rule = match self.gate.rule {
            GateRule::Consecutive => CoreRule::Consecutive(self.consecutive(is_time, problems)),
            GateRule::Newest => CoreRule::Newest(self.newest(is_time, problems)),
            GateRule::Window => CoreRule::Window(self.window(is_time, problems)),
        };
        GateConfig {
            rule: CoreGate {
                rule,
                no_value: match self.gate.no_value {
                    NoOrderValue::Reject => NoValue::Reject,
                    NoOrderValue::Pass => NoValue::Pass,
                },
                max_ahead: self.max_ahead(is_time, problems),
                ends_at_tombstone: self.gate.ends == GateEnds::Tombstone,
            },
            // After a problem, the value is not used.
            by: by.unwrap_or(super::super::checked::OrderBy::Timestamp),
            key: self.key(problems),
            durable: memory_of(self.gate) == GateMemory::Durable,
        }
    }

    /// During a retry of scope `partition` no other event begins, and what an early event waits for may come later.
    fn needs_key_scope(&self, problems: &mut Problems<'_, '_>) {
        let what = match self.gate.rule {
            GateRule::Consecutive => "`rule = \"consecutive\"`",
            GateRule::Window => "`rule = \"window\"`",
            GateRule::Newest if self.gate.latest_first == Some(true) => "`latest_first`",
            GateRule::Newest => return,
        };
        if self.handler.retry.scope == Scope::Partition {
            problems
                .add(
                    &["handlers", self.name, "retry", "scope"],
                    format!(
                        "{what} runs events in another order than that of their offsets, and with `scope = \"partition\"` an event \
                         that is retried blocks the events that others wait for"
                    ),
                )
                .remedy("use `scope = \"key\"`");
        }
    }
}

fn duplicates(name: &str, handler: &Handler, problems: &mut Problems<'_, '_>) -> Option<DuplicatesConfig> {
    let written = handler.duplicates.as_ref()?;
    let at = |setting| ["handlers", name, "duplicates", setting];
    let id = EventField::parse(&written.id);
    if id.is_none() {
        problems
            .add(&at("id"), format!("`{}` is not the id of an event", written.id))
            .remedy("write \"header:NAME\" or \"json:/pointer\"");
    }
    Some(DuplicatesConfig {
        id: id.unwrap_or(EventField::Header(String::new())),
        limits: keylane_core::Duplicates {
            keep: ranges::whole(problems, &at("keep"), written.keep, ranges::DUPLICATES_KEEP),
            window: ranges::time(problems, &at("window"), written.window, ranges::DUPLICATES_WINDOW),
        },
    })
}

/// Returns whether the marks of the handler's gate are kept in a changelog.
pub(super) fn is_durable(handler: &Handler) -> bool {
    handler.gate.as_ref().is_some_and(|gate| memory_of(gate) == GateMemory::Durable)
}

/// Returns where the marks of a gate are kept.
fn memory_of(gate: &Gate) -> GateMemory {
    let default = match gate.rule {
        GateRule::Consecutive | GateRule::Newest => GateMemory::Durable,
        GateRule::Window => GateMemory::Session,
    };
    gate.memory.unwrap_or(default)
}
