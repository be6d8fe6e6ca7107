//! Publishes the paid orders of customers. An order with a pending payment is retried; one that is declined or invalid
//! is dead-lettered.

use std::time::Duration;

use keylane_sdk::{Effects, Event, Result, reject, retry, retry_after};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    id: String,
    cents: u64,
    payment: Payment,
}

/// The response of the payment service. `Pending` becomes paid at the second attempt.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Payment {
    Paid,
    Pending,
    Unreachable,
    Declined,
}

#[derive(Serialize)]
struct Paid<'a> {
    order: &'a str,
    cents: u64,
    attempt: u32,
}

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    let order: Order = event.json()?; // an invalid order is rejected: a retry does not help
    match order.payment {
        Payment::Pending if event.attempt() == 1 => {
            return retry_after(Duration::from_millis(50), "the payment is pending");
        }
        Payment::Unreachable => return retry("the payment service can't be reached"),
        Payment::Declined => return reject("the payment is declined"),
        Payment::Paid | Payment::Pending => {}
    }
    let paid = Paid { order: &order.id, cents: order.cents, attempt: event.attempt() };
    effects.emit("paid").key(event.key()).json(&paid)?;
    Ok(())
}
keylane_sdk::handler!(handle);

#[cfg(test)]
mod tests {
    use keylane_sdk::testing::{self, Verdict};

    use super::*;

    fn run(payment: &str, attempt: u32) -> Verdict {
        let value = format!(r#"{{"id": "o-1", "cents": 1200, "payment": "{payment}"}}"#);
        testing::event().key("ada").value(value.as_str()).attempt(attempt).run(handle)
    }

    #[test]
    fn temporary_failures_are_retried_and_permanent_ones_are_not() {
        assert_eq!(run("paid", 1).outputs().len(), 1);
        assert!(matches!(run("pending", 1), Verdict::Retry { after: Some(_), .. }));
        assert_eq!(run("pending", 2).outputs()[0].text(), r#"{"order":"o-1","cents":1200,"attempt":2}"#);
        assert!(matches!(run("unreachable", 3), Verdict::Retry { after: None, .. }));
        assert!(matches!(run("declined", 1), Verdict::Reject { .. }));
        assert!(matches!(testing::event().value("no order").run(handle), Verdict::Reject { .. }));
    }
}
