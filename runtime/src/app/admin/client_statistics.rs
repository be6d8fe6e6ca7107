//! What a Kafka client knows about its brokers, from the statistics of librdkafka. Nothing here runs in an event loop:
//! the loop passes the statistics unparsed, and the admin server parses the latest ones when a status is requested.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keylane_core::Now;
use serde::Deserialize;

use crate::config::ClientProperties;
use crate::librdkafka::{LatestStatistics, STATISTICS_INTERVAL};
use crate::status::{BrokerState, BrokerStatus};

/// Number of intervals after which statistics are too old to be used.
const INTERVALS_MAX: u32 = 3;
/// How long a request waits, beyond the wait of a fetch, until its broker counts as unresponsive. Short enough that a
/// hanging broker is reported before the session timeout, and longer than any pause of a healthy one.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The statistics of one client.
#[derive(Debug)]
pub(super) struct ClientStatistics {
    latest: Arc<LatestStatistics>,
    /// The age from which statistics are ignored.
    age_max: Duration,
    /// How long a request may wait for its response.
    silence_max: Duration,
    /// The last statistics that could be parsed.
    parsed: Option<Document>,
}

/// What is known about the brokers of one client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BrokersView {
    pub(super) brokers: Vec<BrokerStatus>,
    /// Whether every connection is down or unresponsive.
    pub(super) none_reachable: bool,
    /// Bytes of records that the client has fetched and that were not read from it.
    pub(super) fetch_queue_bytes: u64,
}

impl ClientStatistics {
    /// Creates the reader of a client's statistics. `properties`: those of the client.
    pub(super) fn new(latest: Arc<LatestStatistics>, properties: &ClientProperties) -> ClientStatistics {
        let millis = |name| properties.get(name).and_then(|value| value.trim().parse().ok());
        let interval = millis("statistics.interval.ms").map_or(STATISTICS_INTERVAL, Duration::from_millis);
        let fetch_wait = millis("fetch.wait.max.ms").map_or(Duration::ZERO, Duration::from_millis);
        ClientStatistics {
            latest,
            // The time of statistics is in whole seconds.
            age_max: interval * INTERVALS_MAX + Duration::from_secs(1),
            silence_max: SILENCE_MAX + fetch_wait,
            parsed: None,
        }
    }

    /// Returns the latest statistics; `None`: there are none, or they are too old.
    pub(super) fn read(&mut self, now: Now) -> Option<BrokersView> {
        if let Some(statistics) = self.latest.take() {
            match serde_json::from_slice(statistics.json()) {
                Ok(document) => self.parsed = Some(document),
                Err(error) => tracing::debug!(%error, "statistics of the Kafka client ignored"),
            }
        }
        let document = self.parsed.as_ref().filter(|document| document.age(now) < self.age_max)?;
        Some(document.view(self.silence_max))
    }
}

/// The fields of the statistics that are used (STATISTICS.md of librdkafka).
#[derive(Debug, Deserialize)]
struct Document {
    /// When they were emitted, in seconds since 1970.
    time: i64,
    brokers: BTreeMap<String, Connection>,
    topics: BTreeMap<String, Topic>,
}

/// A connection. A broker that is also the coordinator of the group has two.
#[derive(Debug, Deserialize)]
struct Connection {
    /// `host:port/id`, `host:port/bootstrap`, or the role of a logical connection.
    name: String,
    /// The id of the broker; -1 for bootstrap servers and logical connections.
    nodeid: i32,
    /// The address.
    nodename: String,
    source: Source,
    state: String,
    /// Requests without a response.
    waitresp_cnt: i64,
    /// Microseconds since the last request; -1: there was none.
    txidle: i64,
    /// Microseconds since the last response; -1: there was none.
    rxidle: i64,
    /// Microseconds.
    rtt: Window,
    /// Milliseconds, of throttled responses only.
    throttle: Window,
}

/// How the client learned of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// From `bootstrap.servers`.
    Configured,
    /// From the metadata of the cluster.
    Learned,
    /// It is another connection to one of the brokers, for requests to a coordinator.
    Logical,
    /// It is not a broker, but a queue of the client.
    #[serde(other)]
    Internal,
}

/// The values of one interval.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Window {
    max: i64,
    sum: i64,
    /// The 99th percentile of the values that the client's histogram covers.
    p99: i64,
    /// The number of values, with those of `outofrange`.
    cnt: i64,
    /// The number of values beyond the histogram: round trips above half a second.
    outofrange: i64,
}

#[derive(Debug, Deserialize)]
struct Topic {
    partitions: BTreeMap<String, FetchQueue>,
}

#[derive(Debug, Deserialize)]
struct FetchQueue {
    fetchq_size: u64,
}

