//! One scalar out of a JSON text, without building the rest.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON scalar in its canonical form: two that are equal as JSON are equal here, and types differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Bool(bool),
    Integer(i128),
    /// Bits of a number that is no integer, or beyond what an `f64` counts in steps of one.
    Float(u64),
}

/// The names of a pointer (RFC 6901), in order. The empty pointer is the whole text.
pub(super) fn pointer(text: &str) -> Vec<String> {
    let names = text.split('/').skip(1);
    names.map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

/// The hash of what the pointer leads to; `None`: nothing, no scalar, `null`, or the text is no JSON.
pub(super) fn hash(json: &[u8], pointer: &[String], hash: &dyn Fn(Scalar<'_>) -> u64) -> Option<u64> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Follow { pointer, hash }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    found
}

/// Follows what is left of the pointer. A hash is all that is taken along: a text is not copied.
#[derive(Clone, Copy)]
struct Follow<'p> {
    pointer: &'p [String],
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
        Ok(self.scalar(number(value)))
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
                // Of several entries with one name the last one counts, as for most readers of JSON.
                Some((wanted, rest)) if *wanted == name => found = entries.next_value_seed(self.on(rest))?,
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// `1.0` is 1: JSON has one type of number.
#[expect(clippy::cast_possible_truncation, reason = "checked to be an integer that fits")]
fn number(value: f64) -> Scalar<'static> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
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
    fn pointers_lead_through_objects_and_arrays() {
        let json = r#"{"a/b": {"m~n": [10, {"x": "here"}]}, "": true}"#;
        let is = |scalar| Some(hash_one(scalar));
        assert_eq!(at(json, "/a~1b/m~0n/0"), is(Scalar::Integer(10)));
        assert_eq!(at(json, "/a~1b/m~0n/1/x"), is(Scalar::Text("here")));
        assert_eq!(at(json, "/"), is(Scalar::Bool(true)));
        assert_eq!(at("7", ""), is(Scalar::Integer(7)));
        assert_eq!(at(json, "/a~1b/m~0n/2"), None);
        assert_eq!(at(json, "/a~1b/m~0n"), None, "no scalar");
    }

    #[test]
    fn what_is_no_json_has_none() {
        for text in ["", "{", r#"{"a": 1} x"#, "\u{fffd}"] {
            assert_eq!(at(text, "/a"), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_equal_as_numbers() {
        assert_eq!(at("1.0", ""), at("1", ""));
        assert_eq!(at("1e2", ""), at("100", ""));
        assert_eq!(at("-0.0", ""), at("0", ""));
        assert_ne!(at("0.1", ""), at("0.2", ""));
        assert_ne!(at("1", ""), at("\"1\"", ""));
        assert_eq!(at("\"\\u0041\"", ""), at("\"A\"", ""));
    }
}
