//! Why a record of a changelog can't be read.

use thiserror::Error;

/// Why the value of a record of a changelog can't be decoded. Such a record is never taken for an absent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The record ends before its last field.
    #[error("the record ends early, after {length} bytes: it is damaged, or was not written by Keylane")]
    EndsEarly {
        /// The length of the value in bytes.
        length: usize,
    },
    /// The format is newer than this version of Keylane.
    #[error(
        "the record has format {found}, and this version of Keylane reads up to {newest}: update Keylane"
    )]
    NewerFormat {
        /// The format of the record.
        found: u8,
        /// The newest format that this version reads.
        newest: u8,
    },
    /// No version of Keylane has written this format.
    #[error("the record has the unknown format {found}: it was not written by Keylane")]
    UnknownFormat {
        /// The format of the record.
        found: u8,
    },
    /// The checksum differs: the record is damaged.
    #[error("the record is damaged: its checksum is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// The checksum of the content.
        found: u32,
        /// The checksum that the record contains.
        expected: u32,
    },
    /// The checksum is right, but a field has no meaning.
    #[error("the record has an invalid {field}: it was not written by Keylane")]
    InvalidField {
        /// The name of the field.
        field: &'static str,
    },
}

/// Appends the format, and a placeholder for the checksum. Returns the position of the record in `out`.
pub(crate) fn begin(format: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.push(format);
    out.extend_from_slice(&[0; 4]);
    start
}

/// Replaces the placeholder for the checksum of the record that begins at `start`.
pub(crate) fn seal(start: usize, out: &mut [u8]) {
    let record = out.get_mut(start..).and_then(|record| record.get_mut(1..));
    let (crc, content) =
        record.and_then(<[u8]>::split_first_chunk_mut::<4>).expect("a record begins with these bytes");
    *crc = crc32fast::hash(content).to_be_bytes();
}

/// Checks the format and the checksum of a value, and returns its content.
pub(crate) fn content(value: &[u8], newest: u8) -> Result<&[u8], RecordError> {
    let ends_early = RecordError::EndsEarly { length: value.len() };
    let (&format, rest) = value.split_first().ok_or(ends_early)?;
    if format == 0 {
        return Err(RecordError::UnknownFormat { found: format });
    }
    if format > newest {
        return Err(RecordError::NewerFormat { found: format, newest });
    }
    let (crc, content) = rest.split_first_chunk::<4>().ok_or(ends_early)?;
    let (found, expected) = (crc32fast::hash(content), u32::from_be_bytes(*crc));
    if found == expected { Ok(content) } else { Err(RecordError::Checksum { found, expected }) }
}