impl Document {
    /// Returns the time since the statistics were emitted; 0: the clock was set back.
    fn age(&self, now: Now) -> Duration {
        let millis = now.wall_ms.saturating_sub(self.time.saturating_mul(1_000));
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    fn view(&self, silence_max: Duration) -> BrokersView {
        let brokers: Vec<BrokerStatus> =
            self.broker_connections().map(|connection| self.broker(connection, silence_max)).collect();
        let has = |states: &[BrokerState]| brokers.iter().any(|broker| states.contains(&broker.state));
        let none_reachable = !has(&[BrokerState::Up]) && has(&[BrokerState::Down, BrokerState::Unresponsive]);
        let queues = self.topics.values().flat_map(|topic| topic.partitions.values());
        BrokersView {
            none_reachable,
            fetch_queue_bytes: queues.map(|queue| queue.fetchq_size).sum(),
            brokers,
        }
    }

    /// Returns one connection per broker: those to brokers with an id, or to the bootstrap servers until an id is known.
    /// A bootstrap server is also one of the brokers, which has its own connection.
    fn broker_connections(&self) -> impl Iterator<Item = &Connection> {
        let has_id = |connection: &&Connection| connection.nodeid >= 0;
        let any_has_id = self.brokers.values().any(|connection| has_id(&connection));
        let is_known = move |connection: &&Connection| {
            if any_has_id { has_id(connection) } else { connection.source == Source::Configured }
        };
        self.brokers.values().filter(is_known)
    }

    /// Returns the status of a broker, from the connection to it and the one to it as a coordinator, if there is one.
    fn broker(&self, connection: &Connection, silence_max: Duration) -> BrokerStatus {
        let is_same =
            |other: &&Connection| other.source == Source::Logical && other.nodename == connection.nodename;
        let coordinator = self.brokers.values().find(is_same);
        let of = |window: fn(&Connection) -> Window| {
            coordinator.map_or(window(connection), |other| window(connection).with(window(other)))
        };
        let (round_trips, throttled) = (of(|from| from.rtt), of(|from| from.throttle));
        BrokerStatus {
            broker: connection.name.clone(),
            state: self.state(connection, coordinator, silence_max),
            round_trip_us: round_trips.average(),
            round_trip_p99_us: round_trips.p99(),
            throttle_ms: throttled.if_any(throttled.max).unwrap_or(0),
        }
    }

    fn state(
        &self,
        connection: &Connection,
        coordinator: Option<&Connection>,
        silence_max: Duration,
    ) -> BrokerState {
        // A connection to a coordinator may be silent: some of its responses arrive only when a rebalance ends.
        let as_coordinator = coordinator.is_some_and(Connection::is_up);
        let attempts = connection.is_attempted() || coordinator.is_some_and(Connection::is_attempted);
        match (connection.is_up(), as_coordinator) {
            (true, _) if connection.silence() > silence_max => BrokerState::Unresponsive,
            (true, _) | (false, true) => BrokerState::Up,
            // Without any connection, the client tries all brokers in turn, and most are between two attempts.
            (false, false) if attempts || !self.brokers.values().any(Connection::is_up) => BrokerState::Down,
            (false, false) => BrokerState::Idle,
        }
    }
}

impl Connection {
    fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "UP" | "REAUTH")
    }

    /// Returns whether the client tries to connect. A connection that nothing needs is not attempted.
    fn is_attempted(&self) -> bool {
        !self.is_up() && self.state != "INIT"
    }

    /// Returns how long a request has had no response. A broker that hangs, or whose packets are lost, leaves the
    /// connection up until the client's timeouts.
    fn silence(&self) -> Duration {
        let micros = match self.waitresp_cnt {
            ..=0 => 0,
            1 => self.rxidle.min(self.txidle), // the only request may have been sent just now, after a pause
            2.. => self.rxidle,
        };
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl Window {
    /// Adds the values of another connection. The percentile is then that of the slower one.
    fn with(self, other: Window) -> Window {
        Window {
            max: self.max.max(other.max),
            sum: self.sum + other.sum,
            p99: self.p99.max(other.p99),
            cnt: self.cnt + other.cnt,
            outofrange: self.outofrange + other.outofrange,
        }
    }

    fn average(self) -> Option<u64> {
        self.if_any(self.sum.checked_div(self.cnt)?)
    }

    /// Returns the 99th percentile, or the largest value if the percentile is beyond the client's histogram.
    fn p99(self) -> Option<u64> {
        let is_beyond = self.outofrange * 100 > self.cnt;
        self.if_any(if is_beyond { self.max } else { self.p99 })
    }

    /// Returns a value of this interval; `None`: there are no values.
    fn if_any(self, value: i64) -> Option<u64> {
        if self.cnt == 0 { None } else { u64::try_from(value).ok() }
    }
}

#[cfg(test)]
mod tests;
