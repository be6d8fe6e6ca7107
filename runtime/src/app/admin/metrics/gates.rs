//! Metrics of gates and of the detection of duplicates. Handlers without them have none.

use std::fmt;

use crate::status::{GateStatus, HandlerStatus};

use super::families::{Families, count, labels};
use super::{Metrics, owned};

impl Metrics {
    pub(super) fn write_gates(&self, families: &mut Families<'_>) -> fmt::Result {
        type Value = fn(&GateStatus) -> u64;
        let gaps = self.gated().flat_map(|(handler, gate)| {
            let outcomes = [("passed", gate.gaps_passed), ("dead_lettered", gate.gaps_dead_lettered)];
            outcomes.map(|(outcome, gaps)| {
                (vec![("handler", handler.handler.as_str()), ("outcome", outcome)], gaps)
            })
        });
        families.counter(("keylane_gate_gaps", "Gaps that were closed, by outcome."), gaps)?;
        let counters: [(&str, &str, Value); 6] = [
            (
                "keylane_gate_late_delivered",
                "Events that were handled although they came too late for their place in the order.",
                |gate| gate.late_delivered,
            ),
            (
                "keylane_gate_holes_forgotten",
                "Ranges of missing order values that were forgotten, because a key had too many.",
                |gate| gate.holes_forgotten,
            ),
            (
                "keylane_gate_windows_released_early",
                "Releases of waiting events before their time, because too many waited.",
                |gate| gate.windows_released_early,
            ),
            (
                "keylane_gate_keys_forgotten",
                "Keys that were forgotten, because `marks_memory` was full.",
                |gate| gate.forgotten_keys,
            ),
            (
                "keylane_gate_ids_forgotten",
                "Ids that were forgotten before `duplicates.window` had passed, because their key had too many.",
                |gate| gate.forgotten_ids,
            ),
            ("keylane_gate_events_without_id", "Events without an id, which are never duplicates.", |gate| {
                gate.without_id
            }),
        ];
        for (name, help, value) in counters {
            families
                .counter((name, help), self.gated().map(|(handler, gate)| (labels(handler), value(gate))))?;
        }
        let gauges: [(&str, &str, Value); 2] = [
            ("keylane_gate_keys", "Keys that are remembered in memory.", |gate| gate.remembered_keys),
            ("keylane_gate_keys_bytes", "Memory for what is remembered of keys.", |gate| {
                gate.remembered_bytes
            }),
        ];
        for (name, help, value) in gauges {
            families
                .size((name, help), self.gated().map(|(handler, gate)| (labels(handler), value(gate))))?;
        }
        let parked = self.gated().map(|(handler, _)| {
            let parked: u64 = owned(handler).iter().map(|partition| partition.parked).sum();
            (labels(handler), count(parked))
        });
        families.gauge(
            ("keylane_gate_parked_events", "Events that wait for lower order values, or for their window."),
            parked,
        )?;
        let waits = self.with_view().filter(|(_, view)| view.gates.is_some());
        families.histogram(
            (
                "keylane_gate_wait_seconds",
                "The time for which a window held an event back, by the time of records.",
            ),
            1e3,
            waits.map(|(handler, view)| (labels(handler), view.core.times.gate_wait)),
        )
    }

    fn gated(&self) -> impl Iterator<Item = (&HandlerStatus, &GateStatus)> {
        self.status.handlers.iter().filter_map(|handler| Some((handler, handler.gate.as_ref()?)))
    }
}
