//! Dumps of tables, for `keylane state seed`: CSV with a header line, or JSON Lines.
//!
//! CSV columns are separated by commas or tabs, and named `partition`, `key`, `gate_key` and `value` in the first line. A field
//! may be quoted, with `""` for a quote inside it. JSON Lines are objects with the same fields; `key` is a list if the lane key
//! is composite.

use std::io::BufRead;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The mark of one key.
#[derive(Debug, PartialEq)]
pub(super) struct DumpRow {
    /// `None`: that of the key.
    pub(super) partition: Option<i32>,
    /// The parts of the lane key.
    pub(super) key: Vec<DumpText>,
    pub(super) gate_key: Option<DumpText>,
    pub(super) value: String,
}

/// A text of a dump.
#[derive(Debug, PartialEq)]
pub(super) enum DumpText {
    /// As an operator types it.
    Typed(String),
    /// A scalar of JSON.
    Json(Value),
}

impl DumpText {
    /// Returns the text as an operator types it. `is_json`: whether the field of the event is JSON, in which `1` and `"1"`
    /// differ.
    pub(super) fn typed(&self, is_json: bool) -> String {
        match self {
            DumpText::Typed(text) => text.clone(),
            DumpText::Json(Value::String(text)) if !is_json => text.clone(),
            DumpText::Json(value) => value.to_string(),
        }
    }
}

/// The format of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DumpFormat {
    Csv,
    JsonLines,
}

/// Passes each row to `each`.
///
/// # Errors
/// A line can't be read, or `each` fails; the error names the line.
pub(super) fn read(
    dump: impl BufRead,
    format: DumpFormat,
    each: &mut dyn FnMut(DumpRow) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut header: Option<CsvHeader> = None;
    for (number, line) in (1..).zip(dump.lines()) {
        let row = || -> anyhow::Result<()> {
            let line = line.context("it can't be read as UTF-8")?;
            let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
            if line.is_empty() {
                return Ok(());
            }
            match (format, &header) {
                (DumpFormat::JsonLines, _) => each(row_of_json(line)?),
                (DumpFormat::Csv, Some(header)) => each(header.row(line)?),
                (DumpFormat::Csv, None) => {
                    header = Some(CsvHeader::parse(line)?);
                    Ok(())
                }
            }
        };
        row().with_context(|| format!("line {number} of the dump"))?;
    }
    Ok(())
}

/// The columns of a CSV file.
struct CsvHeader {
    separator: char,
    names: Vec<String>,
}

impl CsvHeader {
    fn parse(line: &str) -> anyhow::Result<CsvHeader> {
        let separator = if line.contains('\t') { '\t' } else { ',' };
        let names = fields(line, separator)?;
        for (index, name) in names.iter().enumerate() {
            ensure!(
                matches!(name.as_str(), "partition" | "key" | "gate_key" | "value"),
                "unknown column `{}`: the first line names the columns, `partition,key,value` or `key,value`",
                name.escape_debug()
            );
            ensure!(!names.iter().take(index).any(|other| other == name), "two columns are named `{name}`");
        }
        ensure!(names.iter().any(|name| name == "value"), "there is no column `value`");
        Ok(CsvHeader { separator, names })
    }

    fn row(&self, line: &str) -> anyhow::Result<DumpRow> {
        let fields = fields(line, self.separator)?;
        let (found, expected) = (fields.len(), self.names.len());
        ensure!(found == expected, "it has {found} fields, and the first line has {expected}");
        let mut row = DumpRow { partition: None, key: Vec::new(), gate_key: None, value: String::new() };
        for (name, field) in self.names.iter().zip(fields) {
            match name.as_str() {
                "partition" => {
                    let number = field.parse();
                    row.partition = Some(number.map_err(|_| anyhow!("`{field}` is not a partition"))?);
                }
                "key" => row.key.push(DumpText::Typed(field)),
                "gate_key" => row.gate_key = Some(DumpText::Typed(field)),
                _ => row.value = field,
            }
        }
        Ok(row)
    }
}

/// Returns the fields of a line of CSV (RFC 4180). A quoted field may not contain the end of a line.
fn fields(line: &str, separator: char) -> anyhow::Result<Vec<String>> {
    let (mut fields, mut rest) = (Vec::new(), line);
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (field, behind) = rest.split_at(rest.find(separator).unwrap_or(rest.len()));
                (field.to_owned(), behind)
            }
        };
        fields.push(field);
        if behind.is_empty() {
            return Ok(fields);
        }
        rest = behind.strip_prefix(separator).context("there is text behind a quoted field")?;
    }
}

