//! The handler of the simulator: how an event changes the state of its key.

use keylane_state::record_key::{KeyPart, push_key};
use keylane_state::{KeyBytes, StateValue};

/// The state after an event of this key. Some events delete the state, others leave it as it is. Each other state is the
/// number of events since the last deletion, and a hash of them in their order.
pub(super) fn after(state: &StateValue, key: u64, offset: i64) -> StateValue {
    let event = mix(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ offset as u64);
    match event % 8 {
        0 | 1 => None,
        2 => state.clone(),
        _ => {
            let number = |at: usize| {
                let bytes = state.as_ref().and_then(|state| state.get(at..at + 8));
                bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
            };
            let (count, hash) = (number(0) + 1, mix(number(8) ^ event));
            Some([count.to_be_bytes(), hash.to_be_bytes()].concat().into())
        }
    }
}

pub(super) fn record_key(key: u64) -> KeyBytes {
    let mut bytes = Vec::new();
    push_key(KeyPart::Bytes(&key.to_be_bytes()), &mut bytes);
    KeyBytes::from(&bytes[..])
}

/// The key of a record of a state.
pub(super) fn key_of(record_key: &[u8]) -> u64 {
    record_key.last_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
}

fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
