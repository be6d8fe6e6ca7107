//! Ends as the value says: `retry`, `retry-once`, `reject`, `trap`, `spin` (for ever), `print` (to both
//! standard streams). Any other value is done. Each event emits its value to `out` first, so that tests
//! see that a failed event leaves nothing behind.

use keylane_sdk::{Effects, Event, Result, reject, retry};

#[expect(clippy::panic, reason = "a trap is what this handler is for")]
fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    effects.emit("out").key(event.key()).value(event.value());
    match event.text()? {
        "retry" => retry("the value asks for it"),
        "retry-once" if event.attempt() == 1 => retry("the value asks for it once"),
        "reject" => reject("the value asks for it"),
        "trap" => panic!("the value asks for it"),
        "spin" => loop {
            std::hint::black_box(event);
        },
        "print" => {
            println!("key {:?} at offset {}", event.key(), event.offset());
            eprintln!("offset {} again", event.offset());
            Ok(())
        }
        _ => Ok(()),
    }
}
keylane_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing::{self, Outcome};

    fn run(value: &str) -> Outcome {
        testing::event().value(value).run(handle)
    }

    #[test]
    fn the_value_decides() {
        assert!(matches!(run("retry"), Outcome::Retry { after: None, .. }));
        assert!(matches!(run("reject"), Outcome::Reject { .. }));
        assert_eq!(run("anything").outputs().len(), 1);
        assert_eq!(run("print").outputs().len(), 1);
        assert!(matches!(run("retry-once"), Outcome::Retry { .. }));
        assert!(matches!(testing::event().value("retry-once").attempt(2).run(handle), Outcome::Done(_)));
    }

    #[test]
    #[should_panic(expected = "asks for it")]
    fn a_panic_is_a_trap() {
        run("trap");
    }
}
