//! A slow call: sleeps for the number of milliseconds in the header `sleep-ms` or, without that
//! header, in the value. With a header `emit`, it then emits the event's key and value to the
//! target `out`.

use std::time::Duration;

use keylane_sdk::{Effects, Event, Result};

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let text = match event.header("sleep-ms") {
        Some(bytes) => std::str::from_utf8(bytes)?,
        None => event.text()?,
    };
    std::thread::sleep(Duration::from_millis(text.trim().parse()?));
    if event.headers().any(|header| header.name == "emit") {
        effects.emit("out").key(event.key()).value(event.value());
    }
    Ok(())
}
keylane_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing::{self, Verdict};

    #[test]
    fn the_header_overrides_the_value() {
        let outcome =
            testing::event().value("an order").header("sleep-ms", "0").header("emit", "").run(handle);
        assert_eq!(outcome.outputs().len(), 1);
        assert_eq!(testing::event().value("0").run(handle), Verdict::Done(vec![]));
        assert!(matches!(testing::event().value("long").run(handle), Verdict::Reject { .. }));
    }
}
