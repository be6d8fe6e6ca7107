//! `keylane state list` and `count`.

use keylane_state::record_key;
use serde_json::json;

use super::super::{CommandFailure, Completion, stdout};
use super::arguments::{StateCountArguments, StateListArguments};
use super::text::{json_of, json_of_key, line_of};
use super::{Cli, note};
use crate::app::{StateOfKey, ToolPartition};

/// Prints the keys of each partition. Records that can't be decoded are reported, and make the exit code 1.
pub(super) fn list(on: &Cli<'_>, arguments: &StateListArguments) -> Result<Completion, CommandFailure> {
    let mut tools = on.open(&arguments.partitions)?;
    let has_several_topics = tools.has_several_topics();
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let mut ended = Completion::Success;
    for partition in tools.partitions().to_vec() {
        if left == 0 {
            break;
        }
        let found = tools.states(&partition, arguments.values || arguments.json)?;
        let mut lines = String::new();
        for (key, state) in found.states.iter().take(left) {
            left -= 1;
            match state {
                Ok(state) if arguments.json => lines += &json_line(&partition, key, state),
                Ok(state) => lines += &line(&partition, has_several_topics, key, state),
                Err(error) => {
                    let (input, number) = (&partition.input, partition.number);
                    note(&format!("error: {input}/{number}, key {}: {error}", record_key::display(key)));
                    ended = Completion::Failure;
                }
            }
        }
        if stdout::print(&lines)? == Completion::Failure {
            return Ok(Completion::Failure);
        }
    }
    Ok(ended)
}

/// Returns the line of a key: its partition, the key, the version and the size of its state, and the state.
fn line(partition: &ToolPartition, has_several_topics: bool, key: &[u8], state: &StateOfKey) -> String {
    let topic = if has_several_topics { format!("{}/", partition.input) } else { String::new() };
    let value = state.value.as_ref().map_or(String::new(), |value| format!("\t{}", line_of(value)));
    let (number, key) = (partition.number, record_key::display(key));
    format!("{topic}{number}\t{key}\t{}\t{}{value}\n", state.version, state.size)
}

fn json_line(partition: &ToolPartition, key: &[u8], state: &StateOfKey) -> String {
    let value = state.value.as_deref().map(json_of);
    let line = json!({
        "topic": partition.input, "partition": partition.number, "key": json_of_key(key),
        "version": state.version, "size": state.size, "value": value,
    });
    format!("{line}\n")
}

/// The keys of one partition.
struct Count {
    partition: ToolPartition,
    keys: usize,
    bytes: usize,
}

/// Prints the numbers of keys and bytes.
pub(super) fn count(on: &Cli<'_>, arguments: &StateCountArguments) -> Result<Completion, CommandFailure> {
    let mut tools = on.open(&arguments.partitions)?;
    let (mut counts, mut ended) = (Vec::new(), Completion::Success);
    for partition in tools.partitions().to_vec() {
        let found = tools.states(&partition, false)?;
        let damaged = found.states.values().filter(|state| state.is_err()).count();
        if damaged > 0 {
            let (input, number) = (&partition.input, partition.number);
            note(&format!(
                "error: {input}/{number}: {damaged} states can't be decoded: see `keylane state list`"
            ));
            ended = Completion::Failure;
        }
        let bytes = found.states.values().flatten().map(|state| state.size).sum();
        counts.push(Count { partition, keys: found.states.len(), bytes });
    }
    let text = if arguments.json { json_of_counts(&counts) } else { table(&counts) };
    let printed = stdout::print(&text)?;
    Ok(if ended == Completion::Success { printed } else { ended })
}

fn totals(counts: &[Count]) -> (usize, usize) {
    (counts.iter().map(|count| count.keys).sum(), counts.iter().map(|count| count.bytes).sum())
}

fn table(counts: &[Count]) -> String {
    let mut text = format!("{:>12}  {:>14}  partition\n", "keys", "bytes");
    for Count { partition: ToolPartition { input, number, .. }, keys, bytes } in counts {
        text += &format!("{keys:>12}  {bytes:>14}  {input}/{number}\n");
    }
    let (keys, bytes) = totals(counts);
    text + &format!("{keys:>12}  {bytes:>14}  in all\n")
}

fn json_of_counts(counts: &[Count]) -> String {
    let of = |count: &Count| {
        let ToolPartition { input, number, .. } = &count.partition;
        json!({ "topic": input, "partition": number, "keys": count.keys, "bytes": count.bytes })
    };
    let (keys, bytes) = totals(counts);
    let partitions: Vec<_> = counts.iter().map(of).collect();
    format!("{}\n", json!({ "partitions": partitions, "keys": keys, "bytes": bytes }))
}
