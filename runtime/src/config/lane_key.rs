//! The lane key: what decides the lane of an event.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::event_field::{EventField, is_pointer};

/// What decides the lane of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LaneKey {
    /// The key of the record.
    #[default]
    Key,
    /// The value of the last header with this name.
    Header(String),
    /// The scalar at this JSON pointer (RFC 6901) in the value.
    Json(String),
    /// The same, after the five-byte prefix of schema registry serializers.
    RegistryJson(String),
    /// All of these together, at least two.
    Composite(Vec<LaneKey>),
}

const EXPECTED: &str = "\"key\", \"header:NAME\", \"json:/pointer\" or \"registry-json:/pointer\"";
/// Maximum number of parts of a composite key.
const PARTS_MAX: usize = 8;

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaneKey::Key => f.write_str("key"),
            LaneKey::Header(name) => write!(f, "header:{name}"),
            LaneKey::Json(pointer) => write!(f, "json:{pointer}"),
            LaneKey::RegistryJson(pointer) => write!(f, "registry-json:{pointer}"),
            LaneKey::Composite(parts) => {
                let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                f.write_str(&parts.join(" + "))
            }
        }
    }
}

impl Serialize for LaneKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let LaneKey::Composite(parts) = self {
            return serializer.collect_seq(parts);
        }
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LaneKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LaneKey, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = LaneKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{EXPECTED}, or a list of these")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<LaneKey, E> {
        parse(text).ok_or_else(|| {
            E::custom(format!("`{text}` is not a lane key: write {EXPECTED}, or a list of these"))
        })
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<LaneKey, A::Error> {
        let mut parts: Vec<LaneKey> = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            let part = part_of(&text)?;
            if parts.contains(&part) {
                return Err(de::Error::custom(format!("`{text}` is listed twice in the lane key")));
            }
            parts.push(part);
        }
        match parts.len() {
            0 => {
                Err(de::Error::custom("the lane key is empty: write \"key\", or `ordering = \"partition\"`"))
            }
            1 => Ok(parts.remove(0)),
            2..=PARTS_MAX => Ok(LaneKey::Composite(parts)),
            _ => Err(de::Error::custom(format!("a lane key has at most {PARTS_MAX} parts"))),
        }
    }
}

fn part_of<E: de::Error>(text: &str) -> Result<LaneKey, E> {
    de::Visitor::visit_str(Visitor, text)
}

fn parse(text: &str) -> Option<LaneKey> {
    if text == "key" {
        return Some(LaneKey::Key);
    }
    if let Some(pointer) = text.strip_prefix("registry-json:") {
        return is_pointer(pointer).then(|| LaneKey::RegistryJson(pointer.to_owned()));
    }
    EventField::parse(text).map(|field| match field {
        EventField::Header(name) => LaneKey::Header(name),
        EventField::Json(pointer) => LaneKey::Json(pointer),
    })
}

impl JsonSchema for LaneKey {
    fn schema_name() -> Cow<'static, str> {
        "LaneKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "description": "`\"key\"`: the record's key. `\"header:NAME\"`: the value of the last header of that name. \
                            `\"json:/path/to/field\"`: the scalar at this JSON pointer (RFC 6901) in the value, with its \
                            type (1 is not \"1\"); a byte order mark before the JSON is skipped. \
                            `\"registry-json:/path/to/field\"`: the same after the five-byte prefix of a schema registry. \
                            A list of these, `[\"header:tenant\", \"json:/customer/id\"]`: all of them together. An \
                            event in which any of them is missing has no lane key: see `no_key`.",
            "items": { "type": "string" },
            "pattern": "^(key|header:.+|(registry-)?json:(/.*)?)$",
        })
    }
}
