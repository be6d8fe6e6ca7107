//! The completed set in the commit metadata, compared with a simple model: a list of runs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use keylane_core::codec::{Encoder, Identity, decode};
use proptest::prelude::*;

/// Run lengths of every size, mostly small.
fn run() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1u64..5, 4 => 1u64..300, 2 => 1u64..100_000, 1 => 1u64..64_000_000]
}

fn identity() -> impl Strategy<Value = Identity> {
    let topic_id = prop_oneof![Just([0; 16]), any::<[u8; 16]>()];
    (topic_id, 0i32..100_000, 0i64..1 << 50).prop_map(|(topic_id, partition, offset)| Identity {
        topic_id,
        partition,
        offset,
    })
}

fn encode(identity: &Identity, runs: &[(u64, u64)], limit: usize) -> (String, u64) {
    let mut text = String::new();
    let claimed = Encoder::default().encode(identity, runs.iter().copied(), limit, &mut text);
    (text, claimed)
}

/// The settled ranges that the runs describe.
fn ranges(start: i64, runs: &[(u64, u64)]) -> Vec<(i64, i64)> {
    let mut at = start;
    let mut found = Vec::new();
    for &(open, done) in runs {
        let from = at + i64::try_from(open).unwrap();
        at = from + i64::try_from(done).unwrap();
        found.push((from, at));
    }
    found
}

fn count(ranges: &[(i64, i64)]) -> u64 {
    ranges.iter().map(|&(from, to)| to.abs_diff(from)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_set_that_fits_is_decoded_completely(id in identity(), runs in prop::collection::vec((run(), run()), 0..200)) {
        let (text, claimed) = encode(&id, &runs, 1 << 20);
        let expected = ranges(id.offset, &runs);
        prop_assert_eq!(claimed, count(&expected));
        let end = expected.last().map_or(id.offset, |&(_, to)| to);
        prop_assert_eq!(decode(text.as_bytes(), &id, end), Some(expected));
        if !runs.is_empty() {
            prop_assert_eq!(decode(text.as_bytes(), &id, end - 1), None, "a claim past the end of the log");
        }
    }

    #[test]
    fn a_set_that_does_not_fit_is_truncated_at_the_end(
        id in identity(),
        runs in prop::collection::vec((run(), run()), 1..400),
        limit in 0usize..300,
    ) {
        let (text, claimed) = encode(&id, &runs, limit);
        prop_assert!(text.len() <= limit);
        let got = decode(text.as_bytes(), &id, i64::MAX).expect("an encoded set can be decoded");
        prop_assert_eq!(claimed, count(&got));
        let all = ranges(id.offset, &runs);
        prop_assert!(got.len() <= all.len());
        for (at, (got_run, whole)) in got.iter().zip(&all).enumerate() {
            let last = at + 1 == got.len();
            prop_assert_eq!(got_run.0, whole.0);
            prop_assert!(got_run.1 == whole.1 || (last && got_run.1 < whole.1), "only the last run may be truncated");
        }
    }

    #[test]
    fn a_higher_limit_never_claims_less(
        id in identity(),
        runs in prop::collection::vec((1u64..20, 1u64..20), 1..400),
        limit in 40usize..300,
    ) {
        let (_, small) = encode(&id, &runs, limit);
        let (_, whole) = encode(&id, &runs, 4096);
        prop_assert!(small <= whole);
    }

    #[test]
    fn a_reused_buffer_changes_nothing(
        id in identity(),
        first in prop::collection::vec((run(), run()), 1..50),
        second in prop::collection::vec((run(), run()), 1..50),
    ) {
        let mut encoder = Encoder::default();
        let mut text = String::new();
        encoder.encode(&id, first.iter().copied(), 4096, &mut text);
        let from = text.len();
        encoder.encode(&id, second.iter().copied(), 4096, &mut text);
        prop_assert_eq!(&text[from..], encode(&id, &second, 4096).0);
    }

    #[test]
    fn foreign_text_claims_nothing_and_never_panics(
        id in identity(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        characters in "[A-Za-z0-9_-]{0,120}",
    ) {
        prop_assert!(decode(&bytes, &id, i64::MAX).is_none() || bytes.is_empty());
        prop_assert_eq!(decode(format!("kl1:{characters}").as_bytes(), &id, i64::MAX), None);
        prop_assert_eq!(decode(b"", &id, 0), Some(Vec::new()));
    }

    #[test]
    fn any_changed_byte_is_detected(
        id in identity(),
        runs in prop::collection::vec((run(), run()), 1..40),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let (text, _) = encode(&id, &runs, 4096);
        let mut damaged = text.into_bytes();
        let at = at.index(damaged.len());
        prop_assume!(damaged[at] != to);
        damaged[at] = to;
        prop_assert_eq!(decode(&damaged, &id, i64::MAX), None);
    }

    #[test]
    fn a_set_is_bound_to_its_topic_partition_and_offset(
        id in identity(),
        other in identity(),
        runs in prop::collection::vec((run(), run()), 1..40),
    ) {
        let (text, _) = encode(&id, &runs, 4096);
        let unnamed = id.topic_id == [0; 16] && (id.partition, id.offset) == (other.partition, other.offset);
        if other != id && !unnamed {
            prop_assert_eq!(decode(text.as_bytes(), &other, i64::MAX), None);
        }
    }
}

#[test]
fn an_impossible_set_is_ignored_without_allocating_for_it() {
    // The checksum is valid, but the count of runs is not. No claim counts, and no memory is
    // reserved.
    let id = Identity { topic_id: [0; 16], partition: 0, offset: i64::MAX - 10 };
    let (text, claimed) = encode(&id, &[(5, 4)], 4096);
    assert_eq!(claimed, 4);
    assert_eq!(decode(text.as_bytes(), &id, i64::MAX), Some(vec![(i64::MAX - 5, i64::MAX - 1)]));
    let (text, _) = encode(&id, &[(5, 40)], 4096);
    assert_eq!(decode(text.as_bytes(), &id, i64::MAX), None, "a run past the last possible offset");
}
