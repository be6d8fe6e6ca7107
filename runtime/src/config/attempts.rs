//! The number of attempts, as written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::rules::ranges::MAX_ATTEMPTS;

/// A number of attempts such as `10`, or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempts {
    Limited(i64),
    Unlimited,
}

/// The word that is written instead of a number.
const UNLIMITED: &str = "unlimited";

impl Serialize for Attempts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Attempts::Limited(number) => serializer.serialize_i64(*number),
            Attempts::Unlimited => serializer.serialize_str(UNLIMITED),
        }
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attempts, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Attempts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or \"unlimited\"")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Attempts, E> {
        Ok(Attempts::Limited(number))
    }

    /// Accepts the word, or a number as a string: values from the environment are strings.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Attempts, E> {
        if text == UNLIMITED {
            return Ok(Attempts::Unlimited);
        }
        let number = text.parse().map(Attempts::Limited);
        number.map_err(|_| {
            E::custom(format!("`{text}` is not a number of attempts: write a whole number or \"unlimited\""))
        })
    }
}

impl JsonSchema for Attempts {
    fn schema_name() -> Cow<'static, str> {
        "Attempts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "description": "Number of attempts, including the first: 1 to 1000000, or `\"unlimited\"`: until the event \
                            is done, or rejected, or older than `max_record_age`.",
            "anyOf": [{ "minimum": MAX_ATTEMPTS.start(), "maximum": MAX_ATTEMPTS.end() }, { "const": UNLIMITED }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_a_word() {
        let read = |text: &str| {
            toml::from_str::<std::collections::BTreeMap<String, Attempts>>(text).map(|map| map["a"])
        };
        assert_eq!(read("a = 3").ok(), Some(Attempts::Limited(3)));
        assert_eq!(read("a = \"3\"").ok(), Some(Attempts::Limited(3)));
        assert_eq!(read("a = \"unlimited\"").ok(), Some(Attempts::Unlimited));
        let error = read("a = \"for ever\"").expect_err("the word is invalid");
        assert!(error.to_string().contains("`for ever` is not a number of attempts"), "{error}");
    }
}
