//! `keylane schema`

use super::arguments::SchemaFormat;
use super::{CommandFailure, Completion, reference, stdout};
use crate::config;

/// Prints the schema of the configuration.
pub(super) fn execute(format: SchemaFormat) -> Result<Completion, CommandFailure> {
    stdout::print(&match format {
        SchemaFormat::Json => text() + "\n",
        SchemaFormat::Markdown => page(),
    })
}

fn page() -> String {
    let schema = serde_json::to_value(config::schema()).expect("a schema is JSON");
    reference::markdown(&schema)
}

fn text() -> String {
    serde_json::to_string_pretty(&config::schema()).expect("a schema is JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// `keylane schema --format markdown > docs/configuration.md` updates it.
    #[test]
    fn the_reference_in_docs_is_up_to_date() {
        assert!(
            page() == include_str!("../../../docs/configuration.md"),
            "docs/configuration.md is out of date"
        );
    }

    #[test]
    fn the_schema_describes_every_field_and_its_default() {
        let schema: Value = serde_json::from_str(&text()).expect("the schema is JSON");
        let at =
            |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {schema:#}"));
        assert_eq!(at("/required"), &serde_json::json!(["kafka"]));
        assert_eq!(at("/$defs/Lanes/properties/max_concurrency/default"), &serde_json::json!(256));
        assert_eq!(at("/$defs/Handler/properties/memory/default"), &serde_json::json!("64MiB"));
        assert_eq!(at("/$defs/Commit/properties/interval/default"), &serde_json::json!("1s"));
        assert_eq!(at("/$defs/Handler/additionalProperties"), &serde_json::json!(false));

        let definitions = at("/$defs").as_object().expect("`$defs` is an object");
        let structs = definitions.values().chain([&schema]).filter_map(|d| d.get("properties")?.as_object());
        for (name, field) in structs.flatten() {
            assert!(field.get("description").is_some(), "{name} has no description: {field}");
        }
    }
}
