//! What the handlers `scripted` and `tally` do with an event: what its headers request, in this order. `sleep-ms`: sleeps for
//! this number of milliseconds. `outputs`: emits this number of outputs (one by default) to the target `out`, each with the
//! key of the event; their values are `0:VALUE`, `1:VALUE` and so on, where VALUE is the value of the event. `fail`: then
//! rejects the event (`reject`), or requests a retry of its first attempt (`once`). The outputs precede the failure, so that
//! tests can check that a failed attempt publishes nothing.

use std::time::Duration;

use keylane_sdk::{Effects, Event, Result, reject, retry};

/// Does what the headers of the event request.
///
/// # Errors
///
/// The failure that they request, or a header or value that is not what it should be.
pub fn follow(event: &Event<'_>, effects: &mut Effects) -> Result {
    if let Some(millis) = number(event, "sleep-ms")? {
        std::thread::sleep(Duration::from_millis(millis));
    }
    for index in 0..number(event, "outputs")?.unwrap_or(1) {
        let value = format!("{index}:{}", event.text()?);
        effects.emit("out").key(event.key()).value(value);
    }
    match event.header("fail") {
        Some(b"reject") => reject("the header requests it"),
        Some(b"once") if event.attempt() == 1 => retry("the header requests it once"),
        _ => Ok(()),
    }
}

fn number(event: &Event<'_>, header: &str) -> Result<Option<u64>> {
    let Some(bytes) = event.header(header) else { return Ok(None) };
    Ok(Some(std::str::from_utf8(bytes)?.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing::{self, Verdict};

    #[test]
    fn the_headers_decide() {
        let event = || testing::event().key("k").value("7 x");
        let outcome = event().header("outputs", "2").header("sleep-ms", "0").run(follow);
        let values: Vec<&str> = outcome.outputs().iter().map(|output| output.text()).collect();
        assert_eq!(values, ["0:7 x", "1:7 x"]);
        assert_eq!(event().run(follow).outputs().len(), 1);
        assert!(matches!(event().header("fail", "reject").run(follow), Verdict::Reject { .. }));
        assert!(matches!(event().header("fail", "once").run(follow), Verdict::Retry { .. }));
        assert!(matches!(event().header("fail", "once").attempt(2).run(follow), Verdict::Done(_)));
    }
}
