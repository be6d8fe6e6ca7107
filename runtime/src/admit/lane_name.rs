//! Names of lanes for reports. Keys may be personal data, so a lane is named by a digest of its key.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Number of bytes of the digest in a name.
const BYTES: usize = 6;

/// Returns the name of a lane: the first 12 hex digits of SHA-256 over the group id, a zero byte, and the lane key. It
/// is the same in every process, unlike the hash that dispatches events.
pub fn lane_name(group: &str, lane_key: &[u8]) -> String {
    let digest = Sha256::new().chain_update(group).chain_update([0]).chain_update(lane_key).finalize();
    digest.iter().take(BYTES).fold(String::new(), |mut name, byte| {
        write!(name, "{byte:02x}").expect("writing to a string can't fail");
        name
    })
}

/// Returns a lane key as text: invalid UTF-8 is replaced, and control characters are escaped.
pub fn lane_key_text(lane_key: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(lane_key).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_start_of_a_digest_that_anyone_can_compute() {
        // printf 'orders\0customer-7' | sha256sum
        assert_eq!(lane_name("orders", b"customer-7"), "f81488df21cf");
        assert_ne!(lane_name("orders", b"customer-7"), lane_name("other", b"customer-7"));
        assert_eq!(lane_key_text(b"a\x1f\xff"), "a\\u{1f}\u{fffd}");
    }
}
