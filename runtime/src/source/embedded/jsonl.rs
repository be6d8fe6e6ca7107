//! Records as lines of JSON.
//!
//! `{"key": "k", "value": "v", "headers": [["name", "value"], ["empty", null]], "timestamp": 1700000000000}`.
//! Every field is optional. `key_base64` and `value_base64` carry bytes that are not text. Headers may also be an
//! object.
use std::fmt;
use std::io::{BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// Maximum length of a line in bytes: the embedded broker keeps 5 MiB per partition.
const MAX_LINE: u64 = 4 << 20;
/// Overhead of a record beside its bytes; a slight overestimate.
const RECORD_OVERHEAD: usize = 70;

/// A record to feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FedRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<String>)>,
    /// Milliseconds since the Unix epoch; `None`: the time at which it is fed.
    pub timestamp: Option<i64>,
}

/// The error of a line.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// The line number, from 1.
    pub line: u64,
    /// The error.
    pub reason: String,
}

impl FedRecord {
    /// Returns the size of the record in a log, in bytes, slightly overestimated.
    pub(super) fn size(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len) + 10)
            .sum();
        bytes(&self.key) + bytes(&self.value) + headers + RECORD_OVERHEAD
    }

    fn parse(line: &[u8]) -> Result<FedRecord, String> {
        let written: Written = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        Ok(FedRecord {
            key: one_of("key", written.key, written.key_base64)?,
            value: one_of("value", written.value, written.value_base64)?,
            headers: written.headers.0,
            timestamp: written.timestamp,
        })
    }
}

/// The records of a text, line by line. Empty lines are skipped; an error ends the iteration.
pub(super) struct JsonLines<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    failed: bool,
}

impl<R: BufRead> JsonLines<R> {
    pub(super) fn new(input: R) -> JsonLines<R> {
        JsonLines { input, buffer: Vec::new(), line: 0, failed: false }
    }

    fn read_line(&mut self) -> Result<Option<FedRecord>, String> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let mut limited = self.input.by_ref().take(MAX_LINE);
            let read = limited.read_until(b'\n', &mut self.buffer).map_err(|error| error.to_string())?;
            if read == 0 {
                return Ok(None);
            }
            if !self.buffer.ends_with(b"\n") && self.buffer.len() as u64 >= MAX_LINE {
                return Err(format!("the line is longer than {MAX_LINE} bytes"));
            }
            let text = self.buffer.trim_ascii();
            if !text.is_empty() {
                return FedRecord::parse(text).map(Some);
            }
        }
    }
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Result<FedRecord, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.read_line().map_err(|reason| LineError { line: self.line, reason });
        self.failed = record.is_err();
        record.transpose()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    key_base64: Option<String>,
    #[serde(default)]
    value_base64: Option<String>,
    #[serde(default)]
    headers: WrittenHeaders,
    #[serde(default)]
    timestamp: Option<i64>,
}

fn one_of(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("both `{name}` and `{name}_base64` are set: give one of them")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(coded)) => {
            STANDARD.decode(coded).map(Some).map_err(|error| format!("`{name}_base64`: {error}"))
        }
        (None, None) => Ok(None),
    }
}

/// Headers as written: a list of pairs or an object. Keeps their order.
#[derive(Default)]
struct WrittenHeaders(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for WrittenHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Headers;

        impl<'de> Visitor<'de> for Headers {
            type Value = WrittenHeaders;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of [name, value] pairs or an object")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<WrittenHeaders, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = list.next_element()? {
                    all.push(pair);
                }
                Ok(WrittenHeaders(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WrittenHeaders, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    all.push(pair);
                }
                Ok(WrittenHeaders(all))
            }
        }

        deserializer.deserialize_any(Headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<FedRecord>, String> {
        JsonLines::new(text.as_bytes()).collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    #[test]
    fn all_fields_are_parsed() {
        let text = r#"
{"key":"k","value":"v","headers":[["b","1"],["a",null],["b","2"]],"timestamp":5}

{"key_base64":"/w==","headers":{"z":"1","a":null}}
{}"#;
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(
            check(text).expect("every line is valid"),
            [
                FedRecord {
                    key: Some(b"k".to_vec()),
                    value: Some(b"v".to_vec()),
                    headers: vec![pair("b", Some("1")), pair("a", None), pair("b", Some("2"))],
                    timestamp: Some(5),
                },
                FedRecord {
                    key: Some(vec![0xff]),
                    headers: vec![pair("z", Some("1")), pair("a", None)],
                    ..FedRecord::default()
                },
                FedRecord::default(),
            ]
        );
    }

    #[test]
    fn a_bad_line_is_reported_and_ends_the_feed() {
        for (text, line, word) in [
            ("{}\n\n{\"kye\":1}\n{}", 3, "kye"),
            ("{\"value\":{\"a\":1}}", 1, "expected a string"),
            ("{\"value\":\"a\",\"value_base64\":\"YQ==\"}", 1, "both `value`"),
            ("{\"key_base64\":\"?\"}", 1, "key_base64"),
            ("nonsense", 1, "expected"),
        ] {
            let mut lines = JsonLines::new(text.as_bytes()).skip_while(Result::is_ok);
            let error = lines.next().expect("one line is invalid").expect_err("the line is invalid");
            assert_eq!(error.line, line, "{text}");
            assert!(error.reason.contains(word), "{error}");
            assert!(lines.next().is_none());
        }
    }
}
