//! Counts the events of each key in its state. Each event emits `{"key": …, "n": …, "offset": …}` to the target `out`: the
//! number of events that its key has had with this one, and its own offset. The state is the text `N CHECKSUM`, where the
//! checksum is that of the offsets of these events, in order: from 0, for each offset, it is multiplied by 31 and the
//! offset is added, modulo 2^64.
//!
//! The value of an event may be a command, which follows the output: `delete` deletes the state, `large:BYTES` makes the
//! state this long, with spaces at its end (until the next event of the key), `retry`, `retry-once` (in the first attempt)
//! and `reject` fail the event, and `trap` panics. `read` does not count: the output has the number so far. Any other value
//! only counts.

use keylane_sdk::{Effects, Event, OrFail, Result, State, reject, retry};

#[derive(Debug, Default, PartialEq)]
struct Counter {
    n: u64,
    checksum: u64,
    /// Minimum length of the encoded state.
    bytes: usize,
}

impl State for Counter {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)?;
        let (n, checksum) = text.trim_end().split_once(' ').or_reject("not two numbers")?;
        Ok(Self { n: n.parse()?, checksum: checksum.parse()?, bytes: 0 })
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result {
        bytes.extend_from_slice(format!("{} {}", self.n, self.checksum).as_bytes());
        bytes.resize(bytes.len().max(self.bytes), b' ');
        Ok(())
    }
}

#[expect(clippy::panic, reason = "a panic is one of the commands")]
fn handle(event: &Event<'_>, state: &mut Option<Counter>, effects: &mut Effects) -> Result {
    let command = event.value().map(std::str::from_utf8).transpose()?.unwrap_or_default();
    let (key, offset) = (event.key_text()?, event.offset());
    let mut emit = |n: u64| {
        effects.emit("out").key(key).value(format!(r#"{{"key":{key:?},"n":{n},"offset":{offset}}}"#));
    };
    if command == "read" {
        emit(state.as_ref().map_or(0, |counter| counter.n));
        return Ok(());
    }
    let counter = state.get_or_insert_default();
    counter.n += 1;
    counter.checksum = counter.checksum.wrapping_mul(31).wrapping_add(offset);
    emit(counter.n);
    match command {
        "delete" => *state = None,
        "retry" => return retry("the value requests it"),
        "retry-once" if event.attempt() == 1 => return retry("the value requests it once"),
        "reject" => return reject("the value requests it"),
        "trap" => panic!("the value requests it"),
        other => {
            if let Some(bytes) = other.strip_prefix("large:") {
                counter.bytes = bytes.parse()?;
            }
        }
    }
    Ok(())
}
keylane_sdk::keyed_handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing::{self, States, Verdict};

    fn run(states: &mut States, key: &str, value: &str, offset: u64) -> Verdict {
        testing::event().key(key).value(value).offset(offset).run_keyed(states, handle)
    }

    #[test]
    fn each_key_has_its_own_count_and_checksum() {
        let mut states = States::new();
        for (key, offset, output) in [
            ("a", 7, r#"{"key":"a","n":1,"offset":7}"#),
            ("b", 8, r#"{"key":"b","n":1,"offset":8}"#),
            ("a", 9, r#"{"key":"a","n":2,"offset":9}"#),
        ] {
            let verdict = run(&mut states, key, "", offset);
            assert_eq!(verdict.outputs().iter().map(|output| output.text()).collect::<Vec<_>>(), [output]);
        }
        assert_eq!(states.bytes("a"), Some(&b"2 226"[..])); // 31 * 7 + 9
        assert_eq!(states.bytes("b"), Some(&b"1 8"[..]));
    }

    #[test]
    fn the_value_may_be_a_command() {
        let mut states = States::new();
        run(&mut states, "a", "large:20", 1).outputs();
        assert_eq!(states.bytes("a"), Some(&b"1 1                 "[..]));
        assert!(matches!(run(&mut states, "a", "retry", 2), Verdict::Retry { .. }));
        assert!(matches!(run(&mut states, "a", "retry-once", 2), Verdict::Retry { .. }));
        assert!(matches!(run(&mut states, "a", "reject", 2), Verdict::Reject { .. }));
        assert_eq!(states.bytes("a").map(<[u8]>::len), Some(20), "a failed event changes nothing");
        run(&mut states, "a", "any", 3).outputs();
        assert_eq!(states.bytes("a"), Some(&b"2 34"[..]));
        let read = run(&mut states, "a", "read", 4);
        assert_eq!(read.outputs()[0].text(), r#"{"key":"a","n":2,"offset":4}"#);
        assert_eq!(states.bytes("a"), Some(&b"2 34"[..]));
        assert_eq!(run(&mut states, "a", "delete", 4).outputs().len(), 1);
        assert!(states.is_empty());
    }

    #[test]
    #[should_panic(expected = "requests it")]
    fn a_panic_is_a_trap() {
        run(&mut States::new(), "a", "trap", 0);
    }
}
