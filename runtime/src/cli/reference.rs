//! The configuration's reference, written from its schema: `keylane schema --format markdown`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Sections whose keys have names of the user's choosing.
const NAMED: &str = "NAME";

/// All sections, each with a table of its settings.
pub(super) fn markdown(schema: &Value) -> String {
    let mut pages = Pages { schema, text: String::new(), sections: Vec::new(), values: RefCell::default() };
    pages.text.push_str("# Configuration\n\n");
    pages.text.push_str(
        "<!-- Written by `keylane schema --format markdown`: change the doc comments there. -->\n\n",
    );
    pages.paragraph(text(schema, "description"));
    pages.section("", schema);
    // Sections are found while their parents are written.
    let mut at = 0;
    while let Some(Section { path, definition: name, about }) = pages.sections.get(at).cloned() {
        if let Some(definition) = schema.pointer(&format!("/$defs/{name}")) {
            write!(pages.text, "\n## `{path}`\n\n").expect("a string takes any text");
            let general = text(definition, "description");
            if !about.starts_with(general) {
                pages.paragraph(general);
            }
            pages.paragraph(&about);
            pages.section(&path, definition);
        }
        at += 1;
    }
    pages.kinds_of_values();
    pages.text
}

/// A section that is still to be written.
#[derive(Clone)]
struct Section {
    /// Its heading.
    path: String,
    definition: String,
    /// What the setting that it is says of it.
    about: String,
}

struct Pages<'s> {
    schema: &'s Value,
    text: String,
    /// Those that are written, and those that are still to be.
    sections: Vec<Section>,
    /// Definitions of texts of a certain form that some setting has.
    values: RefCell<BTreeSet<String>>,
}

impl Pages<'_> {
    fn paragraph(&mut self, text: &str) {
        let description = text.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n");
        if !description.is_empty() {
            write!(self.text, "{description}\n\n").expect("a string takes any text");
        }
    }

    fn section(&mut self, path: &str, definition: &Value) {
        let Some(properties) = definition.get("properties").and_then(Value::as_object) else { return };
        let required = definition.get("required").and_then(Value::as_array);
        let mut rows = String::new();
        for (name, property) in properties {
            if let Some(section) = self.section_of(path, name, property) {
                self.sections.push(section);
                continue;
            }
            let needed = required.is_some_and(|required| required.iter().any(|known| known == name));
            let default = default(property, needed);
            let meaning = self.meaning(property);
            writeln!(rows, "| `{name}` | {} | {default} | {meaning} |", self.kind(property))
                .expect("as above");
        }
        if !rows.is_empty() {
            write!(self.text, "| setting | type | default | |\n|---|---|---|---|\n{rows}").expect("as above");
        }
    }

    /// A setting that is a section of its own.
    fn section_of(&self, path: &str, name: &str, property: &Value) -> Option<Section> {
        let section = |path, definition| {
            Some(Section { path, definition, about: text(property, "description").to_owned() })
        };
        let below = |inner: &str| {
            if path.is_empty() {
                inner.to_owned()
            } else {
                format!("{}.{inner}", path.trim_matches(['[', ']']))
            }
        };
        let of =
            |property: &Value| Some(reference(property)?.to_owned()).filter(|name| self.is_section(name));
        if let Some(definition) = of(property) {
            return section(format!("[{}]", below(name)), definition);
        }
        if let Some(definition) = property.get("additionalProperties").and_then(of) {
            return section(format!("[{}.{NAMED}]", below(name)), definition);
        }
        let definition = property.get("items").and_then(of)?;
        section(format!("[[{}]]", below(name)), definition)
    }

    fn is_section(&self, definition: &str) -> bool {
        self.schema.pointer(&format!("/$defs/{definition}/properties")).is_some()
    }

    fn definition(&self, property: &Value) -> Option<&Value> {
        self.schema.pointer(&format!("/$defs/{}", reference(property)?))
    }

    fn kind(&self, property: &Value) -> String {
        if let Some(name) = reference(property) {
            let choices = self.definition(property).map(choices).unwrap_or_default();
            if choices.is_empty() {
                self.values.borrow_mut().insert(name.to_owned());
                let name = spaced(name);
                return format!("[{name}](#{})", name.replace(' ', "-"));
            }
            return choices.join(", ");
        }
        let items = property.get("items").map(|items| format!("list of {}", self.kind(items)));
        items.unwrap_or_else(|| plain_type(property))
    }

    /// What the kinds of values are that have names of their own.
    fn kinds_of_values(&mut self) {
        for name in self.values.take() {
            let Some(definition) = self.schema.pointer(&format!("/$defs/{name}")) else { continue };
            self.text.truncate(self.text.trim_end().len());
            write!(self.text, "\n\n## {}\n\n", spaced(&name)).expect("a string takes any text");
            self.paragraph(text(definition, "description"));
        }
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    /// What it means, and what each choice means.
    fn meaning(&self, property: &Value) -> String {
        let mut meaning = text(property, "description").replace('\n', " ");
        for choice in self.definition(property).map(alternatives).into_iter().flatten() {
            if let (Some(value), about) = (choice.get("const"), text(choice, "description")) {
                write!(meaning, " `{value}`: {}", about.replace('\n', " ")).expect("a string takes any text");
            }
        }
        meaning.replace('|', "\\|")
    }
}

/// A type's name as words: `LaneKey` is a lane key.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// The definition that a property refers to, directly or as what it is if it is there.
fn reference(property: &Value) -> Option<&str> {
    let of = |value: &'_ Value| -> Option<String> { Some(value.get("$ref")?.as_str()?.to_owned()) };
    if of(property).is_some() {
        return property.get("$ref")?.as_str()?.strip_prefix("#/$defs/");
    }
    let any = property.get("anyOf")?.as_array()?;
    any.iter().find_map(|one| one.get("$ref")?.as_str()?.strip_prefix("#/$defs/"))
}

fn alternatives(definition: &Value) -> &[Value] {
    definition.get("oneOf").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn choices(definition: &Value) -> Vec<String> {
    alternatives(definition).iter().filter_map(|choice| Some(format!("`{}`", choice.get("const")?))).collect()
}

fn plain_type(property: &Value) -> String {
    let names = match property.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        _ => vec!["table"],
    };
    let mut kind = names.join(" or ").replace("string", "text");
    let bound = |name: &str| property.get(name).map(Value::to_string);
    if let (Some(low), Some(high)) = (bound("minimum"), bound("maximum")) {
        write!(kind, ", {low} to {high}").expect("a string takes any text");
    }
    kind
}

fn default(property: &Value, needed: bool) -> String {
    match property.get("default") {
        _ if needed => "required".to_owned(),
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::Object(entries)) if entries == &Map::new() => "–".to_owned(),
        Some(value) => format!("`{value}`"),
    }
}

fn text<'v>(of: &'v Value, name: &str) -> &'v str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}
