//! Computes for the number of microseconds in the value of the event, without waiting. Then emits to the target `out`, with the
//! key of the event, when it began and when it ended: the text `BEGIN END`, in nanoseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keylane_sdk::{Effects, Event, OrFail, Result};

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let work = Duration::from_micros(event.text()?.parse()?);
    let begin = since_1970().or_reject("the clock is before 1970")?;
    let end = loop {
        let now = since_1970().or_reject("the clock is before 1970")?;
        if now >= begin + work {
            break now;
        }
        std::hint::spin_loop();
    };
    effects.emit("out").key(event.key()).value(format!("{} {}", begin.as_nanos(), end.as_nanos()));
    Ok(())
}
keylane_sdk::handler!(handle);

/// The clock that all instances of a process share. That of an `Instant` begins with its instance.
#[expect(clippy::disallowed_methods, reason = "the times of calls are what this handler reports")]
fn since_1970() -> Option<Duration> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing;

    #[test]
    fn the_value_is_the_duration() {
        let verdict = testing::event().key("k").value("200").run(handle);
        let [output] = verdict.outputs() else { panic!("one output: {verdict:?}") };
        let times: Vec<u128> = output.text().split(' ').map(|time| time.parse().expect("a number")).collect();
        assert!(times[1] - times[0] >= 200_000, "{times:?}");
    }
}
