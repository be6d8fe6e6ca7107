//! `keylane state set-mark` and `seed`, and `get --mark`: what the gate remembers of keys.

use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use keylane_state::record_key;
use serde_json::json;

use super::super::{CommandFailure, Completion, stdout};
use super::arguments::{StateSeedArguments, StateSetMarkArguments};
use super::dump::{self, DumpFormat, DumpRow};
use super::{Cli, note};
use crate::admit::{typed_field, typed_key, typed_order_value};
use crate::app::{KeyedTools, KnownMark, NewMarks, Selection, WrittenMarks};
use crate::config::{EventField, GateConfig, HandlerConfig, LaneKey, Ordering};
use crate::librdkafka::partition_for_key;

/// Sets the mark of one key.
pub(super) fn set_mark(
    on: &Cli<'_>,
    arguments: &StateSetMarkArguments,
) -> Result<Completion, CommandFailure> {
    let handler = on.with_marks(Some(&arguments.handler))?;
    let gate = gate_of(handler)?;
    let (texts, value) = match arguments.key_and_value.as_slice() {
        [texts @ .., value] => (texts, value),
        [] => return Err(usage(&anyhow!("the order value is missing"))),
    };
    let value = order_value(gate, value).map_err(|error| usage(&error))?;
    let key = mark_key(handler, texts, arguments.gate_key.as_deref()).map_err(|error| usage(&error))?;
    let selection = Selection { topic: arguments.topic.clone(), partition: Some(arguments.partition) };
    let mut tools = connect(on, handler, &selection)?;
    let name = record_key::display(&key);
    let marks = NewMarks::from([(arguments.partition, [(key, value)].into())]);
    let WrittenMarks { .. } = tools.write_marks(&marks, KnownMark::Replaced)?;
    stdout::print(&format!("the {name} in partition {} is {value}\n", arguments.partition))
}

/// Sets the marks of the keys in a dump.
pub(super) fn seed(on: &Cli<'_>, arguments: &StateSeedArguments) -> Result<Completion, CommandFailure> {
    let handler = on.with_marks(Some(&arguments.handler))?;
    let gate = gate_of(handler)?;
    let dump = File::open(&arguments.dump)
        .with_context(|| format!("the dump `{}` can't be opened", arguments.dump.display()))?;
    let selection = Selection { topic: arguments.topic.clone(), partition: None };
    let mut tools = connect(on, handler, &selection)?;
    let partitions = i32::try_from(tools.partitions().len()).unwrap_or(i32::MAX);
    let (mut marks, mut rows) = (NewMarks::new(), 0_u64);
    dump::read(BufReader::new(dump), format_of(&arguments.dump), &mut |row| {
        rows += 1;
        let (partition, key) = place(handler, gate, &row, partitions)?;
        let value = order_value(gate, &row.value)?;
        match marks.entry(partition).or_default().entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(value);
            }
            // Of several rows of a key, the highest counts.
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                *known = value.max(*known);
            }
        }
        Ok(())
    })?;
    let WrittenMarks { written, kept, partitions } = tools.write_marks(&marks, KnownMark::KeptIfHigher)?;
    let kept =
        if kept > 0 { format!("; {kept} keys have kept a mark that is not lower") } else { String::new() };
    stdout::print(&format!("{rows} rows read; {written} marks written in {partitions} partitions{kept}\n"))
}

/// Prints what the gate remembers of one key, as JSON.
pub(super) fn get(
    on: &Cli<'_>,
    handler: &HandlerConfig,
    texts: &[String],
    gate_key: Option<&str>,
    selection: &Selection,
) -> Result<Completion, CommandFailure> {
    let key = mark_key(handler, texts, gate_key).map_err(|error| usage(&error))?;
    let mut tools = on.connect(handler, selection)?;
    note(&format!("reading the {}, at {}", tools.source(), on.servers));
    let mut lines = String::new();
    for partition in tools.partitions().to_vec() {
        let Some(found) = tools.mark_of(&partition, &key)? else { continue };
        let line = json!({
            "topic": partition.input, "partition": partition.number, "mark": found.mark, "broken": found.broken,
            "holes": found.holes, "delivered": found.delivered,
        });
        lines += &format!("{line}\n");
    }
    if lines.is_empty() {
        return Err(anyhow!("there is no {}", record_key::display(&key)).into());
    }
    stdout::print(&lines)
}

