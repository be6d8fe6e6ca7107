//! Emits every event to the target `out` unchanged: key, value and headers.

use keylane_sdk::{Effects, Event, Result};

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let mut copy = effects.emit("out").key(event.key()).value(event.value());
    for header in event.headers() {
        copy = copy.header(header.name, header.value);
    }
    Ok(())
}
keylane_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing;

    #[test]
    fn absent_parts_stay_absent() {
        let event = testing::event().value("v").header("a", "1").header("a", None::<&str>);
        let outcome = event.run(handle);
        let [copy] = outcome.outputs() else { panic!("one output per event") };
        assert_eq!((copy.target.as_str(), copy.key.as_deref(), copy.text()), ("out", None, "v"));
        assert_eq!(copy.headers, [("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None)]);
    }
}
