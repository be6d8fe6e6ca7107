//! The value of a key record: the state of one lane key.
//!
//! ```text
//! value := 0x01 crc:u32be version:u32be state
//! crc   := CRC-32 of everything after it
//! ```

use crate::record_error::{self, RecordError};

/// The only format so far.
const FORMAT: u8 = 1;

/// The bytes that a value has beside the state.
pub const STATE_RECORD_OVERHEAD: usize = 9;

/// The state of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRecord<'a> {
    /// The version of the state, as configured for the component that wrote it.
    pub version: u32,
    /// The state, as the handler returned it.
    pub state: &'a [u8],
}

impl<'a> StateRecord<'a> {
    /// Appends the value of a record with this state to `out`: the state and [`STATE_RECORD_OVERHEAD`] bytes.
    pub fn encode(version: u32, state: &[u8], out: &mut Vec<u8>) {
        out.reserve(STATE_RECORD_OVERHEAD + state.len());
        let start = record_error::begin(FORMAT, out);
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(state);
        record_error::seal(start, out);
    }

    /// Decodes the value of a record.
    ///
    /// # Errors
    /// The value is damaged, has a newer format, or was not written by Keylane.
    pub fn decode(value: &'a [u8]) -> Result<StateRecord<'a>, RecordError> {
        let content = record_error::content(value, FORMAT)?;
        let ends_early = RecordError::EndsEarly { length: value.len() };
        let (version, state) = content.split_first_chunk::<4>().ok_or(ends_early)?;
        Ok(StateRecord { version: u32::from_be_bytes(*version), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(version: u32, state: &[u8]) -> Vec<u8> {
        let mut value = Vec::new();
        StateRecord::encode(version, state, &mut value);
        value
    }

    #[test]
    fn a_state_is_decoded_as_it_was_encoded() {
        for state in [&b""[..], b"a", &[0; 1000]] {
            let value = encoded(7, state);
            assert_eq!(value.len(), STATE_RECORD_OVERHEAD + state.len());
            assert_eq!(StateRecord::decode(&value), Ok(StateRecord { version: 7, state }));
        }
    }

    #[test]
    fn a_state_is_appended() {
        let mut out = b"before".to_vec();
        StateRecord::encode(1, b"state", &mut out);
        assert_eq!(StateRecord::decode(&out[6..]), Ok(StateRecord { version: 1, state: b"state" }));
    }

    /// The format is a contract between versions of Keylane.
    #[test]
    fn the_bytes_of_a_record_do_not_change() {
        assert_eq!(encoded(2, b"ada"), [1, 0x45, 0x54, 0x49, 0x8f, 0, 0, 0, 2, b'a', b'd', b'a']);
    }

    #[test]
    fn every_damaged_byte_and_every_missing_end_is_detected() {
        let value = encoded(7, b"the state");
        for length in 0..value.len() {
            assert!(StateRecord::decode(&value[..length]).is_err(), "{length} bytes");
        }
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut damaged = value.clone();
                damaged[at] ^= 1 << bit;
                assert!(StateRecord::decode(&damaged).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut value = encoded(7, b"state");
        value[0] = 2;
        assert_eq!(StateRecord::decode(&value), Err(RecordError::NewerFormat { found: 2, newest: 1 }));
        let message = StateRecord::decode(&value).expect_err("a newer format").to_string();
        assert_eq!(
            message,
            "the record has format 2, and this version of Keylane reads up to 1: update Keylane"
        );
        assert_eq!(StateRecord::decode(&[0, 1, 2]), Err(RecordError::UnknownFormat { found: 0 }));
        assert_eq!(StateRecord::decode(&[]), Err(RecordError::EndsEarly { length: 0 }));
    }
}
