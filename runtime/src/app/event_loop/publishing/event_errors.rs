//! The errors of events that no guest has received, for their dead letters.

use keylane_core::Reason;

use crate::admit::{ArenaRecord, OrderValueRule};
use crate::config::{HandlerConfig, OrderBy};

/// The errors of events without a call.
pub(super) struct EventErrors {
    /// The order values of events, with a gate.
    order_values: Option<OrderValueRule>,
    no_key: String,
    no_order_value: String,
}

impl EventErrors {
    pub(super) fn new(handler: &HandlerConfig) -> EventErrors {
        EventErrors {
            order_values: handler.order.gate.as_ref().map(|gate| OrderValueRule::new(&gate.by)),
            no_key: format!("no lane key: `{}` matches nothing in the event", handler.lanes.lane_key),
            no_order_value: no_order_value(handler),
        }
    }

    /// Returns the error of an event that can't be handled for this reason; `None`: a guest has received it.
    pub(super) fn error(&self, reason: Reason) -> Option<&str> {
        match reason {
            Reason::NoLaneKey => Some(&self.no_key),
            Reason::NoOrderValue => Some(&self.no_order_value),
            Reason::OrderValueAhead => Some("the order value is further ahead than `gate.max_ahead`"),
            Reason::BelowFirst => Some("the order value is below `gate.first`"),
            Reason::Gap => Some("order values before that of the event are missing"),
            Reason::Late => Some("events with higher order values were handled before"),
            Reason::RetriesExhausted
            | Reason::Rejected
            | Reason::TooOld
            | Reason::OutputRejected
            | Reason::Fault(_) => None,
        }
    }

    /// Returns the order value of an event, if its place in the order is the reason of its dead letter.
    pub(super) fn order_value(
        &self,
        reason: Reason,
        stored: &ArenaRecord<'_>,
        timestamp: i64,
    ) -> Option<i64> {
        let by_order =
            matches!(reason, Reason::OrderValueAhead | Reason::BelowFirst | Reason::Gap | Reason::Late);
        self.order_values.as_ref().filter(|_| by_order)?.value(stored, timestamp)
    }
}

fn no_order_value(handler: &HandlerConfig) -> String {
    let Some(gate) = &handler.order.gate else { return String::new() };
    let by = match &gate.by {
        OrderBy::Timestamp => "the record has no timestamp".to_owned(),
        OrderBy::Field(field, _) => format!("`{field}` is missing, or can't be read as `gate.format`"),
    };
    let key =
        gate.key.as_ref().map_or(String::new(), |key| format!(", or `{key}`, the gate key, is missing"));
    format!("no order value: {by}{key}")
}
