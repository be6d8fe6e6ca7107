//! Keeps the balance of each account. An event is a booking to the account that is its key; a transfer is two bookings.
//! A booking that is invalid, or exceeds the balance, is dead-lettered.

use keylane_sdk::{Effects, Event, Result, reject};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Booking {
    id: String,
    /// Negative for a debit.
    cents: i64,
}

/// The state of an account.
#[derive(Default, Serialize, Deserialize)]
struct Account {
    cents: i64,
    bookings: u64,
}

#[derive(Serialize)]
struct Balance<'a> {
    booking: &'a str,
    cents: i64,
    bookings: u64,
}

fn handle(event: &Event<'_>, state: &mut Option<Account>, effects: &mut Effects) -> Result {
    let booking: Booking = event.json()?;
    if booking.cents == 0 {
        return reject("a booking of nothing");
    }
    let account = state.get_or_insert_default();
    let Some(cents) = account.cents.checked_add(booking.cents) else {
        return reject("the balance is too large");
    };
    if cents < 0 {
        return reject(format!("the balance of {} is exceeded", account.cents));
    }
    account.cents = cents;
    account.bookings += 1;
    let balance = Balance { booking: &booking.id, cents, bookings: account.bookings };
    effects.emit("balances").key(event.key()).json(&balance)?;
    Ok(())
}
keylane_sdk::keyed_handler!(handle);

#[cfg(test)]
mod tests {
    use keylane_sdk::testing::{self, States, Verdict};
    use serde_json::Value;

    use super::*;

    fn book(states: &mut States, account: &str, cents: i64) -> Verdict {
        let value = format!(r#"{{"id": "b-1", "cents": {cents}}}"#);
        testing::event().key(account).value(value).run_keyed(states, handle)
    }

    fn cents(states: &States, account: &str) -> Option<i64> {
        states.get(account).map(|account: Account| account.cents)
    }

    #[test]
    fn every_account_has_its_own_balance() {
        let mut states = States::new();
        for (account, change, balance) in [("ada", 500, 500), ("bob", 70, 70), ("ada", -200, 300)] {
            let verdict = book(&mut states, account, change);
            assert_eq!(verdict.outputs()[0].json::<Value>()["cents"], balance);
        }
        assert_eq!((cents(&states, "ada"), cents(&states, "bob")), (Some(300), Some(70)));
        assert_eq!(states.bytes("ada"), Some(&br#"{"cents":300,"bookings":2}"#[..]));
    }

    #[test]
    fn an_invalid_booking_changes_no_balance() {
        let mut states = States::new();
        assert!(matches!(book(&mut states, "ada", -1), Verdict::Reject { .. }));
        assert!(states.is_empty());
        book(&mut states, "ada", 500).outputs();
        for change in [0, -501, i64::MAX] {
            assert!(matches!(book(&mut states, "ada", change), Verdict::Reject { .. }), "{change}");
        }
        let verdict = testing::event().key("ada").value("no booking").run_keyed(&mut states, handle);
        assert!(matches!(verdict, Verdict::Reject { .. }));
        assert_eq!(cents(&states, "ada"), Some(500));
    }

    fn lines(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The events of the example, in order, give the expected records.
    #[test]
    fn the_events_give_the_expected_result() {
        let mut states = States::new();
        let mut expected = lines(include_str!("../expected.jsonl")).into_iter();
        for event in lines(include_str!("../events.jsonl")) {
            let (key, value) = (event["key"].as_str(), event["value"].as_str());
            let expected = expected.next().expect("one record per event");
            match testing::event().key(key).value(value).run_keyed(&mut states, handle) {
                Verdict::Done(outputs) => {
                    let [output] = outputs.as_slice() else { panic!("one output per event") };
                    assert_eq!(Some(output.text()), expected["value"].as_str());
                    assert_eq!(expected["topic"], "balances");
                }
                failed => {
                    assert!(matches!(failed, Verdict::Reject { .. }), "{failed:?}");
                    assert_eq!(expected["value"], event["value"]);
                    assert_eq!(
                        (&expected["topic"], &expected["reason"]),
                        (&"bookings.dlq".into(), &"rejected".into())
                    );
                }
            }
            assert_eq!(expected["key"], event["key"]);
        }
        assert_eq!(expected.next(), None);
        let balances =
            ["ada", "bob", "cleo", "dora"].map(|account| cents(&states, account).expect("an account"));
        assert_eq!(balances.iter().sum::<i64>(), 100_000, "the deposits; transfers move it between accounts");
    }
}
