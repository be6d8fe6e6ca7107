//! The order value of a record: a version, a sequence number or a time, by which a gate orders events.

use std::cell::Cell;
use std::io::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ArenaRecord;
use super::json_scalar::{self, Decimals, Scalar};
use super::lane_key::BYTE_ORDER_MARK;
use crate::config::{EventField, OrderBy, OrderFormat};

const NANOS_PER_MS: i64 = 1_000_000;
/// The longest time that is read: `2026-01-31T12:00:00.123456789+01:00`.
const TIME_MAX: usize = 35;

/// Reads order values.
#[derive(Debug)]
pub struct OrderValueRule {
    from: Source,
    format: OrderFormat,
}

#[derive(Debug)]
enum Source {
    /// The timestamp of the record.
    Timestamp,
    /// The last header with this name.
    Header(Vec<u8>),
    /// The number or string at this JSON pointer, given as its reference tokens.
    Json(Vec<String>),
}

impl OrderValueRule {
    /// Creates the rule for order values from this source.
    pub fn new(by: &OrderBy) -> OrderValueRule {
        match by {
            OrderBy::Timestamp => OrderValueRule { from: Source::Timestamp, format: OrderFormat::UnixMs },
            OrderBy::Field(EventField::Header(name), format) => {
                OrderValueRule { from: Source::Header(name.clone().into_bytes()), format: *format }
            }
            OrderBy::Field(EventField::Json(pointer), format) => {
                OrderValueRule { from: Source::Json(json_scalar::pointer(pointer)), format: *format }
            }
        }
    }

    /// Returns the order value of a record; `None`: it has none that can be read. Times are nanoseconds since 1970. The least
    /// and the greatest value of the type are never returned. `timestamp_ms`: of the record, −1 if it has none.
    pub fn value(&self, record: &ArenaRecord<'_>, timestamp_ms: i64) -> Option<i64> {
        let value = match &self.from {
            Source::Timestamp if timestamp_ms == -1 => None,
            Source::Timestamp => timestamp_ms.checked_mul(NANOS_PER_MS),
            Source::Header(name) => {
                let (_, value) = record.headers.filter(|(known, _)| known == name).last()?;
                of_bytes(value?, self.format)
            }
            Source::Json(pointer) => of_json(record.value?, pointer, self.format),
        };
        value.filter(|value| !matches!(*value, i64::MIN | i64::MAX))
    }
}

/// Returns the order value that an operator has typed, in the format of the gate; `None`: it can't be read. Eight bytes are typed
/// as an integer, and the timestamp of a record in milliseconds since 1970.
pub fn typed_order_value(by: &OrderBy, text: &str) -> Option<i64> {
    let format = match by {
        OrderBy::Timestamp => OrderFormat::UnixMs,
        OrderBy::Field(_, OrderFormat::Int64) => OrderFormat::Integer,
        OrderBy::Field(_, format) => *format,
    };
    of_bytes(text.as_bytes(), format).filter(|value| !matches!(*value, i64::MIN | i64::MAX))
}

fn of_bytes(bytes: &[u8], format: OrderFormat) -> Option<i64> {
    match format {
        OrderFormat::Int64 => bytes.try_into().ok().map(i64::from_be_bytes),
        OrderFormat::Rfc3339 => rfc3339(bytes),
        OrderFormat::Integer
        | OrderFormat::UnixS
        | OrderFormat::UnixMs
        | OrderFormat::UnixUs
        | OrderFormat::UnixNs => integer(bytes)?.checked_mul(scale(format)?),
    }
}

/// Returns the factor from numbers in this format to order values; `None`: the format is not that of numbers.
fn scale(format: OrderFormat) -> Option<i64> {
    match format {
        OrderFormat::Integer | OrderFormat::UnixNs => Some(1),
        OrderFormat::UnixUs => Some(1_000),
        OrderFormat::UnixMs => Some(NANOS_PER_MS),
        OrderFormat::UnixS => Some(1_000_000_000),
        OrderFormat::Int64 | OrderFormat::Rfc3339 => None,
    }
}

fn of_json(json: &[u8], pointer: &[String], format: OrderFormat) -> Option<i64> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let read = Cell::new(None);
    json_scalar::find(json, pointer, Decimals::Exact, &|scalar| {
        // A repeated field is found several times, and its last value counts.
        read.set(match scalar {
            Scalar::Text(text) => of_bytes(text.as_bytes(), format),
            Scalar::Integer(number) => {
                scale(format).and_then(|scale| i64::try_from(number).ok()?.checked_mul(scale))
            }
            Scalar::Bool(_) | Scalar::Float(_) => None,
        });
        0
    })?;
    read.get()
}

