//! Adds the customer to each order, as returned by an HTTP service.

use std::time::Duration;

use keylane_sdk::{Effects, Event, OrFail, Result, http, reject};
use serde::{Deserialize, Serialize};

/// The time limit of the service for each step; the handler's `timeout` is longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Order<'a> {
    item: &'a str,
    cents: u64,
}

/// A customer as the service returns it: `{"name": "Ada", "tier": "gold"}`.
#[derive(Deserialize)]
struct Customer {
    name: String,
    tier: String,
}

#[derive(Serialize)]
struct Enriched<'a> {
    item: &'a str,
    cents: u64,
    customer: &'a str,
    /// A tenth of the price for gold customers.
    discount: u64,
}

fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
    // Granted by name: a handler sees no other variable of Keylane's environment.
    let service = std::env::var("CUSTOMERS").or_retry("CUSTOMERS is not set: add it to `grants.env`")?;
    enrich(event, effects, &service)
}
keylane_sdk::handler!(handle);

fn enrich(event: &Event<'_>, effects: &mut Effects, service: &str) -> Result {
    let id = event.key_text()?;
    let order: Order<'_> = event.json()?;
    let customer = customer(service, id)?;
    effects.emit("enriched").key(id).json(&Enriched {
        item: order.item,
        cents: order.cents,
        customer: &customer.name,
        discount: if customer.tier == "gold" { order.cents / 10 } else { 0 },
    })?;
    Ok(())
}

/// `?` on a request without a response, or with a 5xx, requests a retry of the order.
fn customer(service: &str, id: &str) -> Result<Customer> {
    let url = format!("http://{service}/customers/{}", http::segment(id));
    let response = http::Request::get(&url).timeout(REQUEST_TIMEOUT).send()?;
    match response.status {
        200 => response.json(),
        404 => reject(format!("customer not found: {id}")),
        other => reject(format!("the service answered {other}")),
    }
}

#[cfg(test)]
mod tests {
    use keylane_sdk::testing::{self, Verdict};

    use super::*;

    /// Handles one of Ada's orders, with this response from the service.
    fn run(status: u16, answer: &'static str) -> Verdict {
        let _service = testing::http(move |request| {
            assert_eq!((request.method(), request.url()), ("GET", "http://service/customers/ada%2F1"));
            http::Response::new(status, answer)
        });
        let order = testing::event().key("ada/1").value(r#"{"item": "tea", "cents": 350}"#);
        order.run(|event, effects| enrich(event, effects, "service"))
    }

    #[test]
    fn the_customer_is_looked_up_by_the_key() {
        let verdict = run(200, r#"{"name": "Ada", "tier": "gold"}"#);
        assert_eq!(
            verdict.outputs()[0].text(),
            r#"{"item":"tea","cents":350,"customer":"Ada","discount":35}"#
        );
    }

    #[test]
    fn temporary_failures_are_retried_and_permanent_ones_are_rejected() {
        assert!(matches!(run(503, ""), Verdict::Retry { .. }));
        assert!(matches!(run(404, ""), Verdict::Reject { .. }));
        assert!(matches!(run(200, "hello"), Verdict::Reject { .. }));
    }
}
