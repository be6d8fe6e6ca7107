//! librdkafka properties. They are passed to the client as written; reserved ones are refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::known_properties::{canonical_name, is_oidc, java_remedy, reserved_reason};
use super::problem::Problems;
use super::secret;

/// The remedy for properties of OIDC: the alternative.
const OIDC_REMEDY: &str =
    "remove it; let another program fetch the token, and set its file as `token_file` under [kafka]";

/// Checked properties of a client. `Debug` prints no secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientProperties {
    /// Known properties by canonical name, so that a property has one value under all of its names.
    by_name: BTreeMap<&'static str, Property>,
    /// Properties that are unknown here: the client validates them.
    other: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Property {
    written_name: String,
    value: String,
}

impl ClientProperties {
    /// Names and values, as written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let known = self.by_name.values().map(|p| (p.written_name.as_str(), p.value.as_str()));
        known.chain(self.other.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Returns the value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        match canonical_name(name) {
            Some(name) => self.by_name.get(name).map(|property| property.value.as_str()),
            None => self.other.get(name).map(String::as_str),
        }
    }

    /// Merges two sets of properties. Those of `self` override those of `base`, even under another name.
    #[must_use]
    pub(super) fn over(&self, base: &ClientProperties) -> ClientProperties {
        let mut merged = base.clone();
        merged.by_name.extend(self.by_name.clone());
        merged.other.extend(self.other.clone());
        merged
    }

    /// Checks one of `[kafka.client]`, `[kafka.consumer]` and `[kafka.producer]`.
    pub(super) fn check(
        written: &WrittenProperties,
        table: &str,
        problems: &mut Problems<'_, '_>,
    ) -> ClientProperties {
        let mut checked = ClientProperties::default();
        for (path, value) in &written.0 {
            let path: Vec<&str> =
                ["kafka", table].into_iter().chain(path.iter().map(String::as_str)).collect();
            let name = path.get(2..).unwrap_or_default().join(".");
            if secret::is_secret(&name) {
                problems.mask(value);
            }
            if let Some(reason) = reserved_reason(&name) {
                problems.add(&path, format!("`{name}` can't be set: {reason}")).remedy("remove it");
            } else if is_oidc(&name, value) {
                let message = format!(
                    "`{name}` needs OIDC, but the Kafka client of this build can't fetch tokens over HTTP"
                );
                problems.add(&path, message).remedy(OIDC_REMEDY);
            } else if let Some(remedy) = java_remedy(&name) {
                let message = format!("`{name}` is a property of Kafka's Java client, not of librdkafka");
                problems.add(&path, message).remedy(remedy);
            } else if let Some(earlier) = checked.insert(&name, value) {
                let message = format!("`{name}` and `{earlier}` are the same property, and both are set");
                problems.add(&path, message).remedy("keep one of them");
            }
        }
        checked
    }

    /// Adds a property. Returns the name under which it was set before, if any.
    fn insert(&mut self, name: &str, value: &str) -> Option<String> {
        let value = value.to_owned();
        match canonical_name(name) {
            Some(canonical) => {
                let property = Property { written_name: name.to_owned(), value };
                self.by_name.insert(canonical, property).map(|earlier| earlier.written_name)
            }
            None => self.other.insert(name.to_owned(), value).map(|_| name.to_owned()),
        }
    }
}

impl fmt::Debug for ClientProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| {
            (name, if secret::is_hidden_property(name) { "(not shown)" } else { value })
        });
        f.debug_map().entries(shown).finish()
    }
}

/// Properties as written, flattened: the parts of each dotted name as nested in the file, and the value.
#[derive(Default)]
pub(super) struct WrittenProperties(Vec<(Vec<String>, String)>);

impl fmt::Debug for WrittenProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(path, _)| path)).finish()
    }
}

impl<'de> Deserialize<'de> for WrittenProperties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WrittenProperties, D::Error> {
        let table = BTreeMap::<String, Node>::deserialize(deserializer)?;
        let mut flat = Vec::new();
        flatten(table, &mut Vec::new(), &mut flat);
        Ok(WrittenProperties(flat))
    }
}

fn flatten(table: BTreeMap<String, Node>, path: &mut Vec<String>, flat: &mut Vec<(Vec<String>, String)>) {
    for (name, node) in table {
        path.push(name);
        match node {
            Node::Value(value) => flat.push((path.clone(), value)),
            Node::Table(inner) => flatten(inner, path, flat),
        }
        path.pop();
    }
}

/// A value, or the tables that TOML makes of a dotted name.
enum Node {
    Value(String),
    Table(BTreeMap<String, Node>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a whole number, or true or false")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Value(value.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Node, A::Error> {
        BTreeMap::deserialize(de::value::MapAccessDeserializer::new(map)).map(Node::Table)
    }
}

impl JsonSchema for WrittenProperties {
    fn schema_name() -> Cow<'static, str> {
        "ClientProperties".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Properties by their librdkafka names.",
            "additionalProperties": { "type": ["string", "integer", "boolean", "object"] },
        })
    }
}
