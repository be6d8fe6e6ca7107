//! Order values: where they are, whose they are, and how far ahead they may be.

use std::time::Duration;

use keylane_core::MaxAhead as CoreMaxAhead;

use super::super::super::checked::OrderBy;
use super::super::super::event_field::EventField;
use super::super::super::gate_values::MaxAhead;
use super::super::super::problem::Problems;
use super::super::super::written_gate::{GateRule, OnGap, OrderFormat};
use super::super::ranges;
use super::InGate;

/// The default of `max_ahead` for times.
const AHEAD_OF_CLOCK: Duration = Duration::from_hours(1);

/// Returns whether order values are times, in nanoseconds.
pub(super) fn is_time(by: &OrderBy) -> bool {
    match by {
        OrderBy::Timestamp => true,
        OrderBy::Field(_, format) => match format {
            OrderFormat::Integer | OrderFormat::Int64 => false,
            OrderFormat::UnixS
            | OrderFormat::UnixMs
            | OrderFormat::UnixUs
            | OrderFormat::UnixNs
            | OrderFormat::Rfc3339 => true,
        },
    }
}

impl InGate<'_> {
    /// Returns the order value of events; `None`: it is invalid.
    pub(super) fn by(&self, problems: &mut Problems<'_, '_>) -> Option<OrderBy> {
        let (by, format) = (&self.gate.by, self.gate.format);
        if by == "timestamp" {
            if format.is_some() {
                problems
                    .add(&self.at("format"), "`by = \"timestamp\"` has no format")
                    .remedy("remove `format`");
            }
            return Some(OrderBy::Timestamp);
        }
        let format = format.unwrap_or_default();
        let Some(field) = EventField::parse(by) else {
            problems
                .add(&self.at("by"), format!("`{by}` is not an order value"))
                .remedy("write \"header:NAME\", \"json:/pointer\" or \"timestamp\"");
            return None;
        };
        if format == OrderFormat::Int64 && matches!(field, EventField::Json(_)) {
            problems
                .add(&self.at("format"), "`int64` is eight bytes, and JSON has no bytes")
                .remedy("use \"integer\"");
        }
        Some(OrderBy::Field(field, format))
    }

    /// Returns the gate key; `None`: that of the lane.
    pub(super) fn key(&self, problems: &mut Problems<'_, '_>) -> Option<EventField> {
        let key = &self.gate.key;
        let field = EventField::parse(key);
        if field.is_none() && key != "lane" {
            problems
                .add(&self.at("key"), format!("`{key}` is not a gate key"))
                .remedy("write \"lane\", \"header:NAME\" or \"json:/pointer\"");
        }
        field
    }

    /// Returns the limit of order values; `None`: any.
    pub(super) fn max_ahead(&self, is_time: bool, problems: &mut Problems<'_, '_>) -> Option<CoreMaxAhead> {
        let path = self.at("max_ahead");
        match (self.gate.max_ahead, is_time) {
            (None, true) => Some(CoreMaxAhead::OfClock(AHEAD_OF_CLOCK)),
            (Some(MaxAhead::Off), true) => None,
            (None | Some(MaxAhead::Off), false) => {
                self.max_ahead_may_be_off(problems);
                None
            }
            (Some(MaxAhead::Time(time)), true) => {
                Some(CoreMaxAhead::OfClock(ranges::time(problems, &path, time, ranges::AHEAD_OF_CLOCK)))
            }
            (Some(MaxAhead::Values(values)), false) => {
                Some(CoreMaxAhead::OfMark(ranges::whole(problems, &path, values, ranges::AHEAD_OF_MARK)))
            }
            (Some(MaxAhead::Values(_)), true) => {
                problems.add(&path, "`max_ahead` of a time is a duration").remedy("write it like \"1h\"");
                None
            }
            (Some(MaxAhead::Time(_)), false) => {
                problems
                    .add(&path, "`max_ahead` of values that are not times is a number")
                    .remedy("write how far above the highest value that has passed a value may be");
                None
            }
        }
    }

    /// Without a limit, one absurd value would move the mark of its key past all others.
    fn max_ahead_may_be_off(&self, problems: &mut Problems<'_, '_>) {
        let needed_by = match self.gate.rule {
            GateRule::Window => "`rule = \"window\"`",
            GateRule::Consecutive if self.gate.on_gap == Some(OnGap::Pass) => "`on_gap = \"pass\"`",
            GateRule::Consecutive | GateRule::Newest => return,
        };
        problems
            .add(
                &self.at("max_ahead"),
                format!("{needed_by} needs `max_ahead`: after one absurd value, all other values of its key would come too late"),
            )
            .remedy("set `max_ahead` to a number that no gap between two values exceeds");
    }
}
