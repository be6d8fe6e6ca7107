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
        return (!name.is_empty() && name.trim() == name).then(|| LaneKey::Header(name.to_owned()));
    }
    let pointer = text.strip_prefix("json:")?;
    let valid = (pointer.is_empty() || pointer.starts_with('/')) && is_escaped(pointer);
    valid.then(|| LaneKey::Json(pointer.to_owned()))
}

/// RFC 6901: `~` stands only in `~0` (for itself) and `~1` (for a slash).
fn is_escaped(pointer: &str) -> bool {
    pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

impl JsonSchema for LaneKey {
    fn schema_name() -> Cow<'static, str> {
        "LaneKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`\"key\"`: the record's key. `\"header:NAME\"`: the value of the last header of that name. \
                            `\"json:/path/to/field\"`: the scalar in the value, read as JSON, that this pointer (RFC \
                            6901) leads to, with its type (1 is not \"1\"). An event in which nothing is found has \
                            no lane key: see `no_key`.",
            "pattern": "^(key|header:.+|json:(/.*)?)$",
        })
    }
}
