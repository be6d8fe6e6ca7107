//! A field of an event as a part of a key: a header, or a scalar in a JSON value.

use std::cell::RefCell;

use keylane_state::record_key::{self, KeyPart};

use super::ArenaRecord;
use super::json_scalar;
use super::lane_key::BYTE_ORDER_MARK;
use crate::config::EventField;

/// Reads a field of events.
#[derive(Debug)]
pub enum FieldReader {
    /// The last header with this name.
    Header(Vec<u8>),
    /// The scalar at this JSON pointer, given as its reference tokens.
    Json(Vec<String>),
}

impl FieldReader {
    /// Creates a reader of this field.
    pub fn new(field: &EventField) -> FieldReader {
        match field {
            EventField::Header(name) => FieldReader::Header(name.clone().into_bytes()),
            EventField::Json(pointer) => FieldReader::Json(json_scalar::pointer(pointer)),
        }
    }

    /// Appends the value of the field with its type: different values differ. Returns false if the event has none; then
    /// nothing is appended.
    pub fn append(&self, record: &ArenaRecord<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let found = match self {
            FieldReader::Header(name) => {
                let last = record.headers.filter(|(known, _)| known == name).last();
                let value = last.and_then(|(_, value)| value);
                value.into_iter().for_each(|value| record_key::push_key(KeyPart::Bytes(value), out));
                value.is_some()
            }
            FieldReader::Json(pointer) => {
                let json = record.value.unwrap_or_default();
                let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
                let out = RefCell::new(&mut *out);
                let found = json_scalar::hash(json, pointer, &|scalar| {
                    // A repeated field is found several times, and its last value counts.
                    out.borrow_mut().truncate(start);
                    scalar.as_key_part(&|part| record_key::push_key(part, *out.borrow_mut()));
                    0
                });
                found.is_some()
            }
        };
        if !found {
            out.truncate(start);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::{Arena, Header};

    fn append(field: &EventField, value: &str, headers: &[Header<'_>]) -> Option<Vec<u8>> {
        let mut arena = Arena::default();
        let (slot, _) = arena.store(None, Some(value.as_bytes()), headers.iter().copied(), false);
        let mut out = b"x".to_vec();
        let found = FieldReader::new(field).append(&arena.get(slot), &mut out);
        assert!(found || out == b"x");
        found.then_some(out)
    }

    #[test]
    fn values_differ_by_type() {
        let header = || EventField::Header("id".to_owned());
        let json = || EventField::Json("/id".to_owned());
        let (one, none): (Header<'_>, Header<'_>) = ((b"id", Some(b"1")), (b"id", None));
        assert_eq!(append(&header(), "", &[none, one]), Some(b"x\x011".to_vec()));
        assert_eq!(append(&header(), "", &[one, none]), None);
        assert_eq!(append(&header(), "", &[(b"id", Some(b""))]), Some(b"x\x01".to_vec()));
        assert_eq!(append(&json(), "{\"id\": \"1\"}", &[one]), Some(b"x\x021".to_vec()));
        assert_eq!(append(&json(), "{\"id\": 2, \"id\": 1}", &[]), Some(b"x\x031".to_vec()));
        assert_eq!(append(&json(), "{\"id\": 2, \"id\": null}", &[]), None);
        assert_eq!(append(&json(), "{\"id\": 1", &[]), None);
        assert_eq!(append(&json(), "", &[one]), None);
    }
}
