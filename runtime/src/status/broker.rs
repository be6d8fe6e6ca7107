//! What a client of this process knows about the brokers.

use serde::{Deserialize, Serialize};

/// A broker, as one client knows it. The values are those of the last interval of the client's statistics
/// (`statistics.interval.ms`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Its address and id, as the client names it: `host:port/id`; `host:port/bootstrap` until its id is known.
    pub broker: String,
    /// The state of the client's connection to it.
    pub state: BrokerState,
    /// The time from a request to its response: the average. A fetch waits for new records at the broker, up to
    /// `fetch.wait.max.ms`, which is included. `None`: there were no responses.
    pub round_trip_us: Option<u64>,
    /// The 99th percentile of that time.
    pub round_trip_p99_us: Option<u64>,
    /// The longest time for which the broker throttled this client, because of a quota; 0: it did not.
    pub throttle_ms: u64,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerState {
    /// It is established.
    Up,
    /// It is established, but a request has had no response for ten seconds.
    Unresponsive,
    /// It is not established, and the client tries to connect.
    Down,
    /// The client has no connection, because it needs none.
    Idle,
}

impl BrokerState {
    /// All states.
    pub const ALL: [BrokerState; 4] =
        [BrokerState::Up, BrokerState::Unresponsive, BrokerState::Down, BrokerState::Idle];

    /// Returns the name of the state, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BrokerState::Up => "up",
            BrokerState::Unresponsive => "unresponsive",
            BrokerState::Down => "down",
            BrokerState::Idle => "idle",
        }
    }
}
