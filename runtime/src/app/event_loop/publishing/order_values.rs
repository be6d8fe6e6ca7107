//! The header with the order value of an output's event, so that the order can be restored downstream: for outputs with
//! `order_value`.

use std::io::Write as _;

use keylane_core::Row;

use crate::admit::{Arena, ArenaRecord, FieldReader, Header, OrderValueRule};
use crate::config::{HandlerConfig, OrderBy};
use crate::guest::GuestOutput;
use crate::sink::RecordSize;

use super::calls::PendingCall;

/// The longest 64-bit integer as text.
const DIGITS_MAX: usize = "-9223372036854775808".len();

/// Reads the order values of events, and writes them to the headers of outputs.
pub(super) struct OrderValues {
    /// The name of the header, by target; `None`: its outputs have none.
    names: Vec<Option<Vec<u8>>>,
    /// `None`: no target has a header, so no value is read.
    reader: Option<Reader>,
}

/// Reads values as the gate does. Without a gate they are the timestamps of records.
struct Reader {
    values: OrderValueRule,
    /// An event without its gate key has no place in the order.
    gate_key: Option<FieldReader>,
    /// Reused: the gate key of an event.
    bytes: Vec<u8>,
}

/// The header of one output.
pub(super) struct OrderHeader<'a> {
    name: &'a [u8],
    digits: [u8; DIGITS_MAX],
    /// Number of digits.
    length: usize,
}

impl OrderValues {
    pub(super) fn new(handler: &HandlerConfig) -> OrderValues {
        let name = |name: &Option<String>| name.as_ref().map(|name| name.clone().into_bytes());
        let names: Vec<_> = handler.outputs.iter().map(|output| name(&output.order_value)).collect();
        let gate = handler.order.gate.as_ref();
        let reader = names.iter().any(Option::is_some).then(|| Reader {
            values: OrderValueRule::new(gate.map_or(&OrderBy::Timestamp, |gate| &gate.by)),
            gate_key: gate.and_then(|gate| gate.key.as_ref()).map(FieldReader::new),
            bytes: Vec::new(),
        });
        OrderValues { names, reader }
    }

    /// Adds the order values of these rows, while their events are in the arena. Adds nothing if no output has a header.
    pub(super) fn read(&mut self, rows: &[Row], arena: &Arena, values: &mut Vec<Option<i64>>) {
        let Some(reader) = &mut self.reader else { return };
        values.extend(rows.iter().map(|row| reader.value(&arena.get(row.arena_slot), row.timestamp)));
    }

    /// Returns the header of an output of this call; `None`: it has none.
    pub(super) fn header(
        &self,
        output: &GuestOutput<'_>,
        call: Option<&PendingCall>,
    ) -> Option<OrderHeader<'_>> {
        let name = self.names.get(output.target as usize)?.as_ref()?;
        let value = *call?.order_values.get(output.row as usize)?;
        Some(OrderHeader::new(name, value?))
    }
}

impl Reader {
    fn value(&mut self, record: &ArenaRecord<'_>, timestamp_ms: i64) -> Option<i64> {
        self.bytes.clear();
        let has_gate_key = self.gate_key.as_ref().is_none_or(|key| key.append(record, &mut self.bytes));
        self.values.value(record, timestamp_ms).filter(|_| has_gate_key)
    }
}

impl<'a> OrderHeader<'a> {
    fn new(name: &'a [u8], value: i64) -> OrderHeader<'a> {
        let mut digits = [0; DIGITS_MAX];
        let mut left = digits.as_mut_slice();
        write!(left, "{value}").expect("the digits of every 64-bit integer fit");
        let length = DIGITS_MAX - left.len();
        OrderHeader { name, digits, length }
    }

    pub(super) fn get(&self) -> Header<'_> {
        (self.name, self.digits.get(..self.length))
    }

    /// Returns the size of a record with this header.
    pub(super) fn add_to(size: RecordSize, header: &OrderHeader<'_>) -> RecordSize {
        let (name, value) = header.get();
        size.with(name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EventField, OrderFormat};

    fn read(by: &OrderBy, gate_key: Option<&str>, headers: &[Header<'_>], timestamp: i64) -> Option<i64> {
        let mut arena = Arena::default();
        let (slot, _) = arena.store(Some(b"key"), Some(b"{}"), headers.iter().copied(), false);
        let gate_key = gate_key.map(|name| FieldReader::new(&EventField::Header(name.to_owned())));
        let mut reader = Reader { values: OrderValueRule::new(by), gate_key, bytes: Vec::new() };
        reader.value(&arena.get(slot), timestamp)
    }

    #[test]
    fn a_value_is_that_of_the_gate() {
        let by = OrderBy::Field(EventField::Header("v".to_owned()), OrderFormat::UnixUs);
        assert_eq!(read(&by, None, &[(b"v", Some(b"7")), (b"v", Some(b"8"))], 5), Some(8_000));
        assert_eq!(read(&by, None, &[], 5), None);
        assert_eq!(read(&by, Some("row"), &[(b"v", Some(b"7"))], 5), None, "no place in the order");
        assert_eq!(read(&by, Some("row"), &[(b"v", Some(b"7")), (b"row", Some(b"1"))], 5), Some(7_000));
        assert_eq!(read(&OrderBy::Timestamp, None, &[], 1_700_000_000_001), Some(1_700_000_000_001_000_000));
        assert_eq!(read(&OrderBy::Timestamp, None, &[], -1), None);
    }

    #[test]
    fn a_header_is_a_decimal_integer() {
        for (value, text) in
            [(0, "0"), (-7, "-7"), (i64::MAX, "9223372036854775807"), (i64::MIN, "-9223372036854775808")]
        {
            let header = OrderHeader::new(b"v", value);
            assert_eq!(header.get(), (&b"v"[..], Some(text.as_bytes())));
            let size = RecordSize::new(None, None);
            let with_header = OrderHeader::add_to(size, &header);
            assert_eq!(with_header, size.with(b"v", Some(text.as_bytes())));
        }
    }
}
