//! The start position of a new group.

use std::borrow::Cow;
use std::fmt;
use std::time::UNIX_EPOCH;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use toml::value::{Datetime, Offset};

/// The start position in a partition without a commit, if the group has no commit for the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPolicy {
    /// At the first offset of the log.
    #[default]
    Earliest,
    /// At the end of the log: only new events.
    Latest,
    /// At the first event with this timestamp or a later one, in milliseconds since the Unix epoch.
    Time(i64),
}

impl fmt::Display for StartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartPolicy::Earliest => f.write_str("earliest"),
            StartPolicy::Latest => f.write_str("latest"),
            StartPolicy::Time(millis) => {
                let millis = u64::try_from(*millis).unwrap_or(0);
                let time = UNIX_EPOCH + std::time::Duration::from_millis(millis);
                humantime::format_rfc3339(time).fmt(f)
            }
        }
    }
}

impl Serialize for StartPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StartPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StartPolicy, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

const EXPECTED: &str = "\"earliest\", \"latest\" or a time such as \"2026-01-31T00:00:00Z\"";

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = StartPolicy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<StartPolicy, E> {
        match text {
            "earliest" => Ok(StartPolicy::Earliest),
            "latest" => Ok(StartPolicy::Latest),
            _ => text
                .parse::<Datetime>()
                .map_err(|_| E::custom(format!("`{text}` is not a start position: write {EXPECTED}")))
                .and_then(|time| at(time)),
        }
    }

    /// Accepts a time without quotes, which TOML has as a type.
    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<StartPolicy, A::Error> {
        Datetime::deserialize(de::value::MapAccessDeserializer::new(map)).and_then(at)
    }
}

fn at<E: de::Error>(written: Datetime) -> Result<StartPolicy, E> {
    let invalid =
        || E::custom(format!("`{written}` is not a time since 1970 with a UTC offset: write {EXPECTED}"));
    let (Some(_), Some(_), Some(offset)) = (written.date, written.time, written.offset) else {
        return Err(invalid());
    };
    let in_utc = Datetime { offset: Some(Offset::Z), ..written };
    let since_1970 = humantime::parse_rfc3339(&in_utc.to_string())
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|duration| i64::try_from(duration.as_millis()).ok())
        .ok_or_else(invalid)?;
    let ahead_minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let millis = since_1970 - ahead_minutes * 60_000;
    if millis < 0 { Err(invalid()) } else { Ok(StartPolicy::Time(millis)) }
}

impl JsonSchema for StartPolicy {
    fn schema_name() -> Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`\"earliest\"`, `\"latest\"`, or a time in RFC 3339 format: `\"2026-01-31T00:00:00Z\"`.",
            "anyOf": [{ "enum": ["earliest", "latest"] }, { "format": "date-time" }],
        })
    }
}
