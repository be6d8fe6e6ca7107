use super::*;
use crate::status::{
    AbortStatus, BlockedStatus, CallTimeStatus, DeliveryMode, HandlerTotals, InstanceStatus, LeftOutStatus,
    LimitStatus, MemoryStatus, RateStatus,
};

fn partition(number: i32, blocked: Option<BlockedStatus>) -> PartitionStatus {
    PartitionStatus {
        topic: "orders".to_owned(),
        partition: number,
        state: OwnershipState::Active,
        committed: (number > 0).then_some(41),
        committable: Some(41),
        completed_beyond: 2,
        unclaimed: 0,
        withheld: 0,
        left_out: None,
        next_offset: Some(60),
        log_end: Some(100),
        lag_committed: (number > 0).then_some(59),
        lag_unsettled: Some(57),
        queued: 17,
        queued_bytes: 2_000,
        parked: 0,
        running_lanes: 1,
        unacked_lanes: 0,
        oldest_record_age_ms: Some(1_500),
        oldest_queued_ms: Some(1_000),
        read_limit: blocked.as_ref().map(|_| "max_queued".to_owned()),
        stalled: blocked.is_some(),
        stalled_ms: blocked.as_ref().map(|_| 32_000),
        stop_reason: None,
        blocked,
    }
}

fn broker(name: &str, state: BrokerState, round_trip_us: Option<u64>) -> BrokerStatus {
    BrokerStatus {
        broker: name.to_owned(),
        state,
        round_trip_us,
        round_trip_p99_us: round_trip_us.map(|micros| 2 * micros),
        throttle_ms: 30,
    }
}

fn handler(partitions: Vec<PartitionStatus>) -> HandlerStatus {
    HandlerStatus {
        handler: "orders".to_owned(),
        group: "orders-v1".to_owned(),
        topics: vec!["orders".to_owned()],
        dead_letter_topics: vec!["orders.dlq".to_owned()],
        delivery: DeliveryMode::AtLeastOnce,
        transactions: None,
        keyed_state: None,
        gate: None,
        component: "orders.wasm".to_owned(),
        component_sha256: Some("0123456789abcdef".to_owned()),
        state: HandlerState::Running,
        failures: Vec::new(),
        unresponsive_ms: None,
        limited_by: Some(LimitStatus {
            cause: "retries".to_owned(),
            meaning: "all lanes wait".to_owned(),
            detail: "lanes that wait for their next attempt: 1 of 12".to_owned(),
            remedy: "see the errors".to_owned(),
        }),
        rates: Some(RateStatus { settled: 1_234.56, retries: 0.25, dead_letters: 0.0 }),
        call_times: Some(CallTimeStatus { p50_us: Some(244), p99_us: None }),
        catch_up_ms: Some(65_000),
        calls: 3,
        waiting_calls: 0,
        calls_limit: 256,
        instances: InstanceStatus { idle: 5, busy: 3 },
        guest_memory_bytes: (11 << 20) + (1 << 19),
        lanes: 12,
        ready_lanes: 4,
        retrying_lanes: 1,
        blocking_topic: None,
        totals: HandlerTotals { settled: 9, ..HandlerTotals::default() },
        filter: Vec::new(),
        brokers: vec![
            broker("b-1:9092/1", BrokerState::Up, Some(1_500)),
            broker("b-2:9092/2", BrokerState::Down, None),
            broker("b-3:9092/3", BrokerState::Up, Some(100_000)),
        ],
        no_broker_reachable: false,
        fetch_queue_bytes: None,
        grown_topics: vec![GrownTopicStatus { topic: "orders".to_owned(), partitions: 6, at_start: 4 }],
        partitions,
    }
}

