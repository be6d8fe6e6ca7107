//! Brings the events of several topics into one topic, keyed by their customer. The time of an event and its type, which is
//! the name of its topic, become headers: a gate behind this topic restores the order.

use keylane_sdk::{Effects, Event, OrFail, Result};
use serde::Deserialize;

/// The part of every event that names its entity.
#[derive(Deserialize)]
struct Entity {
    customer: String,
}

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let entity: Entity = event.json()?;
    let time = event.timestamp_ms().or_reject("the event has no timestamp")?;
    let mut output = effects.emit("events").key(entity.customer).value(event.value());
    for header in event.headers() {
        output = output.header(header.name, header.value);
    }
    output.header("event-type", event.topic()).header("event-time", time.to_string());
    Ok(())
}
keylane_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use keylane_sdk::testing::{self, Verdict};

    use super::*;

    const VALUE: &str = r#"{"customer":"ada","bank":"First"}"#;

    #[test]
    fn an_event_is_keyed_by_its_customer() {
        let event = testing::event().topic("bank-changed").key("e-17").value(VALUE).header("trace", "7f");
        let verdict = event.timestamp_ms(1_000).run(handle);
        let [output] = verdict.outputs() else { panic!("one output: {verdict:?}") };
        assert_eq!((output.key.as_deref(), output.text()), (Some(&b"ada"[..]), VALUE));
        let headers: Vec<_> =
            output.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let expected = [("trace", "7f"), ("event-type", "bank-changed"), ("event-time", "1000")];
        assert_eq!(headers, expected.map(|(name, value)| (name, Some(value.as_bytes()))));
    }

    #[test]
    fn an_event_without_customer_or_time_is_rejected() {
        for event in [testing::event().value("{}").timestamp_ms(1_000), testing::event().timestamp_ms(1_000)]
        {
            assert!(matches!(event.run(handle), Verdict::Reject { .. }));
        }
    }
}
