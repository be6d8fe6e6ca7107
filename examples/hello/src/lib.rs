//! Greets the sender of the event and reports how many words it had.

use keylane_sdk::{Effects, Event, Result};

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let name = event.key_text()?;
    let words = event.text()?.split_whitespace().count();
    effects.emit("greetings").key(name).value(format!("Hello {name}, I read {words} words."));
    Ok(())
}
keylane_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use keylane_sdk::testing::{self, Verdict};

    use super::*;

    #[test]
    fn it_greets_by_key_and_counts_words() {
        let verdict = testing::event().key("ada").value("notes  on the engine").run(handle);
        assert_eq!(verdict.outputs()[0].text(), "Hello ada, I read 4 words.");
    }

    #[test]
    fn it_rejects_an_event_without_a_key() {
        let verdict = testing::event().value("who am I?").run(handle);
        assert_eq!(verdict, Verdict::Reject { reason: "the event has no key".to_owned() });
    }
}
