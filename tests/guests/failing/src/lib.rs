//! Returns the result named by the value: `retry`, `retry-once`, `reject`, `print` (to both
//! standard streams), `fan` (100 KiB more to `out`), `burst` (41 more outputs, the first with 5,000
//! bytes); or fails: `trap`, `spin` (endlessly), `hoard` (memory), `recurse` (stack), `flood`
//! (outputs), `bloat` (an output that is too large), `unknown-target` (an output that is not configured),
//! `forge` (reserved headers), `chatter` (a million log lines), `exit`, `sleep` (longer than any
//! deadline); `reach ADDRESS` reports what it can access. Any other value is done. Trailing spaces
//! are ignored. Each event first emits its value to `out`, so that tests can check that a failed
//! event publishes nothing.

use keylane_sdk::{Effects, Event, Result, reject, retry};

#[expect(clippy::panic, clippy::disallowed_methods, reason = "failing is the purpose of this handler")]
fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    effects.emit("out").key(event.key()).value(event.value());
    match event.text()?.trim_end() {
        "retry" => retry("the value requests it"),
        "retry-once" if event.attempt() == 1 => retry("the value requests it once"),
        "reject" => reject("the value requests it"),
        "trap" => panic!("the value requests it"),
        "spin" => loop {
            std::hint::black_box(event);
        },
        "hoard" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        "recurse" => {
            std::hint::black_box(deeper(0));
            Ok(())
        }
        "flood" => {
            for _ in 0..1_000_000 {
                effects.emit("out").value("x");
            }
            Ok(())
        }
        "fan" => {
            effects.emit("out").key(event.key()).value(vec![b'x'; 100 << 10]);
            Ok(())
        }
        "burst" => {
            for number in 0..41 {
                effects.emit("out").key(event.key()).value(vec![b'x'; if number == 0 { 5_000 } else { 10 }]);
            }
            Ok(())
        }
        "bloat" => {
            effects.emit("out").value(vec![0_u8; 3 << 20]);
            Ok(())
        }
        "unknown-target" => {
            effects.emit("nowhere").value("x");
            Ok(())
        }
        "forge" => {
            effects.emit("out").key("forged").header("keylane-origin-offset", "12345").header("own", "kept");
            Ok(())
        }
        "chatter" => {
            (0..1_000_000).for_each(|line| println!("line {line}"));
            Ok(())
        }
        "exit" => std::process::exit(3),
        "sleep" => {
            std::thread::sleep(std::time::Duration::from_secs(3600));
            Ok(())
        }
        "print" => {
            println!("key {:?} at offset {}", event.key(), event.offset());
            eprintln!("offset {} again", event.offset());
            Ok(())
        }
        other => match other.strip_prefix("reach ") {
            Some(address) => reject(reached(address)),
            None => Ok(()),
        },
    }
}
keylane_sdk::handler!(handle);

/// The access that the guest has beyond events and outputs.
fn reached(address: &str) -> String {
    let socket = std::net::TcpStream::connect(address).is_ok();
    let file = std::fs::File::open("/etc/passwd").is_ok();
    let variables = std::env::vars().count();
    format!("socket: {socket}, file: {file}, variables: {variables}")
}

#[expect(unconditional_recursion, reason = "it must overflow the stack")]
fn deeper(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    deeper(depth + 1) + here.iter().sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keylane_sdk::testing::{self, Verdict};

    fn run(value: &str) -> Verdict {
        testing::event().value(value).run(handle)
    }

    #[test]
    fn the_value_decides() {
        assert!(matches!(run("retry"), Verdict::Retry { after: None, .. }));
        assert!(matches!(run("reject"), Verdict::Reject { .. }));
        assert_eq!(run("anything").outputs().len(), 1);
        assert_eq!(run("print").outputs().len(), 1);
        assert!(matches!(run("retry-once"), Verdict::Retry { .. }));
        assert!(matches!(testing::event().value("retry-once").attempt(2).run(handle), Verdict::Done(_)));
    }

    #[test]
    #[should_panic(expected = "requests it")]
    fn a_panic_is_a_trap() {
        run("trap");
    }
}
