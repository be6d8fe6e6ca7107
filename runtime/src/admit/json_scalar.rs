//! Extracts one scalar from a JSON text, without parsing the rest into memory.

use std::fmt;

use keylane_state::record_key::KeyPart;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON scalar in canonical form: equal JSON scalars are equal here, and values of different types differ. Exception:
/// an integer above 2^53 differs from the same number with a fraction or an exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Bool(bool),
    Integer(i128),
    /// The bits of an `f64` that is not an integer, or too large for exact integers.
    Float(u64),
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Scalar::Text(text) => f.write_str(text),
            Scalar::Bool(value) => value.fmt(f),
            Scalar::Integer(value) => value.fmt(f),
            Scalar::Float(bits) => f64::from_bits(bits).fmt(f),
        }
    }
}

impl Scalar<'_> {
    /// Passes the scalar to `to`, as a part of a record key. Equal scalars are equal parts, and different ones differ.
    pub(super) fn as_key_part(&self, to: &dyn Fn(KeyPart<'_>)) {
        match *self {
            Scalar::Text(text) => to(KeyPart::JsonString(text)),
            Scalar::Bool(value) => to(KeyPart::JsonLiteral(if value { "true" } else { "false" })),
            Scalar::Integer(value) => to(KeyPart::JsonNumber(&value.to_string())),
            // With an exponent, which no integer has here.
            Scalar::Float(bits) => to(KeyPart::JsonNumber(&format!("{:e}", f64::from_bits(bits)))),
        }
    }
}

/// Returns the reference tokens of a JSON pointer (RFC 6901), in order. The empty pointer selects the whole text.
pub(super) fn pointer(text: &str) -> Vec<String> {
    let names = text.split('/').skip(1);
    names.map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

/// Which numbers with a fraction or an exponent are integers, if they have no fractional part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decimals {
    /// Those up to 2^53, which may be the nearest of several integers.
    Rounded,
    /// Those below 2^53: no other integer is read as one of them.
    Exact,
}

/// Returns the hash of the scalar at the pointer; `None`: the text is not JSON, or has nothing, `null` or no scalar
/// there.
pub(super) fn hash(json: &[u8], pointer: &[String], hash: &dyn Fn(Scalar<'_>) -> u64) -> Option<u64> {
    find(json, pointer, Decimals::Rounded, hash)
}

/// Like [`hash`], with a choice of integers.
pub(super) fn find(
    json: &[u8],
    pointer: &[String],
    decimals: Decimals,
    hash: &dyn Fn(Scalar<'_>) -> u64,
) -> Option<u64> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Follow { pointer, decimals, hash }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    found
}

/// Follows the rest of the pointer. The result is a hash, so that strings are not copied.
#[derive(Clone, Copy)]
struct Follow<'p> {
    pointer: &'p [String],
    decimals: Decimals,
    hash: &'p dyn Fn(Scalar<'_>) -> u64,
}

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u64>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'p> Follow<'p> {
    fn scalar(&self, scalar: Scalar<'_>) -> Option<u64> {
        self.pointer.is_empty().then(|| (self.hash)(scalar))
    }

    fn on(&self, rest: &'p [String]) -> Follow<'p> {
        Follow { pointer: rest, ..*self }
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Option<u64>, E> {
        Ok(self.scalar(Scalar::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Option<u64>, E> {
        Ok(self.scalar(Scalar::Integer(value.into())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Option<u64>, E> {
        Ok(self.scalar(Scalar::Integer(value.into())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Option<u64>, E> {
        Ok(self.scalar(number(value, self.decimals)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Option<u64>, E> {
        Ok(self.scalar(Scalar::Text(value)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<u64>, A::Error> {
        let wanted =
            self.pointer.split_first().and_then(|(name, rest)| Some((name.parse::<usize>().ok()?, rest)));
        let mut found = None;
        for at in 0.. {
            let more = match wanted {
                Some((index, rest)) if index == at => match items.next_element_seed(self.on(rest))? {
                    Some(scalar) => {
                        found = scalar;
                        true
                    }
                    None => false,
                },
                _ => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Option<u64>, A::Error> {
        let mut found = None;
        while let Some(name) = entries.next_key::<std::borrow::Cow<'_, str>>()? {
            match self.pointer.split_first() {
                // Of several entries with the same name the last one is used, as in most JSON parsers.
                Some((wanted, rest)) if *wanted == name => found = entries.next_value_seed(self.on(rest))?,
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Converts a number with a fraction or an exponent. `1.0` equals `1`, because JSON has one number type.
#[expect(clippy::cast_possible_truncation, reason = "the value is an integer in range")]
fn number(value: f64, decimals: Decimals) -> Scalar<'static> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_exact = value.abs() < EXACT || (value.abs() <= EXACT && decimals == Decimals::Rounded);
    if value.fract() == 0.0 && is_exact {
        Scalar::Integer(value as i128)
    } else {
        Scalar::Float(value.to_bits())
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    fn hash_one(scalar: Scalar<'_>) -> u64 {
        foldhash::quality::FixedState::default().hash_one(scalar)
    }

    fn at(json: &str, text: &str) -> Option<u64> {
        hash(json.as_bytes(), &pointer(text), &hash_one)
    }

    #[test]
    fn pointers_traverse_objects_and_arrays() {
        let json = r#"{"a/b": {"m~n": [10, {"x": "here"}]}, "": true}"#;
        let is = |scalar| Some(hash_one(scalar));
        assert_eq!(at(json, "/a~1b/m~0n/0"), is(Scalar::Integer(10)));
        assert_eq!(at(json, "/a~1b/m~0n/1/x"), is(Scalar::Text("here")));
        assert_eq!(at(json, "/"), is(Scalar::Bool(true)));
        assert_eq!(at("7", ""), is(Scalar::Integer(7)));
        assert_eq!(at(json, "/a~1b/m~0n/2"), None);
        assert_eq!(at(json, "/a~1b/m~0n"), None, "not a scalar");
    }

    #[test]
    fn text_that_is_not_json_has_no_scalar() {
        for text in ["", "{", r#"{"a": 1} x"#, "\u{fffd}"] {
            assert_eq!(at(text, "/a"), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_by_value() {
        assert_eq!(at("1.0", ""), at("1", ""));
        assert_eq!(at("1e2", ""), at("100", ""));
        assert_eq!(at("-0.0", ""), at("0", ""));
        assert_ne!(at("0.1", ""), at("0.2", ""));
        assert_ne!(at("1", ""), at("\"1\"", ""));
        assert_eq!(at("\"\\u0041\"", ""), at("\"A\"", ""));
    }
}
