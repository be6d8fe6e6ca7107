//! The measured topic: 8 partitions, values of 100 to 1,024 bytes, three headers, keys `k%08d`.

use std::time::Duration;

use anyhow::Result;
use keylane_tests::kafka::{Cluster, Producer, Record, unique};
use keylane_tests::wait;

/// Partitions of every topic of this program.
pub(crate) const PARTITIONS: i32 = 8;

const SHORTEST: u64 = 100;
const LONGEST: u64 = 1_024;

/// Half the size of a small CPU cache. Values are windows of this pool, so they are cheap to
/// create.
const POOL: u64 = 1 << 16;

/// A written topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) events: u64,
    pub(crate) written_in: Duration,
}

/// Writes `events` events with `keys` distinct keys, and waits until all are acknowledged.
pub(crate) fn write(cluster: &Cluster, events: u64, keys: u64) -> Result<Topic> {
    let name = empty(cluster);
    let producer = Producer::new(&cluster.bootstrap());
    let (sent, written_in) = wait::timed(|| producer.send_all(&name, Events::new(events, keys)));
    sent?;
    Ok(Topic { name, events, written_in })
}

/// A topic without events.
pub(crate) fn empty(cluster: &Cluster) -> String {
    let name = unique("figures");
    cluster.admin().create_topic(&name, PARTITIONS, &[]);
    name
}

/// The same events in every run.
pub(crate) struct Events {
    made: u64,
    events: u64,
    keys: u64,
    random: Random,
    pool: Vec<u8>,
}

impl Events {
    pub(crate) fn new(events: u64, keys: u64) -> Self {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let pool = (0..POOL / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { made: 0, events, keys, random, pool }
    }

    /// Returns every key once, in scattered order, so that no key is omitted, and then random keys.
    fn key(&mut self) -> u64 {
        /// A prime, so that its multiples reach every key before one repeats.
        const STRIDE: u64 = 7_368_787;
        if self.made < self.keys { self.made * STRIDE % self.keys } else { self.random.below(self.keys) }
    }

    fn value(&mut self) -> Vec<u8> {
        let length = SHORTEST + self.random.below(LONGEST - SHORTEST + 1);
        let start = self.random.below(POOL - length);
        let [start, end] = [start, start + length].map(|at| usize::try_from(at).expect("the pool is small"));
        self.pool.get(start..end).expect("the window is inside the pool").to_vec()
    }
}

impl Iterator for Events {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.made == self.events {
            return None;
        }
        let key = format!("k{:08}", self.key());
        let value = self.value();
        let trace = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        let record = Record::new(key, value)
            .with("event-type", "order-changed")
            .with("trace-id", trace)
            .with("version", (1 + self.random.below(9)).to_string());
        self.made += 1;
        Some(record)
    }
}

/// Marsaglia's xorshift, with the multiplication that improves its low bits.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn events_match_the_options() {
        let events: Vec<Record> = Events::new(5_000, 1_000).collect();
        assert_eq!(events.len(), 5_000);
        let keys: BTreeSet<_> = events.iter().map(|event| event.key.clone()).collect();
        assert_eq!(keys.len(), 1_000);
        let lengths: Vec<usize> =
            events.iter().filter_map(|event| Some(event.value.as_ref()?.len())).collect();
        assert!(lengths.iter().all(|length| (100..=1_024).contains(length)));
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((540..585).contains(&mean), "{mean}");
        assert!(events.iter().all(|event| event.headers.len() == 3));
        assert!(events.iter().all(|event| event.headers[1].1.as_ref().map(Vec::len) == Some(32)));
        assert_eq!(events[0].key.as_ref().map(Vec::len), Some(9));
    }
}
