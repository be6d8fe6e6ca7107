//! Prints outputs on the embedded broker as JSON Lines on standard output: the fields of a feed, and topic, partition
//! and offset.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::librdkafka::Record;

/// Prints one record. A closed standard output is ignored: it must not fail the handler.
pub(super) fn print(topic: &str, partition: i32, record: &Record<'_>) {
    let mut line = line(topic, partition, record).to_string();
    line.push('\n');
    let _ignored = std::io::stdout().lock().write_all(line.as_bytes());
}

fn line(topic: &str, partition: i32, record: &Record<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("topic".to_owned(), json!(topic));
    fields.insert("partition".to_owned(), json!(partition));
    fields.insert("offset".to_owned(), json!(record.offset()));
    insert(&mut fields, "key", record.key());
    insert(&mut fields, "value", record.value());
    let headers: Vec<Value> = record
        .headers()
        .map(|(name, value)| json!([String::from_utf8_lossy(name), value.map(String::from_utf8_lossy)]))
        .collect();
    if !headers.is_empty() {
        fields.insert("headers".to_owned(), Value::Array(headers));
    }
    Value::Object(fields)
}

/// Inserts text unchanged, other bytes under `…_base64`, an absent value as null.
fn insert(fields: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => fields.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => fields.insert(name.to_owned(), json!(text)),
        Some(Err(_)) => {
            fields.insert(format!("{name}_base64"), json!(STANDARD.encode(bytes.unwrap_or_default())))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_bytes_and_absent_values_differ() {
        let mut fields = Map::new();
        insert(&mut fields, "key", Some(b"ada"));
        insert(&mut fields, "value", Some(b"\xff"));
        insert(&mut fields, "other", None);
        assert_eq!(Value::Object(fields), json!({ "key": "ada", "value_base64": "/w==", "other": null }));
    }
}
