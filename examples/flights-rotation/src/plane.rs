//! The state of a plane, and the rule for knock-on delays.

use serde::{Deserialize, Serialize};

use crate::leg::Leg;

/// A departure or an arrival is late from 15 minutes on, as the Bureau of Transportation Statistics defines it.
const LATE: i64 = 15;
/// The time between two scheduled departures, in minutes, from which on a late arrival makes no difference: the plane
/// has stood for hours, usually overnight.
const SAME_DAY: i64 = 12 * 60;

/// What is known of a plane after a leg. It is the state of the plane's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plane {
    last: Flown,
    /// The number of knock-on delays up to the last leg, without a leg in between that had none.
    chain: u32,
    totals: Totals,
}

/// A leg that was flown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Flown {
    name: String,
    /// The scheduled departure, in minutes since 1970.
    scheduled: i64,
    dep_delay: i64,
    arr_delay: Option<i64>,
    air_time: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) legs: u32,
    pub(crate) knock_ons: u32,
    /// The sum of their `carried`, in minutes.
    pub(crate) carried: i64,
}

/// A leg that left late because its plane had arrived late.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnockOn {
    pub(crate) delay: i64,
    pub(crate) carried: i64,
    pub(crate) after: String,
    pub(crate) chain: u32,
    pub(crate) totals: Totals,
}

/// Updates the state of a plane with a leg that was scheduled at this minute since 1970. A leg without a departure was
/// cancelled: the plane stays where it was.
pub(crate) fn fly(plane: &mut Option<Plane>, leg: &Leg<'_>, scheduled: i64) -> Option<KnockOn> {
    let flown = Flown {
        name: leg.name(),
        scheduled,
        dep_delay: leg.dep_delay?,
        arr_delay: leg.arr_delay,
        air_time: leg.air_time,
    };
    let mut totals = plane.as_ref().map(|plane| plane.totals).unwrap_or_default();
    totals.legs += 1;
    let carried =
        plane.as_ref().and_then(|plane| carried(&plane.last, &flown).map(|minutes| (plane, minutes)));
    let knock_on = carried.map(|(plane, carried)| {
        totals.knock_ons += 1;
        totals.carried += carried;
        let after = plane.last.name.clone();
        KnockOn { delay: flown.dep_delay, carried, after, chain: plane.chain + 1, totals }
    });
    let chain = knock_on.as_ref().map_or(0, |knock_on| knock_on.chain);
    *plane = Some(Plane { last: flown, chain, totals });
    knock_on
}

/// Returns the minutes that came from the leg before, at most. `None` if the delay is no knock-on delay.
fn carried(before: &Flown, leg: &Flown) -> Option<i64> {
    let arrived_late = before.arr_delay.filter(|minutes| *minutes >= LATE)?;
    let landed = before.scheduled + before.dep_delay + before.air_time?;
    let same_day = leg.scheduled - before.scheduled <= SAME_DAY;
    // Otherwise the rows contradict each other: one of them has the tail number of another plane.
    let possible = leg.scheduled + leg.dep_delay >= landed;
    (leg.dep_delay >= LATE && same_day && possible).then(|| arrived_late.min(leg.dep_delay))
}