#[test]
fn a_status_is_shown_with_stalls_and_their_remedies() {
    let blocked = BlockedStatus {
        reason: "retrying".to_owned(),
        meaning: "the event failed".to_owned(),
        offset: Some(41),
        attempt: 3,
        lane: Some("0123456789ab".to_owned()),
        error: Some("no price\nfor it".to_owned()),
        awaited_topics: vec!["out\x07".to_owned()],
        remedy: "look at\x1b[31m the log".to_owned(),
        see: "docs/operations.md#retrying".to_owned(),
    };
    let status = ProcessStatus {
        version: "0.1.0".to_owned(),
        pid: 7,
        host: "worker-1".to_owned(),
        time_ms: 0,
        uptime_ms: 192_400,
        configuration_sha256: "00".to_owned(),
        state: ProcessState::Running,
        workers: 2,
        memory_budget_bytes: 128 << 20,
        memory: MemoryStatus { resident_bytes: Some(96 << 20), ..MemoryStatus::default() },
        log_lines_dropped: 0,
        handlers: vec![handler(vec![partition(0, None), partition(1, Some(blocked))])],
        producer_brokers: Vec::new(),
    };
    assert_eq!(
        of(&status, "http://127.0.0.1:9277"),
        "keylane 0.1.0  pid 7  up 3m 12s  http://127.0.0.1:9277  running

handler orders  group orders-v1  component 0123456789ab  running
  limited by retries: lanes that wait for their next attempt: 1 of 12
  1234.6 events/s  0.2 retries/s  0.0 dead letters/s  calls p50 244 µs, p99 -  caught up in about 1m 5s
  calls 3 of 256  lanes 12 (4 ready, 1 retrying)  settled 9  dead letters 0  retries 0  outputs 0
  instances 3 busy, 5 idle  linear memory 11.5 MiB
  brokers 2 up, 1 down (b-2:9092/2)  slowest round trip 100000 µs, p99 200000 µs  throttled for up to 30 ms
  topic orders has 6 partitions, at start 4: see docs/recipes/partition-count.md
  partition  state          committed        lag  unsettled    queued       age
  orders/0   active                 -          -         57        17        1s
  orders/1   active                41         59         57        17        1s
             reading is paused by `max_queued`
             no progress for 32s: retrying at 41, attempt 3, lane 0123456789ab, topic out : look at [31m the log
             last error: no price for it
"
    );
}

#[test]
fn transactions_are_shown_with_what_they_leave_out() {
    let mut left_out = partition(0, None);
    left_out.left_out = Some(LeftOutStatus {
        topic: "totals".to_owned(),
        error: "Broker: Message size too large (MSG_SIZE_TOO_LARGE)".to_owned(),
    });
    left_out.withheld = 7;
    let mut handler = handler(vec![left_out]);
    handler.delivery = DeliveryMode::Transactional;
    handler.transactions = Some(TransactionsStatus {
        committed: 12,
        aborted: 1,
        records: 300,
        rate: Some(9.96),
        records_per_transaction: Some(25.0),
        p50_us: Some(6_103),
        p99_us: None,
        kept_bytes: 1 << 20,
        last_abort: Some(AbortStatus { time_ms: 1_000, reason: "topic `totals`: too large".to_owned() }),
        unavailable: Some("no broker\nanswers".to_owned()),
    });
    let mut text = String::new();
    of_handler(&mut text, &handler, 63_500);
    for line in [
        "  transactions 10.0/s with 25.0 records  p50 6103 µs, p99 -  committed 12 with 300 records  aborted 1  kept 1.0 MiB",
        "  last abort 1m 2s ago: topic `totals`: too large",
        "  the brokers can't keep transactions: no broker answers",
        "             left out of transactions: topic totals: Broker: Message size too large (MSG_SIZE_TOO_LARGE)",
        "             withheld events: 7",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}

#[test]
fn a_handler_without_a_reachable_broker_is_shown_before_its_numbers() {
    let mut handler = handler(Vec::new());
    handler.no_broker_reachable = true;
    handler.brokers = vec![
        broker("b-1:9092/1", BrokerState::Unresponsive, None),
        broker("b-2:9092/2", BrokerState::Idle, None),
    ];
    let mut text = String::new();
    of_handler(&mut text, &handler, 0);
    assert!(text.lines().nth(1).is_some_and(|line| line.contains("no broker can be reached: ")), "{text}");
    assert!(text.contains("\n  brokers 1 unresponsive (b-1:9092/1), 1 idle  throttled"), "{text}");
}
