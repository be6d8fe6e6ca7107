//! The partition of a key, as Java clients compute it.

use std::ptr;

use crate::sys;

/// Returns the partition of a key among `partitions` (at least 1), as Kafka's default partitioner chooses it.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    // SAFETY: the key is valid for its length during the call. The function reads no other pointer.
    unsafe {
        sys::rd_kafka_msg_partitioner_murmur2(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            partitions.max(1),
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes from Kafka's own test.
    #[test]
    fn the_partition_is_that_of_java_clients() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            for partitions in [1, 7, 1000, i32::MAX] {
                let expected = (hash & i32::MAX) % partitions;
                assert_eq!(partition_for_key(key.as_bytes(), partitions), expected, "{key}: {partitions}");
            }
        }
        assert_eq!(partition_for_key(b"x", 0), 0);
    }
}
