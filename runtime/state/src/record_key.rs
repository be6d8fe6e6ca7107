//! The keys of the records of a changelog.
//!
//! ```text
//! key       := type:u8 bytes
//! composite := 0x08 part*
//! part      := type:u8 length:u32be bytes
//! mark      := 0x09 length:u32be lane_key gate_key?
//! ```
//!
//! A lane key, and a gate key other than it, is one of the keys above the last line. The mark record of a gate key is beside
//! the state record of its lane key.
//!
//! The type distinguishes keys with the same bytes: the number `1` and the text `"1"` have two states.

use std::fmt::Write;

/// The key of the binding record: see [`crate::Binding`].
pub const BINDING_KEY: [u8; 1] = [BINDING];

const BINDING: u8 = 0;
const BYTES: u8 = 1;
const JSON_STRING: u8 = 2;
const JSON_NUMBER: u8 = 3;
const JSON_LITERAL: u8 = 4;
const NO_KEY: u8 = 5;
const PARTITION: u8 = 6;
/// Reserved for the ids of events.
const IDS: u8 = 7;
const COMPOSITE: u8 = 8;
const MARK: u8 = 9;

/// A lane key, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart<'a> {
    /// The record key, or a header.
    Bytes(&'a [u8]),
    /// The content of a JSON string, without quotes and escapes.
    JsonString(&'a str),
    /// A JSON number. Two texts are two keys, so the caller gives equal numbers the same text.
    JsonNumber(&'a str),
    /// `true`, `false` or `null`.
    JsonLiteral(&'a str),
    /// The event has no lane key.
    NoKey,
    /// The lane is that of the partition.
    Partition,
}

impl<'a> KeyPart<'a> {
    fn parts(self) -> (u8, &'a [u8]) {
        match self {
            KeyPart::Bytes(bytes) => (BYTES, bytes),
            KeyPart::JsonString(text) => (JSON_STRING, text.as_bytes()),
            KeyPart::JsonNumber(text) => (JSON_NUMBER, text.as_bytes()),
            KeyPart::JsonLiteral(text) => (JSON_LITERAL, text.as_bytes()),
            KeyPart::NoKey => (NO_KEY, &[]),
            KeyPart::Partition => (PARTITION, &[]),
        }
    }
}

/// Appends the record key of a lane key that is not composite.
pub fn push_key(key: KeyPart<'_>, out: &mut Vec<u8>) {
    let (kind, bytes) = key.parts();
    out.push(kind);
    out.extend_from_slice(bytes);
}

/// Begins the record key of a composite lane key. [`push_part`] appends its parts.
pub fn begin_composite(out: &mut Vec<u8>) {
    out.push(COMPOSITE);
}

/// Appends a part of a composite lane key.
///
/// # Panics
/// If the part has 4 GiB or more. Brokers accept no such records.
pub fn push_part(part: KeyPart<'_>, out: &mut Vec<u8>) {
    let (kind, bytes) = part.parts();
    let length = u32::try_from(bytes.len()).expect("a part of a Kafka record is smaller than 2 GiB");
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends the key of a mark record. `lane_key`, `gate_key`: as [`push_key`] appends them; `gate_key` is `None` if it is the
/// lane key.
///
/// # Panics
/// If the lane key has 4 GiB or more. Brokers accept no such records.
pub fn push_mark(lane_key: &[u8], gate_key: Option<&[u8]>, out: &mut Vec<u8>) {
    let length = u32::try_from(lane_key.len()).expect("a key of a Kafka record is smaller than 2 GiB");
    out.push(MARK);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(lane_key);
    out.extend_from_slice(gate_key.unwrap_or_default());
}

/// Appends the key of a mark record, whose bytes behind the type the caller has.
pub fn push_mark_parts(parts: &[u8], out: &mut Vec<u8>) {
    out.push(MARK);
    out.extend_from_slice(parts);
}

/// Returns whether a key is that of a mark record.
pub fn is_mark(key: &[u8]) -> bool {
    key.first() == Some(&MARK)
}

/// Returns the lane key and the gate key of the key of a mark record, both as [`push_key`] appends them; `None`: it is
/// another key.
pub fn split_mark(key: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (length, rest) = key.strip_prefix(&[MARK])?.split_first_chunk::<4>()?;
    let (lane_key, gate_key) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((lane_key, Some(gate_key).filter(|key| !key.is_empty())))
}

/// A lane key, as decoded from a record key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodedKey<'a> {
    /// A lane key that is not composite.
    One(KeyPart<'a>),
    /// The parts of a composite lane key.
    Composite(Vec<KeyPart<'a>>),
}

/// Decodes a record key; `None`: it is not that of a lane key, or is damaged.
pub fn decode(key: &[u8]) -> Option<DecodedKey<'_>> {
    let (&kind, mut rest) = key.split_first()?;
    if kind != COMPOSITE {
        return part_of(kind, rest).map(DecodedKey::One);
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (kind, bytes, behind) = split_part(rest)?;
        parts.push(part_of(kind, bytes)?);
        rest = behind;
    }
    Some(DecodedKey::Composite(parts))
}

fn part_of(kind: u8, bytes: &[u8]) -> Option<KeyPart<'_>> {
    let text = || std::str::from_utf8(bytes).ok();
    match kind {
        BYTES => Some(KeyPart::Bytes(bytes)),
        JSON_STRING => text().map(KeyPart::JsonString),
        JSON_NUMBER => text().map(KeyPart::JsonNumber),
        JSON_LITERAL => text().map(KeyPart::JsonLiteral),
        NO_KEY if bytes.is_empty() => Some(KeyPart::NoKey),
        PARTITION if bytes.is_empty() => Some(KeyPart::Partition),
        _ => None,
    }
}

/// Returns a record key for reports: `"ada"`, `1`, `0x00ff` (bytes that are not text), or `"ada" / 1` (composite).
pub fn display(key: &[u8]) -> String {
    let mut text = String::new();
    match key.split_first() {
        None => text.push_str("(empty)"),
        Some((&MARK, _)) => display_mark(key, &mut text),
        Some((&COMPOSITE, parts)) => display_parts(parts, &mut text),
        Some((&kind, bytes)) => display_part(kind, bytes, &mut text),
    }
    text
}

fn display_mark(key: &[u8], text: &mut String) {
    let Some((lane_key, gate_key)) = split_mark(key) else { return hex(key, text) };
    text.push_str("mark of ");
    text.push_str(&display(lane_key));
    if let Some(gate_key) = gate_key {
        text.push_str(", ");
        text.push_str(&display(gate_key));
    }
}

fn display_parts(mut rest: &[u8], text: &mut String) {
    let mut separator = "";
    while !rest.is_empty() {
        text.push_str(separator);
        separator = " / ";
        let Some((kind, bytes, behind)) = split_part(rest) else { return hex(rest, text) };
        display_part(kind, bytes, text);
        rest = behind;
    }
}

/// Returns the type and the bytes of the first part, and what is behind it.
fn split_part(parts: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = parts.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (bytes, behind) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((kind, bytes, behind))
}

fn display_part(kind: u8, bytes: &[u8], text: &mut String) {
    match (kind, std::str::from_utf8(bytes)) {
        (BINDING, _) => text.push_str("(binding)"),
        (NO_KEY, _) => text.push_str("(no key)"),
        (PARTITION, _) => text.push_str("(partition)"),
        (IDS, _) => text.push_str("(ids)"),
        // Escapes keep control characters out of terminals and logs.
        (BYTES | JSON_STRING, Ok(key)) => write!(text, "{key:?}").expect("a String accepts all text"),
        (JSON_NUMBER | JSON_LITERAL, Ok(key)) => text.extend(key.escape_debug()),
        _ => hex(bytes, text),
    }
}

fn hex(bytes: &[u8], text: &mut String) {
    text.push_str("0x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String accepts all text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(part: KeyPart<'_>) -> Vec<u8> {
        let mut key = Vec::new();
        push_key(part, &mut key);
        key
    }

    fn composite(parts: &[KeyPart<'_>]) -> Vec<u8> {
        let mut key = Vec::new();
        begin_composite(&mut key);
        for &part in parts {
            push_part(part, &mut key);
        }
        key
    }

    /// The format is a contract between versions of Keylane.
    #[test]
    fn the_bytes_of_keys_do_not_change() {
        assert_eq!(key(KeyPart::Bytes(b"ada")), b"\x01ada");
        assert_eq!(key(KeyPart::Bytes(b"")), b"\x01");
        assert_eq!(key(KeyPart::JsonString("ada")), b"\x02ada");
        assert_eq!(key(KeyPart::JsonNumber("1")), b"\x031");
        assert_eq!(key(KeyPart::JsonLiteral("true")), b"\x04true");
        assert_eq!(key(KeyPart::NoKey), b"\x05");
        assert_eq!(key(KeyPart::Partition), b"\x06");
        let parts = [KeyPart::Bytes(b"ada"), KeyPart::JsonNumber("1")];
        assert_eq!(composite(&parts), b"\x08\x01\0\0\0\x03ada\x03\0\0\0\x011");
        assert_eq!(BINDING_KEY, [0]);
    }

    #[test]
    fn keys_are_displayed() {
        let check = |key: &[u8], expected: &str| assert_eq!(display(key), expected);
        check(&key(KeyPart::Bytes(b"ada")), "\"ada\"");
        check(&key(KeyPart::Bytes(b"\x1b[2J\"")), "\"\\u{1b}[2J\\\"\"");
        check(&key(KeyPart::Bytes(&[0, 0xff])), "0x00ff");
        check(&key(KeyPart::Bytes(b"")), "\"\"");
        check(&key(KeyPart::JsonString("K\u{f6}ln")), "\"K\u{f6}ln\"");
        check(&key(KeyPart::JsonNumber("-1.5e3")), "-1.5e3");
        check(&key(KeyPart::JsonLiteral("null")), "null");
        check(&key(KeyPart::NoKey), "(no key)");
        check(&key(KeyPart::Partition), "(partition)");
        check(&BINDING_KEY, "(binding)");
        check(&[7, 1], "(ids)");
        check(b"\x09\0\0\0\x02\x01a", "mark of \"a\"");
        check(b"\x09\0\0\0\x02\x01a\x031", "mark of \"a\", 1");
        check(b"\x09\0", "0x0900");
        check(&[], "(empty)");
        check(&[99, 1, 2], "0x0102");
    }

    #[test]
    fn keys_are_decoded_as_they_were_encoded() {
        let parts = [
            KeyPart::Bytes(&[0xff]),
            KeyPart::JsonString("ada"),
            KeyPart::JsonNumber("-1"),
            KeyPart::JsonLiteral("true"),
            KeyPart::NoKey,
            KeyPart::Partition,
        ];
        for part in parts {
            assert_eq!(decode(&key(part)), Some(DecodedKey::One(part)));
        }
        let whole = composite(&parts);
        assert_eq!(decode(&whole), Some(DecodedKey::Composite(parts.to_vec())));
        for damaged in [&BINDING_KEY[..], &[], &[7], &[99], &[2, 0xff], &[5, 1], &whole[..whole.len() - 1]] {
            assert_eq!(decode(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn composite_keys_are_displayed_part_by_part() {
        let parts = [KeyPart::Bytes(b"ada"), KeyPart::JsonNumber("1"), KeyPart::Bytes(&[0xff])];
        let whole = composite(&parts);
        assert_eq!(display(&whole), "\"ada\" / 1 / 0xff");
        assert_eq!(display(&whole[..whole.len() - 1]), "\"ada\" / 1 / 0x0100000001");
    }

    #[test]
    fn mark_keys_are_split() {
        let mark = |lane_key: &[u8], gate_key: Option<&[u8]>| {
            let mut key = Vec::new();
            push_mark(lane_key, gate_key, &mut key);
            key
        };
        assert_eq!(mark(b"\x01ada", None), b"\x09\0\0\0\x04\x01ada");
        assert_eq!(split_mark(&mark(b"\x01ada", None)), Some((&b"\x01ada"[..], None)));
        let both = mark(b"\x01ada", Some(b"\x037"));
        assert_eq!(split_mark(&both), Some((&b"\x01ada"[..], Some(&b"\x037"[..]))));
        assert_eq!(
            (split_mark(b"\x01ada"), split_mark(b"\x09\0\0\0\x04\x01"), decode(&both)),
            (None, None, None)
        );
    }

    #[test]
    fn composite_keys_with_the_same_text_differ() {
        let ab_c = composite(&[KeyPart::Bytes(b"ab"), KeyPart::Bytes(b"c")]);
        let a_bc = composite(&[KeyPart::Bytes(b"a"), KeyPart::Bytes(b"bc")]);
        assert_ne!(ab_c, a_bc);
        assert_ne!(key(KeyPart::JsonNumber("1")), key(KeyPart::JsonString("1")));
    }
}
