//! The value of a mark record: what the gate of a handler remembers of one gate key.
//!
//! ```text
//! value := 0x01 crc:u32be flags:u8 mark:i64be? holes:u32be (from:i64be to:i64be)* delivered:u32be value:i64be*
//! flags := 1: there is a mark; 2: the key is broken
//! crc   := CRC-32 of everything after it
//! ```

use crate::record_error::{self, RecordError};

/// The only format so far.
const FORMAT: u8 = 1;

const HAS_MARK: u8 = 1;
const IS_BROKEN: u8 = 2;

/// What a gate remembers of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkRecord {
    /// The order value up to which the events of the key have passed.
    pub mark: Option<i64>,
    /// Whether events follow the dead letters of a gap until the value after the mark comes.
    pub broken: bool,
    /// Values up to the mark whose events may still come: first and last value of each range, ascending.
    pub holes: Vec<(i64, i64)>,
    /// The last values that were done, oldest first.
    pub delivered: Vec<i64>,
}

impl MarkRecord {
    /// Returns whether nothing is remembered: such a record is deleted instead of written.
    pub fn is_empty(&self) -> bool {
        self.mark.is_none() && !self.broken && self.holes.is_empty() && self.delivered.is_empty()
    }

    /// Sets the mark as an operator requests it: the key continues with the value after it. What is remembered of values above
    /// it is forgotten, and the key is not broken any more.
    pub fn set(&mut self, value: i64) {
        self.mark = Some(value);
        self.broken = false;
        self.holes.retain(|(from, _)| *from <= value);
        self.holes.iter_mut().for_each(|(_, to)| *to = (*to).min(value));
        self.delivered.retain(|delivered| *delivered <= value);
    }

    /// Appends the value of a record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let MarkRecord { mark, broken, holes, delivered } = self;
        let start = record_error::begin(FORMAT, out);
        out.push(if mark.is_some() { HAS_MARK } else { 0 } | if *broken { IS_BROKEN } else { 0 });
        out.extend(mark.iter().flat_map(|mark| mark.to_be_bytes()));
        push_length(holes.len(), out);
        for (from, to) in holes {
            out.extend_from_slice(&from.to_be_bytes());
            out.extend_from_slice(&to.to_be_bytes());
        }
        push_length(delivered.len(), out);
        out.extend(delivered.iter().flat_map(|value| value.to_be_bytes()));
        record_error::seal(start, out);
    }

    /// Decodes the value of a record.
    ///
    /// # Errors
    /// The value is damaged, has a newer format, or was not written by Keylane.
    pub fn decode(value: &[u8]) -> Result<MarkRecord, RecordError> {
        let ends_early = RecordError::EndsEarly { length: value.len() };
        let mut rest = record_error::content(value, FORMAT)?;
        let [flags] = take(&mut rest).ok_or(ends_early)?;
        if flags & !(HAS_MARK | IS_BROKEN) != 0 {
            return Err(RecordError::InvalidField { field: "flags" });
        }
        let mut number = || take(&mut rest).map(i64::from_be_bytes).ok_or(ends_early);
        let mark = if flags & HAS_MARK != 0 { Some(number()?) } else { None };
        let count = length(&mut rest).ok_or(ends_early)?;
        let mut number = || take(&mut rest).map(i64::from_be_bytes).ok_or(ends_early);
        let holes = (0..count).map(|_| Ok((number()?, number()?))).collect::<Result<Vec<_>, _>>()?;
        let is_ascending = holes.windows(2).all(|pair| matches!(pair, [(_, to), (from, _)] if to < from));
        if !is_ascending || holes.iter().any(|(from, to)| from > to) {
            return Err(RecordError::InvalidField { field: "range of holes" });
        }
        let count = length(&mut rest).ok_or(ends_early)?;
        let mut number = || take(&mut rest).map(i64::from_be_bytes).ok_or(ends_early);
        let delivered = (0..count).map(|_| number()).collect::<Result<Vec<_>, _>>()?;
        if !rest.is_empty() {
            return Err(RecordError::InvalidField { field: "length" });
        }
        Ok(MarkRecord { mark, broken: flags & IS_BROKEN != 0, holes, delivered })
    }
}

fn push_length(length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).expect("a gate remembers far fewer values");
    out.extend_from_slice(&length.to_be_bytes());
}

fn take<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (chunk, behind) = rest.split_first_chunk::<LENGTH>()?;
    *rest = behind;
    Some(*chunk)
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(take(rest)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_is_set_ends_what_is_above_it() {
        let mut record = MarkRecord {
            mark: Some(9),
            broken: true,
            holes: vec![(1, 2), (4, 7), (9, 9)],
            delivered: vec![3, 9, 5],
        };
        record.set(5);
        let expected =
            MarkRecord { mark: Some(5), broken: false, holes: vec![(1, 2), (4, 5)], delivered: vec![3, 5] };
        assert_eq!(record, expected);
        record.set(20);
        assert_eq!(record, MarkRecord { mark: Some(20), ..expected });
        let mut unknown = MarkRecord::default();
        unknown.set(-1);
        assert_eq!(unknown, MarkRecord { mark: Some(-1), ..MarkRecord::default() });
    }

    fn encoded(record: &MarkRecord) -> Vec<u8> {
        let mut value = Vec::new();
        record.encode(&mut value);
        value
    }

    fn record() -> MarkRecord {
        let holes = vec![(i64::MIN + 1, 0), (2, 2), (7, 9)];
        MarkRecord { mark: Some(12), broken: true, holes, delivered: vec![12, 11] }
    }

    #[test]
    fn a_record_is_decoded_as_it_was_encoded() {
        let only_mark = MarkRecord { mark: Some(-1), ..MarkRecord::default() };
        for record in [record(), only_mark, MarkRecord::default()] {
            assert_eq!(MarkRecord::decode(&encoded(&record)), Ok(record));
        }
        assert!(MarkRecord::default().is_empty() && !record().is_empty());
    }

    /// The format is a contract between versions of Keylane.
    #[test]
    fn the_bytes_of_a_record_do_not_change() {
        let value = encoded(&MarkRecord { mark: Some(3), holes: vec![(1, 2)], ..MarkRecord::default() });
        let content = b"\x01\0\0\0\0\0\0\0\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0";
        assert_eq!((value[0], &value[5..]), (1, &content[..]));
    }

    #[test]
    fn every_damaged_byte_and_every_missing_end_is_detected() {
        let value = encoded(&record());
        for length in 0..value.len() {
            assert!(MarkRecord::decode(&value[..length]).is_err(), "{length} bytes");
        }
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 0x10;
            assert!(MarkRecord::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn content_without_meaning_is_named() {
        let check = |mut value: Vec<u8>, field| {
            record_error::seal(0, &mut value);
            assert_eq!(MarkRecord::decode(&value), Err(RecordError::InvalidField { field }));
        };
        let mut longer = encoded(&record());
        longer.push(0);
        check(longer, "length");
        let mut flags = encoded(&record());
        flags[5] = 4;
        check(flags, "flags");
        check(encoded(&MarkRecord { holes: vec![(3, 2)], ..record() }), "range of holes");
        check(encoded(&MarkRecord { holes: vec![(1, 2), (2, 3)], ..record() }), "range of holes");
    }
}
