//! The age at which a state is forgotten.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::duration::HumanDuration;

const NEVER: &str = "never";
const EXPECTED: &str = "\"never\" or a duration such as \"12h\" or \"30d\"";

/// How long a state is kept that does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ForgetAfter {
    /// For ever.
    #[default]
    Never,
    /// For this long.
    After(HumanDuration),
}

impl Serialize for ForgetAfter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ForgetAfter::Never => serializer.serialize_str(NEVER),
            ForgetAfter::After(duration) => duration.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ForgetAfter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ForgetAfter, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = ForgetAfter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ForgetAfter, E> {
        if text == NEVER {
            return Ok(ForgetAfter::Never);
        }
        let duration = humantime::parse_duration(text)
            .map_err(|error| E::custom(format!("`{text}` is not a duration: {error} (write {EXPECTED})")))?;
        Ok(ForgetAfter::After(HumanDuration(duration)))
    }
}

impl JsonSchema for ForgetAfter {
    fn schema_name() -> Cow<'static, str> {
        "ForgetAfter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`\"never\"`, or a duration with its unit, in quotes: `\"12h\"`, `\"30d\"`.",
            "examples": [NEVER, "12h", "30d"],
        })
    }
}
