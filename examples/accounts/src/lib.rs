//! Applies changes to accounts. Each event is a partial update: it has the next version of the account that is its key, and only
//! what has changed. A withdrawal may be refused, and interest depends on the balance, so the result is right only in the order
//! of the versions. The handler does not look at them: the gate in `keylane.toml` restores their order.

use keylane_sdk::{Effects, Event, OrFail, Result};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Update {
    version: u64,
    #[serde(flatten)]
    change: Change,
}

/// Amounts are cents.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Change {
    Deposit(u32),
    Withdraw(u32),
    /// How far the balance may be below zero.
    Overdraft(u32),
    InterestPercent(u32),
}

/// The state of an account.
#[derive(Default, Serialize, Deserialize)]
struct Account {
    cents: i64,
    overdraft: i64,
}

#[derive(Serialize)]
struct Balance {
    version: u64,
    /// False: a withdrawal was refused.
    applied: bool,
    cents: i64,
}

fn handle(event: &Event<'_>, state: &mut Option<Account>, effects: &mut Effects) -> Result {
    let Update { version, change } = event.json()?;
    let account = state.get_or_insert_default();
    // A refused withdrawal is a result like any other: a dead letter would leave a hole in the versions.
    let applied = account.apply(&change).or_reject("the balance is too large")?;
    effects.emit("balances").key(event.key()).json(&Balance { version, applied, cents: account.cents })?;
    Ok(())
}
keylane_sdk::keyed_handler!(handle);

impl Account {
    /// Applies a change. Returns false if it is refused, and `None` if the balance does not fit.
    fn apply(&mut self, change: &Change) -> Option<bool> {
        match *change {
            Change::Deposit(cents) => self.cents = self.cents.checked_add(cents.into())?,
            Change::Withdraw(cents) => {
                let left = self.cents.checked_sub(cents.into())?;
                if left < -self.overdraft {
                    return Some(false);
                }
                self.cents = left;
            }
            Change::Overdraft(cents) => self.overdraft = cents.into(),
            Change::InterestPercent(percent) => {
                let interest = self.cents.max(0).checked_mul(percent.into())? / 100;
                self.cents = self.cents.checked_add(interest)?;
            }
        }
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keylane_sdk::testing::{self, States, Verdict};
    use serde_json::Value;

    use super::*;

    /// A line of the events or of the expected result.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Line {
        key: String,
        value: String,
    }

    impl Line {
        fn version(&self) -> u64 {
            serde_json::from_str::<Value>(&self.value).expect("JSON")["version"].as_u64().expect("a number")
        }
    }

    fn lines(text: &str) -> Vec<Line> {
        text.lines().map(|line| serde_json::from_str(line).expect("a line is an event")).collect()
    }

    fn update(states: &mut States, line: &Line) -> Verdict {
        testing::event().key(line.key.as_str()).value(line.value.as_str()).run_keyed(states, handle)
    }

    /// Returns the values of the outputs of each account.
    fn run(events: &[Line]) -> BTreeMap<String, Vec<String>> {
        let (mut states, mut accounts) = (States::new(), BTreeMap::<_, Vec<_>>::new());
        for event in events {
            let verdict = update(&mut states, event);
            let [output] = verdict.outputs() else { panic!("one output per event: {verdict:?}") };
            accounts.entry(event.key.clone()).or_default().push(output.text().to_owned());
        }
        accounts
    }

    fn expected() -> BTreeMap<String, Vec<String>> {
        let mut accounts = BTreeMap::<_, Vec<_>>::new();
        for line in lines(include_str!("../expected.jsonl")) {
            accounts.entry(line.key).or_default().push(line.value);
        }
        accounts
    }

    /// This is what the gate does: the versions of an account in their order, each once.
    #[test]
    fn the_order_of_the_versions_gives_the_expected_result() {
        let mut events = lines(include_str!("../events.jsonl"));
        events.sort_by_key(|event| (event.key.clone(), event.version()));
        events.dedup();
        assert_eq!(run(&events), expected());
    }

    /// Otherwise the example would show nothing.
    #[test]
    fn the_order_of_arrival_gives_a_wrong_balance_to_every_account() {
        let cents = |outputs: &Vec<String>| {
            let last = outputs.last().expect("an account has outputs");
            serde_json::from_str::<Value>(last).expect("JSON")["cents"].as_i64()
        };
        let arrived = run(&lines(include_str!("../events.jsonl")));
        for (account, outputs) in expected() {
            assert_ne!(arrived.get(&account).map(cents), Some(cents(&outputs)), "{account}");
        }
    }

    #[test]
    fn an_update_changes_only_what_it_contains() {
        let mut states = States::new();
        for (value, applied, cents, overdraft) in [
            (r#"{"version": 1, "deposit": 500}"#, true, 500, 0),
            (r#"{"version": 2, "withdraw": 501}"#, false, 500, 0),
            (r#"{"version": 3, "overdraft": 100}"#, true, 500, 100),
            (r#"{"version": 4, "withdraw": 600}"#, true, -100, 100),
            (r#"{"version": 5, "interest-percent": 10}"#, true, -100, 100),
        ] {
            let verdict = update(&mut states, &Line { key: "ada".to_owned(), value: value.to_owned() });
            assert_eq!(verdict.outputs()[0].json::<Value>()["applied"], applied, "{value}");
            let account: Account = states.get("ada").expect("an account");
            assert_eq!((account.cents, account.overdraft), (cents, overdraft), "{value}");
        }
    }

    #[test]
    fn an_invalid_update_changes_nothing() {
        let mut states = States::new();
        for value in
            [r#"{"version": 1}"#, r#"{"deposit": 5}"#, r#"{"version": 1, "deposit": -5}"#, "no update"]
        {
            let verdict = update(&mut states, &Line { key: "ada".to_owned(), value: value.to_owned() });
            assert!(matches!(verdict, Verdict::Reject { .. }), "{value}: {verdict:?}");
        }
        assert!(states.is_empty());
    }
}
