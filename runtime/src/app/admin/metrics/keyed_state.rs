//! Metrics of keyed state. Handlers without it have none.

use std::fmt;

use crate::status::{HandlerStatus, KeyedStateStatus};

use super::Metrics;
use super::families::{Families, labels};

impl Metrics {
    pub(super) fn write_keyed_state(&self, families: &mut Families<'_>) -> fmt::Result {
        type Value = fn(&KeyedStateStatus) -> u64;
        let counters: [(&str, &str, Value); 3] = [
            ("keylane_state_restores", "Partitions whose keyed state was restored.", |state| state.restores),
            (
                "keylane_state_restored_records",
                "Records of changelogs that were read to restore keyed state.",
                |state| state.restored_records,
            ),
            (
                "keylane_state_forgotten",
                "States that were not changed for `forget_after` and were deleted.",
                |state| state.forgotten,
            ),
        ];
        for (name, help, value) in counters {
            let values = self.keyed().map(|(handler, state)| (labels(handler), value(state)));
            families.counter((name, help), values)?;
        }
        let gauges: [(&str, &str, Value); 4] = [
            (
                "keylane_state_restoring_partitions",
                "Partitions whose keyed state is being restored. They are not read meanwhile.",
                |state| state.restoring.len() as u64,
            ),
            (
                "keylane_state_failed_partitions",
                "Partitions whose file of keyed state can't be read or written.",
                |state| state.failed.len() as u64,
            ),
            (
                "keylane_state_uncommitted",
                "Changed states that no committed transaction contains yet.",
                |state| state.uncommitted,
            ),
            ("keylane_state_loading_calls", "Calls that wait for a state from a file.", |state| {
                state.loading_calls
            }),
        ];
        for (name, help, value) in gauges {
            let values = self.keyed().map(|(handler, state)| (labels(handler), value(state)));
            families.size((name, help), values)?;
        }
        Ok(())
    }

    fn keyed(&self) -> impl Iterator<Item = (&HandlerStatus, &KeyedStateStatus)> {
        self.with_view().filter_map(|(handler, view)| Some((handler, view.keyed.as_ref()?)))
    }
}
