//! Every flight that left New York City in the first quarter of 2013, one event per leg, keyed by the
//! plane's tail number. Late legs go to the target `delays`; implausible rows go to
//! `oddities`. The module `leg` defines late and odd.

mod leg;

use keylane_sdk::{Effects, Event, Result};
use serde::Serialize;

use crate::leg::{Kind, Leg};

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let leg: Leg<'_> = event.json()?;
    let source = Source { partition: event.partition(), offset: event.offset() };

    let kind = leg.kind();
    if let (Kind::Late | Kind::VeryLate, Some(minutes)) = (kind, leg.arr_delay) {
        let delay = Delay { scheduled: leg.scheduled, leg: leg.name(), kind, minutes, source };
        effects.emit("delays").key(event.key()).json(&delay)?;
    }

    let reasons = leg.oddities();
    if !reasons.is_empty() {
        let oddity = Oddity { reasons, kind, leg, source };
        effects.emit("oddities").key(event.key()).json(&oddity)?;
    }
    Ok(())
}
keylane_sdk::handler!(handle);

/// An output to `delays`.
#[derive(Serialize)]
struct Delay<'a> {
    scheduled: &'a str,
    leg: String,
    kind: Kind,
    minutes: i32,
    source: Source,
}

/// An output to `oddities`: the leg as received, and the reasons.
#[derive(Serialize)]
struct Oddity<'a> {
    reasons: Vec<&'static str>,
    kind: Kind,
    leg: Leg<'a>,
    source: Source,
}

/// The position of the leg in the input. All legs of a plane are in one partition, so the offsets
/// of a plane's outputs increase if and only if the order was kept.
#[derive(Clone, Copy, Serialize)]
struct Source {
    partition: u32,
    offset: u64,
}

#[cfg(test)]
mod tests {
    use keylane_sdk::testing::{self, Verdict};

    use super::*;

    const LATE: &str = r#"{"carrier":"AA","flight":1141,"origin":"JFK","dest":"MIA","distance":1089,
        "scheduled":"2013-01-01T10:40Z","dep_time":542,"dep_delay":2,"arr_time":923,"arr_delay":33,"air_time":160}"#;

    #[test]
    fn a_late_leg_is_published_under_its_plane() {
        let verdict = testing::event().key("N619AA").value(LATE).partition(3).offset(17).run(handle);
        let [delay] = verdict.outputs() else { panic!("one output: {verdict:?}") };
        assert_eq!((delay.target.as_str(), delay.key.as_deref()), ("delays", Some(&b"N619AA"[..])));
        assert_eq!(
            delay.text(),
            r#"{"scheduled":"2013-01-01T10:40Z","leg":"AA1141 JFK-MIA","kind":"late","minutes":33,"source":{"partition":3,"offset":17}}"#
        );
    }

    #[test]
    fn a_leg_on_time_publishes_nothing() {
        let value = LATE.replace("\"arr_delay\":33", "\"arr_delay\":14");
        assert_eq!(testing::event().key("N619AA").value(value).run(handle), Verdict::Done(vec![]));
    }

    #[test]
    fn an_implausible_late_leg_is_published_to_both() {
        let value = LATE.replace("\"air_time\":160", "\"air_time\":16");
        let verdict = testing::event().key("N619AA").value(value).run(handle);
        let targets: Vec<_> = verdict.outputs().iter().map(|output| output.target.as_str()).collect();
        assert_eq!(targets, ["delays", "oddities"]);
        assert!(verdict.outputs().iter().any(|output| output.text().contains(r#""reasons":["too-fast"]"#)));
    }

    #[test]
    fn an_invalid_leg_is_rejected() {
        let verdict = testing::event().key("N619AA").value("delayed").run(handle);
        assert!(matches!(verdict, Verdict::Reject { reason } if reason.contains("JSON")));
    }
}