/// Returns a quoted field, given without its first quote, and what is behind it.
fn unquoted(mut rest: &str) -> anyhow::Result<(String, &str)> {
    let mut field = String::new();
    loop {
        let (text, behind) = rest.split_once('"').context("a quoted field has no end")?;
        field.push_str(text);
        let Some(more) = behind.strip_prefix('"') else { return Ok((field, behind)) };
        field.push('"');
        rest = more;
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRow {
    partition: Option<i32>,
    #[serde(default)]
    key: Value,
    gate_key: Option<Value>,
    value: Value,
}

fn row_of_json(line: &str) -> anyhow::Result<DumpRow> {
    let JsonRow { partition, key, gate_key, value } = serde_json::from_str(line)?;
    let key = match key {
        Value::Null => Vec::new(),
        Value::Array(parts) => parts,
        one @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => vec![one],
    };
    let scalar = |value: Value| match value {
        Value::Array(_) | Value::Object(_) | Value::Null => {
            bail!("a key is text, a number, or a list of these")
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(DumpText::Json(value)),
    };
    Ok(DumpRow {
        partition,
        key: key.into_iter().map(scalar).collect::<anyhow::Result<_>>()?,
        gate_key: gate_key.map(scalar).transpose()?,
        value: DumpText::Json(value).typed(false),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(dump: &str, format: DumpFormat) -> Result<Vec<DumpRow>, String> {
        let mut rows = Vec::new();
        let ended = read(dump.as_bytes(), format, &mut |row| {
            rows.push(row);
            Ok(())
        });
        ended.map(|()| rows).map_err(|error| format!("{error:#}"))
    }

    fn row(partition: Option<i32>, key: &str, value: &str) -> DumpRow {
        let key = vec![DumpText::Typed(key.to_owned())];
        DumpRow { partition, key, gate_key: None, value: value.to_owned() }
    }

    #[test]
    fn csv_has_its_columns_in_any_order() {
        let comma = "key,value\r\nada,7\r\n\"a,\"\"b\"\"\",-1\n\n";
        assert_eq!(rows(comma, DumpFormat::Csv), Ok(vec![row(None, "ada", "7"), row(None, "a,\"b\"", "-1")]));
        let tab = "\u{feff}value\tpartition\tkey\n7\t3\ta,b\n";
        assert_eq!(rows(tab, DumpFormat::Csv), Ok(vec![row(Some(3), "a,b", "7")]));
        let gate = rows("gate_key,value\n1,2\n", DumpFormat::Csv).expect("rows");
        assert_eq!(gate[0].gate_key, Some(DumpText::Typed("1".to_owned())));
    }

    #[test]
    fn json_lines_keep_the_type_of_keys() {
        let dump = "{\"key\": \"1\", \"value\": 7}\n{\"partition\": 2, \"key\": [1, \"a\"], \"value\": \"8\"}\n{\"value\": 9}\n";
        let rows = rows(dump, DumpFormat::JsonLines).expect("rows");
        assert_eq!(rows.iter().map(|row| row.value.as_str()).collect::<Vec<_>>(), ["7", "8", "9"]);
        assert_eq!((rows[1].partition, &rows[1].key[1]), (Some(2), &DumpText::Json(json!("a"))));
        assert_eq!((rows[0].key[0].typed(false), rows[0].key[0].typed(true)), ("1".into(), "\"1\"".into()));
        assert_eq!((rows[1].key[0].typed(true), rows[2].key.len()), ("1".into(), 0));
    }

    #[test]
    fn a_line_that_can_not_be_read_is_named() {
        for (dump, format, expected) in [
            ("id,value\n", DumpFormat::Csv, "line 1 of the dump: unknown column `id`"),
            ("key,key,value\n", DumpFormat::Csv, "two columns are named `key`"),
            ("key\n", DumpFormat::Csv, "there is no column `value`"),
            (
                "key,value\na\n",
                DumpFormat::Csv,
                "line 2 of the dump: it has 1 fields, and the first line has 2",
            ),
            ("key,value\n\"a,1\n", DumpFormat::Csv, "a quoted field has no end"),
            ("key,value\n\"a\"b,1\n", DumpFormat::Csv, "text behind a quoted field"),
            ("partition,value\nx,1\n", DumpFormat::Csv, "`x` is not a partition"),
            ("{\"key\": {}, \"value\": 1}\n", DumpFormat::JsonLines, "a key is text, a number, or a list"),
            ("\n{\"id\": 1}\n", DumpFormat::JsonLines, "line 2 of the dump: unknown field `id`"),
        ] {
            let error = rows(dump, format).expect_err(dump);
            assert!(error.contains(expected), "{dump}: {error}");
        }
    }
}
