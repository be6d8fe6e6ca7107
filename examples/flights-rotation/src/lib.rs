//! Finds the delays that planes carry from leg to leg. An event is a leg, and its key is the tail number of the plane. The
//! state of a plane is its last leg. A leg that left late because its plane had arrived late goes to the target
//! `knock-ons`; the module `plane` defines this rule.

mod leg;
mod plane;

use keylane_sdk::{Effects, Event, OrFail, Result};
use serde::Serialize;

use crate::leg::Leg;
use crate::plane::{Plane, Totals};

fn handle(event: &Event<'_>, plane: &mut Option<Plane>, effects: &mut Effects) -> Result {
    let leg: Leg<'_> = event.json()?;
    let scheduled = leg.scheduled_minute().or_reject("the scheduled departure is no time")?;
    if let Some(knock_on) = plane::fly(plane, &leg, scheduled) {
        let source = Source { partition: event.partition(), offset: event.offset() };
        let output = Output {
            scheduled: leg.scheduled,
            leg: leg.name(),
            delay: knock_on.delay,
            carried: knock_on.carried,
            after: &knock_on.after,
            chain: knock_on.chain,
            plane: knock_on.totals,
            source,
        };
        effects.emit("knock-ons").key(event.key()).json(&output)?;
    }
    Ok(())
}
keylane_sdk::keyed_handler!(handle);

/// An output to `knock-ons`.
#[derive(Serialize)]
struct Output<'a> {
    scheduled: &'a str,
    leg: String,
    /// The delay of the departure, in minutes.
    delay: i64,
    /// How much of it came from the leg before, at most.
    carried: i64,
    after: &'a str,
    /// 1: the leg before had no knock-on delay itself.
    chain: u32,
    /// The totals of the plane up to this leg.
    plane: Totals,
    source: Source,
}

/// The position of the leg in the input.
#[derive(Clone, Copy, Serialize)]
struct Source {
    partition: u32,
    offset: u64,
}

#[cfg(test)]
mod tests;