fn connect(
    on: &Cli<'_>,
    handler: &HandlerConfig,
    selection: &Selection,
) -> Result<KeyedTools, CommandFailure> {
    let tools = on.connect(handler, selection)?;
    tools.needs_one_topic()?;
    note(&format!("writing to the {}, at {}", tools.source(), on.servers));
    Ok(tools)
}

fn gate_of(handler: &HandlerConfig) -> Result<&GateConfig, CommandFailure> {
    let gate = handler.order.gate.as_ref();
    gate.ok_or_else(|| usage(&anyhow!("the handler `{}` has no gate", handler.name)))
}

fn order_value(gate: &GateConfig, text: &str) -> anyhow::Result<i64> {
    let value = typed_order_value(&gate.by, text);
    value
        .with_context(|| format!("`{}` is not an order value in the format of the gate", text.escape_debug()))
}

/// Returns the key of the mark record of a lane key, given as the texts of its parts, and of the gate key.
fn mark_key(handler: &HandlerConfig, texts: &[String], gate_key: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let lane_key = typed_key(&handler.lanes, texts)?;
    let field = handler.order.gate.as_ref().and_then(|gate| gate.key.as_ref());
    let gate_key = match (field, gate_key) {
        (None, None) => None,
        (Some(field), Some(text)) => {
            let mut key = Vec::new();
            typed_field(field, text, &mut key);
            Some(key)
        }
        (Some(field), None) => bail!("the gate key, `{field}`, is missing"),
        (None, Some(_)) => bail!("the gate has no key of its own: `gate.key` is \"lane\""),
    };
    let mut key = Vec::new();
    record_key::push_mark(&lane_key, gate_key.as_deref(), &mut key);
    Ok(key)
}

/// Returns the partition of a row, and the key of its mark record.
fn place(
    handler: &HandlerConfig,
    gate: &GateConfig,
    row: &DumpRow,
    partitions: i32,
) -> anyhow::Result<(i32, Vec<u8>)> {
    let lanes = &handler.lanes;
    let texts: Vec<String> =
        row.key.iter().enumerate().map(|(part, text)| text.typed(is_json(&lanes.lane_key, part))).collect();
    let in_json = matches!(gate.key, Some(EventField::Json(_)));
    let gate_key = row.gate_key.as_ref().map(|text| text.typed(in_json));
    let key = mark_key(handler, &texts, gate_key.as_deref())?;
    let by_key = match (lanes.ordering, &lanes.lane_key, texts.as_slice()) {
        (Ordering::Key, LaneKey::Key, [key]) => Some(partition_for_key(key.as_bytes(), partitions)),
        _ => None,
    };
    let partition = row.partition.or(by_key);
    let partition = partition.context(
        "its partition is not known, because the lane key is not the key of the record: add the column `partition`",
    )?;
    Ok((partition, key))
}

/// Returns whether a part of the lane key is read from JSON.
fn is_json(lane_key: &LaneKey, part: usize) -> bool {
    match lane_key {
        LaneKey::Key | LaneKey::Header(_) => false,
        LaneKey::Json(_) | LaneKey::RegistryJson(_) => true,
        LaneKey::Composite(parts) => parts.get(part).is_some_and(|lane_key| is_json(lane_key, 0)),
    }
}

fn format_of(dump: &Path) -> DumpFormat {
    let is_json = dump.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    if is_json { DumpFormat::JsonLines } else { DumpFormat::Csv }
}

fn usage(error: &anyhow::Error) -> CommandFailure {
    CommandFailure::Usage {
        message: format!("{error:#}"),
        remedy: "see `keylane state set-mark --help` and docs/operations.md, \"Keyed state\"",
    }
}
