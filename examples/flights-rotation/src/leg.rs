//! One leg of a plane, and its times in minutes.

use serde::Deserialize;

/// The fields of an event that are needed here. See the example `flights` for all of them.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Leg<'a> {
    carrier: &'a str,
    flight: u32,
    origin: &'a str,
    dest: &'a str,
    /// The scheduled departure, in UTC: `2013-01-01T10:15Z`.
    pub(crate) scheduled: &'a str,
    /// Minutes, negative if the plane was early. `None`: the leg was cancelled.
    pub(crate) dep_delay: Option<i64>,
    /// Minutes. `None`: the leg was cancelled or diverted, or its arrival was not recorded.
    pub(crate) arr_delay: Option<i64>,
    /// Minutes.
    pub(crate) air_time: Option<i64>,
}

impl Leg<'_> {
    /// "UA1545 EWR-IAH"
    pub(crate) fn name(&self) -> String {
        format!("{}{} {}-{}", self.carrier, self.flight, self.origin, self.dest)
    }

    /// Returns the scheduled departure, in minutes since 1970. `None` if it is no valid time.
    pub(crate) fn scheduled_minute(&self) -> Option<i64> {
        let (date, time) = self.scheduled.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let (hour, minute) = time.split_once(':')?;
        let minute_of_day = hour.parse::<i64>().ok()? * 60 + minute.parse::<i64>().ok()?;
        Some(days_since_1970(year, month, day) * 24 * 60 + minute_of_day)
    }
}

/// The Gregorian calendar, with years that begin in March, so that a leap day is the last day of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_minutes_since_1970() {
        let minute = |scheduled| {
            let leg = Leg {
                carrier: "",
                flight: 0,
                origin: "",
                dest: "",
                scheduled,
                dep_delay: None,
                arr_delay: None,
                air_time: None,
            };
            leg.scheduled_minute()
        };
        assert_eq!(minute("1970-01-01T00:00Z"), Some(0));
        assert_eq!(minute("2000-02-29T23:59Z"), Some(951_868_740 / 60));
        assert_eq!(minute("2013-01-01T10:15Z"), Some(1_357_035_300 / 60));
        assert_eq!(minute("2013-03-01T00:00Z"), Some(1_362_096_000 / 60));
        for invalid in ["", "2013-01-01", "2013-01-01T10:15", "2013-01T10:15Z", "2013-01-01TnoonZ"] {
            assert_eq!(minute(invalid), None, "{invalid}");
        }
    }
}
