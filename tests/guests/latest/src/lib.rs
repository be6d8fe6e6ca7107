//! The state of each key is the beginning of the value of its last event: 100 bytes, or all of a shorter value. No outputs,
//! which shows the cost of states alone.

use keylane_sdk::{Bytes, Effects, Event, Result};

const BYTES: usize = 100;

fn handle(event: &Event<'_>, state: &mut Option<Bytes>, _: &mut Effects) -> Result {
    let kept = state.get_or_insert_with(|| Bytes(Vec::with_capacity(BYTES)));
    kept.0.clear();
    kept.0.extend(event.value().unwrap_or_default().iter().take(BYTES));
    Ok(())
}
keylane_sdk::keyed_handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing::{self, States};

    #[test]
    fn the_last_value_remains() {
        let mut states = States::new();
        for (value, state) in [("a".repeat(200), "a".repeat(100)), ("b".to_owned(), "b".to_owned())] {
            assert!(
                testing::event().key("k").value(value).run_keyed(&mut states, handle).outputs().is_empty()
            );
            assert_eq!(states.bytes("k"), Some(state.as_bytes()));
        }
    }
}
