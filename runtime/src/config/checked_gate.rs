//! The validated configuration of gates and of the detection of duplicates.

use super::event_field::EventField;
use super::written_gate::OrderFormat;

/// The gate of a handler.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// The rule and its settings.
    pub rule: keylane_core::GateConfig,
    /// The order value of an event.
    pub by: OrderBy,
    /// Whose values are compared with each other: the events of a lane with the same value here; `None`: those of a lane.
    pub key: Option<EventField>,
}

/// The order value of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// The timestamp of the record, in nanoseconds since 1970.
    Timestamp,
    /// A field in a format. Times are nanoseconds since 1970.
    Field(EventField, OrderFormat),
}

/// The detection of duplicates.
#[derive(Clone, Debug)]
pub struct DuplicatesConfig {
    /// The id of an event.
    pub id: EventField,
    /// Which ids are remembered.
    pub limits: keylane_core::Duplicates,
}

/// What a handler remembers of keys.
#[derive(Clone, Debug)]
pub struct OrderConfig {
    /// The gate; `None`: events run in the order of their offsets.
    pub gate: Option<GateConfig>,
    /// The detection of duplicates; `None`: they are not detected.
    pub duplicates: Option<DuplicatesConfig>,
    /// Maximum bytes of what is remembered in memory.
    pub marks_memory: u64,
}

impl OrderConfig {
    /// Returns whether events have an order value or an id.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.gate.is_some() || self.duplicates.is_some()
    }
}
