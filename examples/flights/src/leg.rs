//! One leg of a plane, and its classification.

use serde::{Deserialize, Serialize};

/// The statistics of the US Bureau of Transportation Statistics for one leg. Delays are in minutes,
/// and negative if the plane was early. Times of day are local, and 517 means 5:17.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Leg<'a> {
    pub(crate) carrier: &'a str,
    pub(crate) flight: u32,
    pub(crate) origin: &'a str,
    pub(crate) dest: &'a str,
    /// Miles.
    pub(crate) distance: u32,
    /// The scheduled departure, in UTC.
    pub(crate) scheduled: &'a str,
    pub(crate) dep_time: Option<u32>,
    pub(crate) dep_delay: Option<i32>,
    pub(crate) arr_time: Option<u32>,
    pub(crate) arr_delay: Option<i32>,
    /// Minutes.
    pub(crate) air_time: Option<u32>,
}

/// The punctuality of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    OnTime,
    Late,
    VeryLate,
    Diverted,
    Cancelled,
}

impl Leg<'_> {
    /// A leg is late if it arrives 15 minutes late or more, as the Bureau defines it.
    pub(crate) fn kind(&self) -> Kind {
        match (self.dep_time, self.arr_delay) {
            (None, _) => Kind::Cancelled,
            (Some(_), None) => Kind::Diverted,
            (Some(_), Some(120..)) => Kind::VeryLate,
            (Some(_), Some(15..)) => Kind::Late,
            (Some(_), Some(_)) => Kind::OnTime,
        }
    }

    /// The reasons why this row is implausible. Empty for most rows.
    pub(crate) fn oddities(&self) -> Vec<&'static str> {
        let lost = self.arr_delay.zip(self.dep_delay).map(|(arrival, departure)| arrival - departure);
        // Miles per hour, without rounding: `distance / (air_time / 60)` compared by products.
        let covered = u64::from(self.distance) * 60;
        let faster = |limit| self.air_time.is_some_and(|minutes| covered > limit * u64::from(minutes));
        let slower = |limit| self.air_time.is_some_and(|minutes| covered < limit * u64::from(minutes));
        let rules = [
            ("arrived-without-flying", self.arr_time.is_some() && self.air_time.is_none()),
            ("left-too-early", self.dep_delay.is_some_and(|delay| delay < -20)),
            ("lost-on-the-way", lost.is_some_and(|minutes| minutes > 120)),
            ("too-slow", slower(120)),
            ("too-fast", faster(560)),
        ];
        rules.into_iter().filter(|&(_, broken)| broken).map(|(reason, _)| reason).collect()
    }

    /// "UA1545 EWR-IAH"
    pub(crate) fn name(&self) -> String {
        format!("{}{} {}-{}", self.carrier, self.flight, self.origin, self.dest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEG: Leg<'_> = Leg {
        carrier: "UA",
        flight: 1545,
        origin: "EWR",
        dest: "IAH",
        distance: 1400,
        scheduled: "2013-01-01T10:15Z",
        dep_time: Some(517),
        dep_delay: Some(2),
        arr_time: Some(830),
        arr_delay: Some(11),
        air_time: Some(227),
    };

    #[test]
    fn kinds_change_at_15_and_120_minutes() {
        let arriving = |minutes| Leg { arr_delay: minutes, ..LEG }.kind();
        assert_eq!(arriving(Some(-30)), Kind::OnTime);
        assert_eq!(arriving(Some(14)), Kind::OnTime);
        assert_eq!(arriving(Some(15)), Kind::Late);
        assert_eq!(arriving(Some(119)), Kind::Late);
        assert_eq!(arriving(Some(120)), Kind::VeryLate);
        assert_eq!(arriving(None), Kind::Diverted);
        assert_eq!(Leg { dep_time: None, arr_delay: None, ..LEG }.kind(), Kind::Cancelled);
    }

    #[test]
    fn oddities_begin_beyond_their_limits() {
        assert_eq!(LEG.oddities(), <[&str; 0]>::default());
        let cases = [
            (Leg { air_time: None, arr_delay: None, ..LEG }, vec!["arrived-without-flying"]),
            (Leg { dep_delay: Some(-20), ..LEG }, vec![]),
            (Leg { dep_delay: Some(-21), ..LEG }, vec!["left-too-early"]),
            (Leg { arr_delay: Some(122), ..LEG }, vec![]),
            (Leg { arr_delay: Some(123), ..LEG }, vec!["lost-on-the-way"]),
            (Leg { air_time: Some(150), ..LEG }, vec![]),
            (Leg { air_time: Some(149), ..LEG }, vec!["too-fast"]),
            (Leg { air_time: Some(700), ..LEG }, vec![]),
            (Leg { air_time: Some(701), ..LEG }, vec!["too-slow"]),
            (
                Leg { dep_delay: Some(-30), arr_delay: Some(100), ..LEG },
                vec!["left-too-early", "lost-on-the-way"],
            ),
        ];
        for (leg, reasons) in cases {
            assert_eq!(leg.oddities(), reasons, "{leg:?}");
        }
    }
}
