//! Settings of gates that are a number, a duration or a word.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::duration::HumanDuration;

/// The first value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstValue {
    At(i64),
    Any,
}

/// How long an event waits for missing values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapTimeout {
    Never,
    After(HumanDuration),
}

/// How far ahead an order value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaxAhead {
    Off,
    Values(i64),
    Time(HumanDuration),
}

/// Deserializes a whole number, or a text with `parse`. Numbers from the environment are texts, too.
struct NumberOrText<T> {
    expected: &'static str,
    number: fn(i64) -> Option<T>,
    text: fn(&str) -> Option<T>,
}

impl<T> de::Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_type(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let number = || text.trim().parse().ok().and_then(self.number);
        (self.text)(text)
            .or_else(number)
            .ok_or_else(|| E::custom(format!("`{text}` is not valid here: write {}", self.expected)))
    }
}

fn duration(text: &str) -> Option<HumanDuration> {
    humantime::parse_duration(text).ok().map(HumanDuration)
}

impl<'de> Deserialize<'de> for FirstValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FirstValue, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: "a whole number or \"any\"",
            number: |number| Some(FirstValue::At(number)),
            text: |text| (text == "any").then_some(FirstValue::Any),
        })
    }
}

impl<'de> Deserialize<'de> for GapTimeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GapTimeout, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: "\"never\" or a duration such as \"30s\" or \"5m\"",
            number: |_| None,
            text: |text| match text {
                "never" => Some(GapTimeout::Never),
                _ => duration(text).map(GapTimeout::After),
            },
        })
    }
}

impl<'de> Deserialize<'de> for MaxAhead {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MaxAhead, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: "\"off\", a whole number, or for times a duration such as \"1h\"",
            number: |number| Some(MaxAhead::Values(number)),
            // "0" is a duration, too.
            text: |text| match text {
                "off" => Some(MaxAhead::Off),
                _ if text.trim().parse::<i64>().is_ok() => None,
                _ => duration(text).map(MaxAhead::Time),
            },
        })
    }
}

impl JsonSchema for FirstValue {
    fn schema_name() -> Cow<'static, str> {
        "FirstValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "description": "A whole number, or `\"any\"`: the lowest value that came while the first event of the key has \
                            waited for `first_wait`.",
            "anyOf": [{ "type": "integer" }, { "const": "any" }],
        })
    }
}

impl JsonSchema for GapTimeout {
    fn schema_name() -> Cow<'static, str> {
        "GapTimeout".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`\"never\"`, or a duration with its unit, in quotes: `\"30s\"`, `\"5m\"`. At most `\"24h\"`.",
            "examples": ["never", "30s", "5m"],
        })
    }
}

impl JsonSchema for MaxAhead {
    fn schema_name() -> Cow<'static, str> {
        "MaxAhead".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "description": "A whole number, or for times a duration with its unit, in quotes: `\"1h\"`. `\"off\"`: any value \
                            is accepted.",
            "examples": [1000, "1h", "off"],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read<T: de::DeserializeOwned + Copy>(text: &str) -> Result<T, String> {
        let map = toml::from_str::<BTreeMap<String, T>>(&format!("a = {text}"));
        map.map(|map| map["a"]).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn numbers_durations_and_words() {
        assert_eq!(read("1"), Ok(FirstValue::At(1)));
        assert_eq!(read("\"-7\""), Ok(FirstValue::At(-7)));
        assert_eq!(read("\"any\""), Ok(FirstValue::Any));
        assert_eq!(read("\"never\""), Ok(GapTimeout::Never));
        assert_eq!(read("\"5m\""), Ok(GapTimeout::After(HumanDuration::from_secs(300))));
        assert_eq!(read("\"off\""), Ok(MaxAhead::Off));
        assert_eq!(read("100"), Ok(MaxAhead::Values(100)));
        assert_eq!(read("\"0\""), Ok(MaxAhead::Values(0)));
        assert_eq!(read("\"1h\""), Ok(MaxAhead::Time(HumanDuration::from_secs(3600))));
        let error = read::<FirstValue>("\"one\"").expect_err("a word");
        assert!(error.contains("`one` is not valid here: write a whole number or \"any\""), "{error}");
        let error = read::<GapTimeout>("5").expect_err("no unit");
        assert!(error.contains("expected \"never\" or a duration"), "{error}");
    }
}
