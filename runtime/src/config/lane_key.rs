//! What the lane of an event is found by.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What the lane of an event is found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LaneKey {
    /// The key of the record.
    #[default]
    Key,
    /// The value of the last header with this name.
    Header(String),
    /// The scalar in the value, read as JSON, that this pointer (RFC 6901) leads to.
    Json(String),
}

const EXPECTED: &str = "\"key\", \"header:NAME\" or \"json:/pointer\"";

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaneKey::Key => f.write_str("key"),
            LaneKey::Header(name) => write!(f, "header:{name}"),
            LaneKey::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

impl Serialize for LaneKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LaneKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LaneKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is no lane key: write {EXPECTED}")))
    }
}

fn parse(text: &str) -> Option<LaneKey> {
    if text == "key" {
        return Some(LaneKey::Key);
    }
    if let Some(name) = text.strip_prefix("header:") {
        return (!name.is_empty()).then(|| LaneKey::Header(name.to_owned()));
    }
    let pointer = text.strip_prefix("json:")?;
    let valid = pointer.is_empty() || pointer.starts_with('/');
    valid.then(|| LaneKey::Json(pointer.to_owned()))
}

impl JsonSchema for LaneKey {
    fn schema_name() -> Cow<'static, str> {
        "LaneKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`key`: the record's key; `header:NAME`: the value of a header; `json:/pointer`: a \
                            scalar in the value, read as JSON, with its type (1 is not \"1\").",
            "pattern": "^(key|header:.+|json:(/.*)?)$",
        })
    }
}
