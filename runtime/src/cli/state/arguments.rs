//! The arguments of `keylane state` and `keylane offsets`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `state`.
#[derive(Args, Debug)]
pub struct StateArguments {
    /// The command.
    #[command(subcommand)]
    pub command: StateCommand,
}

/// The commands for keyed state.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Print a line for each key: partition, key, version and size of its state.
    List(StateListArguments),
    /// Print the state of one key, as the handler returned it.
    Get(StateGetArguments),
    /// Print the number of keys, and the bytes of their states.
    Count(StateCountArguments),
    /// Delete the states, and set the group to the start of its topics, to process them again. The group must have no
    /// members.
    Reset(StateResetArguments),
    /// Set the group to the offsets of the states, after the group's offsets were changed or have expired. The group must
    /// have no members.
    Adopt(StateAdoptArguments),
    /// Set the mark of a key, the order value up to which its events have passed: the key continues with the value after it,
    /// also if it waited behind the dead letters of a gap. The group must have no members.
    SetMark(StateSetMarkArguments),
    /// Set the marks of the keys in a dump of a table, so that a gate continues where the table is. A mark that is not lower is
    /// kept. The group must have no members.
    Seed(StateSeedArguments),
}

/// The partitions that a command is about.
#[derive(Args, Debug)]
pub struct PartitionArguments {
    /// The handler, if more than one has keyed state.
    pub handler: Option<String>,
    /// Only partitions of this input topic.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only the partition with this number.
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<i32>,
}

/// Arguments of `state list`.
#[derive(Args, Debug)]
pub struct StateListArguments {
    /// The partitions.
    #[command(flatten)]
    pub partitions: PartitionArguments,
    /// Print the states, too: as text, or in hex if they are not text.
    #[arg(long)]
    pub values: bool,
    /// Print lines of JSON, with the states. Bytes that are not text are in base64.
    #[arg(long)]
    pub json: bool,
    /// Print at most this many keys.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
}

/// Arguments of `state get`.
#[derive(Args, Debug)]
pub struct StateGetArguments {
    /// The handler, if more than one has keyed state, and the lane key: one argument, or one for each part. With a lane key
    /// from JSON, `1` and `true` are a number and a literal, and `"1"` is text.
    #[arg(value_name = "[HANDLER] KEY", required_unless_present = "no_key")]
    pub key: Vec<String>,
    /// The state of the events without a key, or of the partition.
    #[arg(long)]
    pub no_key: bool,
    /// Print what the gate remembers of the key instead, as a line of JSON for each partition.
    #[arg(long)]
    pub mark: bool,
    /// With `--mark`: the gate key, if `gate.key` is not `lane`.
    #[arg(long, value_name = "KEY", requires = "mark")]
    pub gate_key: Option<String>,
    /// Only partitions of this input topic.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only the partition with this number.
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<i32>,
}

/// Arguments of `state count`.
#[derive(Args, Debug)]
pub struct StateCountArguments {
    /// The partitions.
    #[command(flatten)]
    pub partitions: PartitionArguments,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `state reset`.
#[derive(Args, Debug)]
pub struct StateResetArguments {
    /// The partitions.
    #[command(flatten)]
    pub partitions: PartitionArguments,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `state adopt`.
#[derive(Args, Debug)]
pub struct StateAdoptArguments {
    /// The partitions.
    #[command(flatten)]
    pub partitions: PartitionArguments,
}

/// Arguments of `state set-mark`.
#[derive(Args, Debug)]
pub struct StateSetMarkArguments {
    /// The handler.
    pub handler: String,
    /// The number of the partition.
    pub partition: i32,
    /// The lane key, one argument for each part, and the order value in the format of the gate. A handler with
    /// `ordering = "partition"` has only the value.
    #[arg(value_name = "KEY VALUE", required = true, allow_negative_numbers = true)]
    pub key_and_value: Vec<String>,
    /// The gate key, if `gate.key` is not `lane`.
    #[arg(long, value_name = "KEY")]
    pub gate_key: Option<String>,
    /// The input topic, if the handler reads several.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// Arguments of `state seed`.
#[derive(Args, Debug)]
pub struct StateSeedArguments {
    /// The handler.
    pub handler: String,
    /// CSV with the columns `partition,key,value` or `key,value`, named in its first line; or lines of JSON with these fields,
    /// if the name ends in `.jsonl`. Without a partition, it is the one that Kafka's producers choose for the key.
    pub dump: PathBuf,
    /// The input topic, if the handler reads several.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// Arguments of `offsets`.
#[derive(Args, Debug)]
pub struct OffsetsArguments {
    /// The command.
    #[command(subcommand)]
    pub command: OffsetsCommand,
}

/// The commands for committed offsets.
#[derive(Debug, Subcommand)]
pub enum OffsetsCommand {
    /// Commit the same offsets without their metadata, in partitions that stopped because the metadata can't be read.
    /// Events beyond the offsets may be processed again. The group must have no members.
    Accept(PartitionArguments),
}
