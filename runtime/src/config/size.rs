//! Sizes in bytes in human-readable form.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size such as `"64MiB"`. Displayed in the largest binary unit that is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanSize(pub u64);

impl HumanSize {
    pub(super) const fn from_kib(kib: u64) -> HumanSize {
        HumanSize(kib << 10)
    }

    pub(super) const fn from_mib(mib: u64) -> HumanSize {
        HumanSize(mib << 20)
    }
}

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for HumanSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HumanSize, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = HumanSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"512KiB\" or \"64MiB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanSize, E> {
        // The parser's own message names an internal type.
        text.parse::<bytesize::ByteSize>().map(|size| HumanSize(size.as_u64())).map_err(|_| {
            E::custom(format!("`{text}` is not a size (write it like \"512KiB\", \"64MiB\" or \"1GiB\")"))
        })
    }
}

impl JsonSchema for HumanSize {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A size in bytes with its unit, in quotes: `\"512KiB\"`, `\"64MiB\"`, `\"1GiB\"`.",
            "examples": ["512KiB", "64MiB", "1GiB"],
        })
    }
}
