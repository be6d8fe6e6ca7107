//! Reads: limits, ends, byte content, positions.
use std::collections::BTreeMap;
use std::time::Duration;

use keylane_core::{Partition, ReadError};

use super::broker::{Sent, TEST_LIMIT, TOPIC, broker, send, spec};
use super::member::Member;
use crate::config::{Assignor, StartPolicy};
use crate::librdkafka::{Deadline, ErrorCode, StartupError};
use crate::source::{Ends, Error, Source, SourceEvent};

const P0: Partition = Partition { topic: 0, number: 0 };
/// API key of Fetch.
const FETCH: i16 = 1;

#[test]
fn limits_end_a_read_after_the_record_that_exceeds_them() {
    let broker = broker(1);
    let value = [7_u8; 100];
    let record = Sent { value: Some(&value), ..Sent::default() };
    send(&broker.bootstrap_servers(), TOPIC, std::iter::repeat_n(record, 50));
    let mut member = Member::join(&spec(&broker, Assignor::CooperativeSticky));
    member.max_events = 0; // `step` reads nothing
    member.until("the partition is assigned", |m| m.next.len() == 1);

    let mut offsets = Vec::new();
    // A wake-up may be spurious: a read may return nothing yet.
    let limit = Deadline::after(TEST_LIMIT);
    let mut read = |member: &mut Member, events, bytes| loop {
        assert!(!limit.is_over(), "no record is read");
        member.step();
        let result = member.source.read(P0, events, bytes, &mut |record| {
            offsets.push(record.offset());
            100
        });
        if result.records > 0 {
            return (result.records, result.more);
        }
    };
    assert_eq!(read(&mut member, 3, u64::MAX), (3, true));
    assert_eq!(read(&mut member, u32::MAX, 250), (3, true), "the third record exceeds 250 bytes");
    assert_eq!(read(&mut member, 1, 1), (1, true));
    let mut rest = 0;
    let mut end = None;
    while end.is_none() {
        assert!(!limit.is_over(), "the end of the partition is not reported");
        let result = member.source.read(P0, 1_000, u64::MAX, &mut |_| {
            rest += 1;
            1
        });
        end = result.end_of_partition;
        member.step();
    }
    assert_eq!((offsets, rest, end), ((0..7).collect(), 43, Some(50)));
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn bytes_are_returned_unchanged() {
    let broker = broker(1);
    let headers: [(&[u8], Option<&[u8]>); 4] =
        [(b"\xff\xfe", Some(b"\x80")), (b"n", None), (b"n", Some(b"")), (b"", Some(b"x"))];
    let records = [
        Sent { key: Some(b"\xc3\x28"), value: None, headers: &headers, ..Sent::default() },
        Sent { key: Some(b""), value: Some(b""), ..Sent::default() },
        Sent { key: None, value: Some(b"v"), ..Sent::default() },
    ];
    send(&broker.bootstrap_servers(), TOPIC, records);
    let mut member = Member::join(&spec(&broker, Assignor::CooperativeSticky));
    member.max_events = 0;
    member.until("the partition is assigned", |m| m.next.len() == 1);
    let mut found = Vec::new();
    let limit = Deadline::after(TEST_LIMIT);
    while found.len() < 3 {
        assert!(!limit.is_over(), "only these records were read: {found:?}");
        member.step();
        member.source.read(P0, 10, u64::MAX, &mut |record| {
            let headers: Vec<_> =
                record.headers().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
            let key = record.key().map(<[u8]>::to_vec);
            found.push((key, record.value().map(<[u8]>::to_vec), headers, record.timestamp().0));
            1
        });
    }
    let expected_headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
    assert_eq!(
        found,
        [
            (Some(b"\xc3\x28".to_vec()), None, expected_headers, 1_000),
            (Some(vec![]), Some(vec![]), vec![], 1_000),
            (None, Some(b"v".to_vec()), vec![], 1_000),
        ]
    );
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn a_position_outside_the_log_is_reported_and_corrected() {
    for assignor in [Assignor::CooperativeSticky, Assignor::Range] {
        let broker = broker(2);
        let records = (0..20).map(|number| Sent { partition: number % 2, ..Sent::default() });
        send(&broker.bootstrap_servers(), TOPIC, records);
        let mut member = Member::join(&spec(&broker, assignor));
        member.until("all records are read", |m| m.records.len() == 20);
        member.source.reposition(P0, 1_000);
        member.until("the error is reported", |m| {
            m.other_events.iter().any(|e| matches!(e, SourceEvent::ReadFailed { .. }))
        });
        let Some(SourceEvent::ReadFailed { partition, why }) = member.other_events.pop() else {
            panic!("the last event is not the error")
        };
        assert_eq!((partition, why), (P0, ReadError::OutOfRange { log_start: 0, log_end: 10 }));
        // The client can't seek from a position outside the log. The failure must be reported.
        member.source.reposition(P0, 4);
        let seek_failed = SourceEvent::ReadFailed { partition: P0, why: ReadError::SeekFailed };
        member.until("the seek fails", |m| {
            m.other_events.iter().any(|e| format!("{e:?}") == format!("{seek_failed:?}"))
        });
        member.source.reassign(P0, 4);
        member.next.insert(P0, 4);
        member.until("the partition is read again from 4", |m| m.records.len() == 26);
        member.source.reposition(P0, 8);
        member.next.insert(P0, 8);
        member.until("the partition is read again from 8", |m| m.records.len() == 28);
        assert_eq!(member.out_of_order, []);
        assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
    }
}

/// Any error code ends a read, even one that this version does not define.
#[test]
fn a_read_ends_with_the_brokers_error() {
    for (code, expected, continues) in [
        (ErrorCode(120), ReadError::Unknown, false),
        (ErrorCode(9_999), ReadError::Unknown, false),
        (ErrorCode::INVALID_MSG, ReadError::Corrupt, false),
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, ReadError::Denied, false),
        (ErrorCode::REQUEST_TIMED_OUT, ReadError::Interrupted, true),
    ] {
        let broker = broker(1);
        send(&broker.bootstrap_servers(), TOPIC, (0..5).map(|_| Sent::default()));
        let mut member = Member::join(&spec(&broker, Assignor::CooperativeSticky));
        member.until("all records are read", |m| m.records.len() == 5);
        // The mock cluster occasionally drops an injected error.
        let mut steps = 0;
        while member.read_errors.is_empty() {
            if steps % 200 == 0 {
                broker.mock().push_errors(FETCH, &[code]);
            }
            steps += 1;
            assert!(steps < 6_000, "{code:?} is not reported");
            member.step();
        }
        assert_eq!(member.read_errors, [(P0, expected)], "{code:?}");
        send(&broker.bootstrap_servers(), TOPIC, (0..5).map(|_| Sent::default()));
        if !continues {
            member.source.reposition(P0, 5);
        }
        member.until("reading continues", |m| m.records.len() == 10);
        assert_eq!(member.out_of_order, [], "{code:?}");
        assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
    }
}

#[test]
fn starts_and_ends_match_the_logs() {
    let broker = broker(2);
    send(&broker.bootstrap_servers(), TOPIC, std::iter::repeat_n(Sent::default(), 12));
    let mut spec = spec(&broker, Assignor::CooperativeSticky);
    spec.ends = Ends::LogEnd;
    spec.start = StartPolicy::Latest;
    let mut member = Member::join(&spec);
    member.until("both start positions are found", |m| m.starts.len() == 2);
    member.starts.sort_by_key(|start| start.partition);
    let found: Vec<_> = member
        .starts
        .iter()
        .map(|start| {
            (start.partition.number, start.committed.clone(), start.fallback, start.log_start, start.log_end)
        })
        .collect();
    assert_eq!(found, [(0, None, 12, 0, Some(12)), (1, None, 0, 0, Some(0))]);
    let ends: BTreeMap<i32, i64> =
        member.ends.iter().map(|(partition, end)| (partition.number, *end)).collect();
    assert_eq!(ends, BTreeMap::from([(0, 12), (1, 0)]));
    member.until("the end of the log is reached", |m| m.log_ends.get(&P0) == Some(&12));
    assert_eq!(member.records.len(), 0);
    assert!(member.source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}

/// Each response takes more than a second, and a lookup needs several of them.
#[test]
fn starts_are_found_on_slow_brokers() {
    let broker = broker(3);
    let bootstrap = broker.bootstrap_servers();
    send(&bootstrap, TOPIC, (0..3).map(|partition| Sent { partition, ..Sent::default() }));
    broker.mock().set_round_trip_time(1, Duration::from_millis(1_200)).expect("the round-trip time is set");
    let mut member = Member::join(&spec(&broker, Assignor::CooperativeSticky));
    member.until("all records are read", |m| m.records.len() == 3);
    let found: Vec<_> = member.starts.iter().map(|start| (start.log_start, start.log_end)).collect();
    assert_eq!(found, [(0, Some(1)); 3]);
}

#[test]
fn a_missing_topic_is_an_error_with_a_remedy() {
    let broker = broker(1);
    let mut spec = spec(&broker, Assignor::CooperativeSticky);
    spec.topics = vec![TOPIC.to_owned(), "no-such-topic".to_owned()];
    let wake = crate::librdkafka::Wake::new().expect("an eventfd can be created");
    let result = Source::start(&spec, wake, &mut |_| std::ops::ControlFlow::Continue(()));
    let Err(error) = result else { panic!("the source must not start") };
    assert!(
        matches!(&error, Error::Startup(StartupError::TopicsMissing { topics, .. }) if topics == &["no-such-topic"]),
        "{error}"
    );
}

#[test]
fn the_source_waits_for_an_unavailable_broker() {
    let broker = broker(1);
    broker.mock().set_broker_up(1, false).expect("the broker is stopped");
    let wake = crate::librdkafka::Wake::new().expect("an eventfd can be created");
    let mut reasons = Vec::new();
    let result = Source::start(&spec(&broker, Assignor::CooperativeSticky), wake, &mut |waiting| {
        reasons.push(waiting.reason.clone());
        if reasons.len() == 1 {
            broker.mock().set_broker_up(1, true).expect("the broker is started");
        }
        std::ops::ControlFlow::Continue(())
    });
    let source = result.expect("the source starts once the broker is available");
    assert!(!reasons.is_empty(), "the wait was reported");
    assert!(source.leave(Duration::from_secs(10), Duration::from_secs(10)));
}
