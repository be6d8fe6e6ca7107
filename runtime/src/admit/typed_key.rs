//! Lane keys as an operator types them.

use std::cell::RefCell;

use keylane_state::record_key::{self, KeyPart};

use super::json_scalar;
use crate::config::{EventField, LaneKey, LanesConfig, NoKey, Ordering};

/// Why a text is not a lane key of the handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedKeyError {
    /// The handler has one state for each partition.
    #[error("the handler has one state for each partition, and no keys: use `--no-key`")]
    NoKeys,
    /// Events without a key are rejected.
    #[error("the handler has no state of events without a key: `no_key` is not \"partition\"")]
    KeyNeeded,
    /// Another number of parts than the lane key has.
    #[error(
        "the lane key `{lane_key}` has {expected} parts, and {found} were given: write each as an argument"
    )]
    Parts {
        /// The lane key.
        lane_key: String,
        /// Its number of parts.
        expected: usize,
        /// The number of arguments.
        found: usize,
    },
}

/// Returns the number of arguments that a lane key has; 0: the handler has no keys.
pub fn typed_parts(lanes: &LanesConfig) -> usize {
    match (lanes.ordering, &lanes.lane_key) {
        (Ordering::Partition | Ordering::Unordered, _) => 0,
        (Ordering::Key, LaneKey::Composite(parts)) => parts.len(),
        (Ordering::Key, _) => 1,
    }
}

/// Returns the record key of a lane key, given as the texts of its parts; no texts: the state of a partition, or of the
/// events without a key.
///
/// # Errors
/// The handler has no such key.
pub fn typed_key(lanes: &LanesConfig, texts: &[String]) -> Result<Vec<u8>, TypedKeyError> {
    let mut key = Vec::new();
    let expected = typed_parts(lanes);
    match (lanes.ordering, &lanes.lane_key) {
        (Ordering::Partition | Ordering::Unordered, _) if !texts.is_empty() => {
            return Err(TypedKeyError::NoKeys);
        }
        (Ordering::Partition | Ordering::Unordered, _) => {
            record_key::push_key(KeyPart::Partition, &mut key);
        }
        (Ordering::Key, _) if texts.is_empty() && lanes.no_key == NoKey::Partition => {
            record_key::push_key(KeyPart::NoKey, &mut key);
        }
        (Ordering::Key, _) if texts.is_empty() => return Err(TypedKeyError::KeyNeeded),
        (Ordering::Key, lane_key) if texts.len() != expected => {
            let (lane_key, found) = (lane_key.to_string(), texts.len());
            return Err(TypedKeyError::Parts { lane_key, expected, found });
        }
        (Ordering::Key, LaneKey::Composite(sources)) => {
            record_key::begin_composite(&mut key);
            for (source, text) in sources.iter().zip(texts) {
                with_part(source, text, &mut key, record_key::push_part);
            }
        }
        (Ordering::Key, source) => {
            for text in texts {
                with_part(source, text, &mut key, record_key::push_key);
            }
        }
    }
    Ok(key)
}

/// Appends a field of events, as a gate key.
pub fn typed_field(field: &EventField, text: &str, key: &mut Vec<u8>) {
    match field {
        EventField::Header(_) => record_key::push_key(KeyPart::Bytes(text.as_bytes()), key),
        EventField::Json(_) => with_scalar(text, key, record_key::push_key),
    }
}

/// Appends one part. The text of a JSON lane key is a JSON scalar, or a string without quotes.
fn with_part(source: &LaneKey, text: &str, key: &mut Vec<u8>, push: impl Fn(KeyPart<'_>, &mut Vec<u8>)) {
    match source {
        LaneKey::Key | LaneKey::Header(_) | LaneKey::Composite(_) => {
            push(KeyPart::Bytes(text.as_bytes()), key)
        }
        LaneKey::Json(_) | LaneKey::RegistryJson(_) => with_scalar(text, key, push),
    }
}

fn with_scalar(text: &str, key: &mut Vec<u8>, push: impl Fn(KeyPart<'_>, &mut Vec<u8>)) {
    let out = RefCell::new(&mut *key);
    let scalar = json_scalar::hash(text.as_bytes(), &[], &|scalar| {
        scalar.as_key_part(&|part| push(part, *out.borrow_mut()));
        0
    });
    if scalar.is_none() {
        push(KeyPart::JsonString(text), key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(ordering: Ordering, lane_key: LaneKey, no_key: NoKey) -> LanesConfig {
        LanesConfig { ordering, lane_key, no_key, max_concurrency: 1, max_queued: 1, max_window: 1 }
    }

    fn typed(lane_key: &LaneKey, texts: &[&str]) -> Result<String, TypedKeyError> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let key = typed_key(&lanes(Ordering::Key, lane_key.clone(), NoKey::Reject), &texts)?;
        Ok(format!("{}", key.escape_ascii()))
    }

    #[test]
    fn the_type_follows_from_the_lane_key() {
        let json = LaneKey::Json("/id".to_owned());
        for (lane_key, text, expected) in [
            (&LaneKey::Key, "1", "\\x011"),
            (&LaneKey::Header("tenant".to_owned()), "\"a\"", "\\x01\\\"a\\\""),
            (&json, "1", "\\x031"),
            (&json, "1.0", "\\x031"),
            (&json, "0.5", "\\x035e-1"),
            (&json, "\"1\"", "\\x021"),
            (&json, "ada", "\\x02ada"),
            (&json, "true", "\\x04true"),
            (&json, "null", "\\x02null"),
            (&json, "{\"a\": 1}", "\\x02{\\\"a\\\": 1}"),
            (&LaneKey::RegistryJson(String::new()), "7", "\\x037"),
        ] {
            assert_eq!(typed(lane_key, &[text]).as_deref(), Ok(expected), "{lane_key} {text}");
        }
        let composite = LaneKey::Composite(vec![LaneKey::Key, json]);
        let expected = "\\x08\\x01\\x00\\x00\\x00\\x011\\x03\\x00\\x00\\x00\\x011";
        assert_eq!(typed(&composite, &["1", "1"]).as_deref(), Ok(expected));
        let parts = typed(&composite, &["1"]).expect_err("one of two");
        assert!(parts.to_string().contains("has 2 parts, and 1 were given"), "{parts}");
    }

    #[test]
    fn the_type_of_a_gate_key_follows_from_its_field() {
        let typed = |field: EventField, text| {
            let mut key = Vec::new();
            typed_field(&field, text, &mut key);
            key
        };
        assert_eq!(typed(EventField::Header("row".to_owned()), "1"), b"\x011");
        assert_eq!(typed(EventField::Json("/row".to_owned()), "1"), b"\x031");
        assert_eq!(typed(EventField::Json("/row".to_owned()), "a"), b"\x02a");
    }

    #[test]
    fn states_without_a_key_are_those_of_the_configuration() {
        let of =
            |ordering, no_key, texts: &[String]| typed_key(&lanes(ordering, LaneKey::Key, no_key), texts);
        let ada = ["ada".to_owned()];
        assert_eq!(of(Ordering::Key, NoKey::Partition, &[]), Ok(vec![5]));
        assert_eq!(of(Ordering::Key, NoKey::Reject, &[]), Err(TypedKeyError::KeyNeeded));
        assert_eq!(of(Ordering::Partition, NoKey::Reject, &[]), Ok(vec![6]));
        assert_eq!(of(Ordering::Partition, NoKey::Reject, &ada), Err(TypedKeyError::NoKeys));
        assert_eq!(typed_parts(&lanes(Ordering::Partition, LaneKey::Key, NoKey::Reject)), 0);
    }
}
