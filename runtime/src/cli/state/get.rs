//! `keylane state get`.

use anyhow::anyhow;
use keylane_state::record_key;

use super::super::{CommandFailure, Completion, stdout};
use super::arguments::StateGetArguments;
use super::{Cli, marks, note};
use crate::admit::{typed_key, typed_parts};
use crate::app::Selection;
use crate::config::HandlerConfig;

/// Prints the state of one key. All partitions are searched: a producer may choose any.
pub(super) fn execute(on: &Cli<'_>, arguments: &StateGetArguments) -> Result<Completion, CommandFailure> {
    let (handler, texts) = handler_and_key(on, arguments)?;
    let key = typed_key(&handler.lanes, texts).map_err(|error| CommandFailure::Usage {
        message: error.to_string(),
        remedy: "`keylane state list` prints the keys",
    })?;
    let selection = Selection { topic: arguments.topic.clone(), partition: arguments.partition };
    if arguments.mark {
        return marks::get(on, handler, texts, arguments.gate_key.as_deref(), &selection);
    }
    let mut tools = on.connect(handler, &selection)?;
    note(&format!("reading the {}, at {}", tools.source(), on.servers));
    let mut found: Option<(String, Vec<u8>)> = None;
    for partition in tools.partitions().to_vec() {
        let Some(state) = tools.state_of(&partition, &key)? else { continue };
        let place = format!("{}/{}", partition.input, partition.number);
        if let Some((first, _)) = &found {
            return Err(anyhow!(
                "the key {} has a state in {first} and in {place}: choose one with `--partition`, or `--topic`",
                record_key::display(&key)
            )
            .into());
        }
        found = Some((place, state));
    }
    let Some((place, state)) = found else {
        return Err(anyhow!("the key {} has no state", record_key::display(&key)).into());
    };
    note(&format!("the key {} is in {place}", record_key::display(&key)));
    stdout::print_bytes(&state)
}

/// Returns the handler, and the texts of the key. The first argument is the handler if there is one more than the lane
/// key has parts.
fn handler_and_key<'a>(
    on: &'a Cli<'_>,
    arguments: &'a StateGetArguments,
) -> Result<(&'a HandlerConfig, &'a [String]), CommandFailure> {
    let key = arguments.key.as_slice();
    let parts = |handler: &HandlerConfig| if arguments.no_key { 0 } else { typed_parts(&handler.lanes) };
    if let Some((first, rest)) = key.split_first()
        && let Some(named) = on.config.handlers.iter().find(|handler| handler.name == *first)
        && (named.state.is_some() || (arguments.mark && named.order.is_durable()))
        && (rest.len() == parts(named) || arguments.no_key)
    {
        return Ok((named, rest));
    }
    Ok((if arguments.mark { on.with_marks(None)? } else { on.with_state(None)? }, key))
}