/// Reads `-?[0-9]{1,19}`.
fn integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if !(1..=19).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Reads a time in RFC 3339 format, in nanoseconds since 1970. As databases write times, a space may replace the `T`, an offset
/// may have no minutes, and a time without an offset is UTC.
fn rfc3339(bytes: &[u8]) -> Option<i64> {
    let (date, rest) = bytes.split_at_checked(10)?;
    let (separator, rest) = rest.split_first()?;
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let zone_at = rest.iter().position(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'));
    let (clock, zone) = rest.split_at_checked(zone_at.unwrap_or(rest.len()))?;
    if clock.len() > "12:00:00.123456789".len() {
        return None; // finer than nanoseconds
    }
    let (zone, minutes): (&[u8], &[u8]) = match zone {
        [] => (b"Z", b""),
        [_, _, _] => (zone, b":00"),
        _ => (zone, b""),
    };
    let mut buffer = [0; TIME_MAX];
    let mut rest = buffer.as_mut_slice();
    for part in [date, b"T", clock, zone, minutes] {
        rest.write_all(part).ok()?;
    }
    let length = TIME_MAX - rest.len();
    let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_typed_in_the_format_of_the_gate() {
        let field = || EventField::Header("v".to_owned());
        for (by, text, expected) in [
            (OrderBy::Field(field(), OrderFormat::Integer), "-7", Some(-7)),
            (OrderBy::Field(field(), OrderFormat::Integer), "seven", None),
            (OrderBy::Field(field(), OrderFormat::Integer), "9223372036854775807", None),
            (OrderBy::Field(field(), OrderFormat::Int64), "12345678", Some(12_345_678)),
            (OrderBy::Field(field(), OrderFormat::Rfc3339), "1970-01-01 00:00:01", Some(1_000_000_000)),
            (OrderBy::Timestamp, "1", Some(1_000_000)),
        ] {
            assert_eq!(typed_order_value(&by, text), expected, "{text}");
        }
    }
    use crate::admit::{Arena, Header};

    fn value(by: &OrderBy, value: Option<&[u8]>, headers: &[Header<'_>], timestamp: i64) -> Option<i64> {
        let mut arena = Arena::default();
        let (slot, _) = arena.store(Some(b"key"), value, headers.iter().copied(), false);
        OrderValueRule::new(by).value(&arena.get(slot), timestamp)
    }

    fn header(format: OrderFormat, bytes: &[u8]) -> Option<i64> {
        let by = OrderBy::Field(EventField::Header("v".to_owned()), format);
        value(&by, None, &[(b"v", Some(bytes))], 7)
    }

    fn json(format: OrderFormat, text: &str) -> Option<i64> {
        let by = OrderBy::Field(EventField::Json("/v".to_owned()), format);
        value(&by, Some(text.as_bytes()), &[], 7)
    }

    #[test]
    fn integers() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("007", Some(7)),
            ("-12", Some(-12)),
            ("9223372036854775806", Some(i64::MAX - 1)),
            ("-9223372036854775807", Some(i64::MIN + 1)),
            ("9223372036854775807", None), // the greatest
            ("-9223372036854775808", None),
            ("9223372036854775808", None),
            ("9999999999999999999", None),
            ("00000000000000000001", None), // 20 digits
            ("", None),
            ("-", None),
            ("--1", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1\n", None),
            ("1.0", None),
            ("1e3", None),
            ("0x10", None),
            ("1_000", None),
            ("٣", None), // a digit, but not of ASCII
        ] {
            assert_eq!(header(OrderFormat::Integer, text.as_bytes()), expected, "{text}");
        }
        assert_eq!(header(OrderFormat::Integer, b"1\0"), None);
        assert_eq!(header(OrderFormat::Integer, b"\xff"), None);
    }

    #[test]
    fn eight_bytes() {
        assert_eq!(header(OrderFormat::Int64, &5_i64.to_be_bytes()), Some(5));
        assert_eq!(header(OrderFormat::Int64, &(-5_i64).to_be_bytes()), Some(-5));
        for bytes in [&[][..], &[0; 7], &[0; 9], &i64::MIN.to_be_bytes(), &i64::MAX.to_be_bytes()] {
            assert_eq!(header(OrderFormat::Int64, bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_of_time_units_are_nanoseconds() {
        for (format, text, expected) in [
            (OrderFormat::UnixS, "1700000000", Some(1_700_000_000_000_000_000)),
            (OrderFormat::UnixMs, "1700000000123", Some(1_700_000_000_123_000_000)),
            (OrderFormat::UnixUs, "1700000000123456", Some(1_700_000_000_123_456_000)),
            (OrderFormat::UnixNs, "1700000000123456789", Some(1_700_000_000_123_456_789)),
            (OrderFormat::UnixMs, "-1", Some(-1_000_000)), // a time, if it is not the timestamp of a record
            (OrderFormat::UnixS, "9223372037", None),
            (OrderFormat::UnixS, "1700000000.5", None),
            (OrderFormat::UnixMs, "9223372036855", None),
            (OrderFormat::UnixUs, "-9223372036854776", None),
        ] {
            assert_eq!(header(format, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn times_of_rfc_3339() {
        const NOON: i64 = 1_769_860_800_000_000_000; // 2026-01-31T12:00:00Z
        for (text, expected) in [
            ("2026-01-31T12:00:00Z", Some(NOON)),
            ("2026-01-31t12:00:00z", Some(NOON)),
            ("2026-01-31 12:00:00", Some(NOON)),
            ("2026-01-31T12:00:00", Some(NOON)),
            ("2026-01-31 12:00:00+00", Some(NOON)),
            ("2026-01-31T13:30:00+01:30", Some(NOON)),
            ("2026-01-31T07:00:00-05", Some(NOON)),
            ("2026-01-31T12:00:00.1Z", Some(NOON + 100_000_000)),
            ("2026-01-31 12:00:00.000001", Some(NOON + 1_000)),
            ("2026-01-31T12:00:00.123456789-00:00", Some(NOON + 123_456_789)),
            ("2026-01-31T12:00:00.1234567891Z", None),
            ("1969-12-31T23:59:59.999999999Z", Some(-1)),
            ("2262-04-11T23:47:16.854775806Z", Some(i64::MAX - 1)),
            ("2262-04-11T23:47:16.854775807Z", None),
            ("2262-04-12T00:00:00Z", None),
            ("1677-09-21T00:00:00Z", None),
            ("9999-12-31T23:59:59Z", None),
            ("2026-02-29T12:00:00Z", None),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000_000_000_000)),
            ("2026-01-31T24:00:00Z", None),
            ("2026-01-31T12:60:00Z", None),
            ("2026-01-31T12:00:61Z", None),
            ("2026-01-31T12:00:00+24:00", None),
            ("2026-01-31T12:00:00+0100", None),
            ("2026-01-31T12:00:00 Z", None),
            ("2026-01-31T12:00:00.Z", None),
            ("2026-01-31T12:00Z", None),
            ("2026-01-31_12:00:00Z", None),
            ("2026-01-31", None),
            ("2026-01-31T", None),
            ("31/01/2026 12:00:00", None),
            ("+2026-01-31T12:00:00Z", None),
            ("1769860800", None),
            ("", None),
            ("2026-01-31T12:00:00ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ", None),
        ] {
            assert_eq!(header(OrderFormat::Rfc3339, text.as_bytes()), expected, "{text}");
            assert_eq!(json(OrderFormat::Rfc3339, &format!("{{\"v\": \"{text}\"}}")), expected, "{text}");
        }
        assert_eq!(header(OrderFormat::Rfc3339, b"2026-01-31T12:00:0\xffZ"), None);
    }

    #[test]
    fn json_numbers_and_strings() {
        for (text, expected) in [
            ("{\"v\": 7}", Some(7)),
            ("\u{feff}{\"v\": 7}", Some(7)),
            ("{\"v\": -7}", Some(-7)),
            ("{\"v\": \"7\"}", Some(7)),
            ("{\"v\": \"7.0\"}", None),
            ("{\"v\": 7.0}", Some(7)),
            ("{\"v\": 7e2}", Some(700)),
            ("{\"v\": 7.5}", None),
            ("{\"v\": 9007199254740991.0}", Some((1 << 53) - 1)),
            ("{\"v\": 9007199254740993.0}", None), // would be read as 2^53
            ("{\"v\": 9007199254740993}", Some((1 << 53) + 1)),
            ("{\"v\": 9223372036854775806}", Some(i64::MAX - 1)),
            ("{\"v\": 9223372036854775807}", None),
            ("{\"v\": 18446744073709551615}", None),
            ("{\"v\": 1e400}", None),
            ("{\"v\": 99999999999999999999999}", None),
            ("{\"v\": true}", None),
            ("{\"v\": null}", None),
            ("{\"v\": [7]}", None),
            ("{\"v\": 1, \"v\": 2}", Some(2)),
            ("{\"v\": 1, \"v\": null}", None),
            ("{\"v\": 1, \"v\": true}", None),
            ("{\"w\": 1}", None),
            ("{\"v\": 1} 2", None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(json(OrderFormat::Integer, text), expected, "{text}");
        }
        assert_eq!(json(OrderFormat::UnixMs, "{\"v\": 1}"), Some(1_000_000));
        assert_eq!(json(OrderFormat::UnixS, "{\"v\": 9223372037}"), None);
        assert_eq!(json(OrderFormat::Rfc3339, "{\"v\": 1769860800}"), None);
    }

    #[test]
    fn the_last_header_counts() {
        let by = OrderBy::Field(EventField::Header("v".to_owned()), OrderFormat::Integer);
        let (one, two): (Header<'_>, Header<'_>) = ((b"v", Some(b"1")), (b"v", Some(b"2")));
        assert_eq!(value(&by, None, &[one, two, (b"w", Some(b"3"))], 7), Some(2));
        assert_eq!(value(&by, None, &[one, (b"v", None)], 7), None);
        assert_eq!(value(&by, None, &[one, (b"v", Some(b""))], 7), None);
        assert_eq!(value(&by, Some(b"{\"v\": 1}"), &[], 7), None);
    }

    #[test]
    fn the_timestamp_of_a_record() {
        let of = |timestamp| value(&OrderBy::Timestamp, None, &[], timestamp);
        assert_eq!(of(1_700_000_000_123), Some(1_700_000_000_123_000_000));
        assert_eq!((of(-1), of(0), of(-2)), (None, Some(0), Some(-2_000_000)));
        assert_eq!((of(i64::MAX), of(i64::MIN)), (None, None));
    }
}
