//! The names of the reasons of dead letters.

use keylane_core::{Fault, Reason};

/// The names of all reasons.
pub(in crate::app::event_loop) const REASON_NAMES: [&str; 17] = [
    "retries-exhausted",
    "rejected",
    "too-old",
    "output-rejected",
    "no-key",
    "no-order-value",
    "order-value-ahead",
    "below-first",
    "gap",
    "late",
    "trap",
    "timeout",
    "cpu",
    "memory",
    "stack",
    "limit",
    "contract",
];

/// Returns the name of a reason in headers and log lines.
pub(in crate::app::event_loop) fn name_of(reason: Reason) -> &'static str {
    match reason {
        Reason::RetriesExhausted => "retries-exhausted",
        Reason::Rejected => "rejected",
        Reason::TooOld => "too-old",
        Reason::OutputRejected => "output-rejected",
        Reason::NoLaneKey => "no-key",
        Reason::NoOrderValue => "no-order-value",
        Reason::OrderValueAhead => "order-value-ahead",
        Reason::BelowFirst => "below-first",
        Reason::Gap => "gap",
        Reason::Late => "late",
        Reason::Fault(Fault::Trap) => "trap",
        Reason::Fault(Fault::Timeout) => "timeout",
        Reason::Fault(Fault::Cpu) => "cpu",
        Reason::Fault(Fault::Memory) => "memory",
        Reason::Fault(Fault::Stack) => "stack",
        Reason::Fault(Fault::Limit) => "limit",
        Reason::Fault(Fault::Contract) => "contract",
    }
}
