//! The documents are those of a consumer of one broker (Kafka 4.3, librdkafka 2.12): with a connection, after the broker
//! was killed, while it was suspended, and after it was resumed.

use super::*;

const UP: &str = include_str!("up.json");
const KILLED: &str = include_str!("killed.json");
const HANGING: &str = include_str!("hanging.json");
const RESUMED: &str = include_str!("resumed.json");
/// One of three brokers leads the partition, and another one is the coordinator.
const THREE: &str = include_str!("three.json");

fn parsed(json: &str) -> Document {
    serde_json::from_str(json).expect("the statistics have the fields that are used")
}

fn view(json: &str) -> BrokersView {
    parsed(json).view(SILENCE_MAX)
}

/// Returns the state of the only broker, and whether no broker is reachable.
fn state(json: &str) -> (BrokerState, bool) {
    let BrokersView { brokers, none_reachable, .. } = view(json);
    match brokers.as_slice() {
        [broker] => (broker.state, none_reachable),
        other => panic!("the bootstrap server and the coordinator are the same broker: {other:?}"),
    }
}

#[test]
fn a_broker_is_listed_once_with_the_round_trips_of_its_connections() {
    let view = view(UP);
    let expected = BrokerStatus {
        broker: "127.0.0.1:21678/1".to_owned(),
        state: BrokerState::Up,
        round_trip_us: Some(66_092),
        round_trip_p99_us: Some(112_127),
        throttle_ms: 0,
    };
    assert_eq!(view, BrokersView { brokers: vec![expected], none_reachable: false, fetch_queue_bytes: 0 });
}

#[test]
fn a_broker_that_is_gone_or_hangs_is_not_reachable() {
    assert_eq!(state(UP), (BrokerState::Up, false));
    assert_eq!(state(KILLED), (BrokerState::Down, true));
    assert_eq!(state(HANGING), (BrokerState::Unresponsive, true));
    assert_eq!(state(RESUMED), (BrokerState::Up, false));
    // Between two attempts.
    assert_eq!(state(&KILLED.replace("TRY_CONNECT", "INIT")), (BrokerState::Down, true));
    // The connection to the coordinator is up, so the other one is not needed.
    let idle = UP.replacen("\"state\":\"UP\"", "\"state\":\"INIT\"", 1);
    assert_eq!(state(&idle), (BrokerState::Up, false));
}

#[test]
fn a_broker_that_is_not_needed_is_idle() {
    let brokers: Vec<(String, BrokerState)> =
        view(THREE).brokers.into_iter().map(|broker| (broker.broker, broker.state)).collect();
    let expected = [
        ("127.0.0.1:20415/1", BrokerState::Up),
        ("127.0.0.1:20418/2", BrokerState::Up),
        ("127.0.0.1:20421/3", BrokerState::Idle),
    ];
    assert_eq!(brokers, expected.map(|(name, state)| (name.to_owned(), state)));
}

#[test]
fn round_trips_beyond_the_histogram_of_the_client_count() {
    let broker = view(RESUMED).brokers.into_iter().next().expect("one broker");
    assert_eq!(broker.round_trip_p99_us, Some(10_089_212), "more than 1 % took longer than half a second");
}

#[test]
fn an_interval_without_responses_has_no_round_trip() {
    let broker = view(HANGING).brokers.into_iter().next().expect("one broker");
    assert_eq!((broker.round_trip_us, broker.round_trip_p99_us), (None, None));
}

#[test]
fn fetched_records_and_throttle_times_are_read() {
    let json = UP.replace("\"fetchq_size\":0", "\"fetchq_size\":150");
    assert_eq!(view(&json).fetch_queue_bytes, 300, "two partitions, one of them for unassigned records");
    let json = UP.replace("\"throttle\": { \"min\":0, \"max\":0,", "\"throttle\": { \"min\":0, \"max\":70,");
    let json = json.replace("\"cnt\":0 }, \"req\"", "\"cnt\":2 }, \"req\"");
    assert_eq!(view(&json).brokers.first().map(|broker| broker.throttle_ms), Some(70));
}

#[test]
fn statistics_are_used_for_three_intervals() {
    let document = parsed(UP);
    let at = |seconds: i64| Now { uptime: Duration::ZERO, wall_ms: 1_000 * (document.time + seconds) };
    let statistics = ClientStatistics::new(Arc::default(), &ClientProperties::default());
    assert!(document.age(at(15)) < statistics.age_max && document.age(at(16)) >= statistics.age_max);
    assert_eq!(document.age(at(-3)), Duration::ZERO, "the clock was set back");
}
