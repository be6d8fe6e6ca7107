//! Keys and states as text and as JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keylane_state::record_key::{self, DecodedKey, KeyPart};
use serde_json::{Value, json};

/// Returns a state as one line: text with escapes, or hex.
pub(super) fn line_of(state: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(state) {
        return text.chars().flat_map(escaped).collect();
    }
    let mut hex = String::from("0x");
    for byte in state {
        write!(hex, "{byte:02x}").expect("a String accepts all text");
    }
    hex
}

/// Escapes what would change the terminal or the line.
fn escaped(c: char) -> Vec<char> {
    if c.is_control() { c.escape_debug().collect() } else { vec![c] }
}

/// Returns bytes as a JSON string, or `{"base64": …}` if they are not text.
pub(super) fn json_of(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Returns a record key as JSON: a scalar, a list for a composite key, `null` for the events without a key or for the
/// partition.
pub(super) fn json_of_key(key: &[u8]) -> Value {
    match record_key::decode(key) {
        Some(DecodedKey::One(part)) => json_of_part(part),
        Some(DecodedKey::Composite(parts)) => parts.into_iter().map(json_of_part).collect(),
        None => json!({ "record_key": { "base64": STANDARD.encode(key) } }),
    }
}

fn json_of_part(part: KeyPart<'_>) -> Value {
    match part {
        KeyPart::Bytes(bytes) => json_of(bytes),
        KeyPart::JsonString(text) => text.into(),
        KeyPart::JsonNumber(text) => match serde_json::from_str(text) {
            Ok(Value::Number(number)) if number.is_f64() != is_integer(text) => Value::Number(number),
            // Larger than 64 bits.
            _ => json!({ "number": text }),
        },
        KeyPart::JsonLiteral(text) => (text == "true").into(),
        KeyPart::NoKey | KeyPart::Partition => Value::Null,
    }
}

fn is_integer(number: &str) -> bool {
    number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_one_line() {
        for (state, expected) in [
            (&b"12 34"[..], "12 34"),
            (b"{\"a\": \"K\xc3\xb6ln\"}", "{\"a\": \"K\u{f6}ln\"}"),
            (b"a\nb\x1b[2J", "a\\nb\\u{1b}[2J"),
            (b"\xff\x00", "0xff00"),
            (b"", ""),
        ] {
            assert_eq!(line_of(state), expected);
        }
        assert_eq!(json_of(b"\xff"), json!({ "base64": "/w==" }));
    }

    #[test]
    fn keys_keep_their_type_in_json() {
        let key = |part| {
            let mut key = Vec::new();
            record_key::push_key(part, &mut key);
            json_of_key(&key)
        };
        assert_eq!(key(KeyPart::Bytes(b"1")), json!("1"));
        assert_eq!(key(KeyPart::Bytes(b"\xff")), json!({ "base64": "/w==" }));
        assert_eq!(key(KeyPart::JsonString("1")), json!("1"));
        assert_eq!(key(KeyPart::JsonNumber("1")), json!(1));
        assert_eq!(key(KeyPart::JsonNumber("-5e-1")), json!(-0.5));
        assert_eq!(
            key(KeyPart::JsonNumber("99999999999999999999")),
            json!({ "number": "99999999999999999999" })
        );
        assert_eq!(key(KeyPart::JsonLiteral("true")), json!(true));
        assert_eq!(key(KeyPart::JsonLiteral("false")), json!(false));
        assert_eq!((key(KeyPart::NoKey), key(KeyPart::Partition)), (Value::Null, Value::Null));
        let mut composite = Vec::new();
        record_key::begin_composite(&mut composite);
        record_key::push_part(KeyPart::Bytes(b"a"), &mut composite);
        record_key::push_part(KeyPart::JsonNumber("7"), &mut composite);
        assert_eq!(json_of_key(&composite), json!(["a", 7]));
        assert_eq!(json_of_key(&[99]), json!({ "record_key": { "base64": "Yw==" } }));
    }
}
