//! The partition of a key, as Java clients compute it.

/// The partition of a key among `partitions` (at least 1), as Kafka's default partitioner chooses it: fed records get the
/// partitions that a producer of the same data would choose.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    let count = u32::try_from(partitions).unwrap_or(1).max(1);
    i32::try_from(positive % count).expect("the remainder is less than an i32")
}

/// Murmur2 with the seed and the tail handling of Kafka's Java client.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let length = u32::try_from(data.len()).expect("a key is shorter than 4 GiB");
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (byte, shift) in tail.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from Kafka's own test of the hash.
    #[test]
    fn the_hash_matches_java_clients() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn every_partition_is_in_range() {
        for number in 0..1000_u32 {
            let partition = partition_for_key(&number.to_be_bytes(), 7);
            assert!((0..7).contains(&partition));
        }
        assert_eq!(partition_for_key(b"x", 0), 0);
    }
}
