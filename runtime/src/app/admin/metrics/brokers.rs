//! Metrics of what the Kafka clients know about the brokers. They are absent without statistics.

use std::fmt;
use std::time::Duration;

use crate::status::{BrokerState, BrokerStatus};

use super::Metrics;
use super::families::{Families, Label, count, labels};

impl Metrics {
    pub(super) fn write_brokers(&self, families: &mut Families<'_>) -> fmt::Result {
        let states = self.clients().flat_map(|(client, brokers)| {
            BrokerState::ALL.into_iter().map(move |state| {
                let number = brokers.iter().filter(|broker| broker.state == state).count();
                (with(&client, ("state", state.name())), count(number as u64))
            })
        });
        families.gauge(
            (
                "keylane_brokers",
                "Brokers that a client knows, by the state of its connection. `unresponsive`: no response for ten seconds; `idle`: no connection is needed.",
            ),
            states,
        )?;
        type Of = fn(&BrokerStatus) -> Option<Duration>;
        let times: [(&str, &str, Of); 3] = [
            (
                "keylane_broker_round_trip_seconds",
                "From a request to its response: the average of the last interval. A fetch includes its wait for new records, up to `fetch.wait.max.ms`.",
                |broker| broker.round_trip_us.map(Duration::from_micros),
            ),
            (
                "keylane_broker_round_trip_p99_seconds",
                "From a request to its response: the 99th percentile of the last interval.",
                |broker| broker.round_trip_p99_us.map(Duration::from_micros),
            ),
            (
                "keylane_broker_throttle_seconds",
                "The longest time for which the broker throttled the client in the last interval.",
                |broker| Some(Duration::from_millis(broker.throttle_ms)),
            ),
        ];
        for (name, help, of) in times {
            let samples = self.clients().flat_map(|(client, brokers)| {
                brokers.iter().filter_map(move |broker| {
                    Some((with(&client, ("broker", &broker.broker)), of(broker)?.as_secs_f64()))
                })
            });
            families.fraction((name, help), samples)?;
        }
        let queues = self.status.handlers.iter();
        let queues = queues.filter_map(|handler| Some((labels(handler), handler.fetch_queue_bytes?)));
        families.size(("keylane_fetch_queue_bytes", "Records that the consumer has fetched ahead."), queues)
    }

    /// Returns the clients that have statistics, with their labels: the consumer of each handler, and the producer, which
    /// all handlers share.
    fn clients(&self) -> impl Iterator<Item = (Vec<Label<'_>>, &[BrokerStatus])> {
        let consumers = self.status.handlers.iter().map(|handler| {
            let labels = vec![("client", "consumer"), ("handler", handler.handler.as_str())];
            (labels, handler.brokers.as_slice())
        });
        let producer = (vec![("client", "producer")], self.status.producer_brokers.as_slice());
        consumers.chain([producer]).filter(|(_, brokers)| !brokers.is_empty())
    }
}

/// Returns the labels of a client with one more.
fn with<'a>(client: &[Label<'a>], label: Label<'a>) -> Vec<Label<'a>> {
    client.iter().copied().chain([label]).collect()
}
