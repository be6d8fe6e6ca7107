//! Calls a `handler` or `keyed-handler`: one invocation for each row of a call.

use keylane_core::{Fault, Verdict};
use wasmtime::Store;

use super::batch::{self, Batch};
use super::bindings::keyed::KeyedEventHandler;
use super::bindings::keyed::exports::keylane::handler::keyed_handler::{self, StateChange};
use super::bindings::single::EventHandler;
use super::bindings::single::keylane::handler::types::{Event, HeaderParam, Output};
use super::call::GuestFailure;
use super::handler::Handler;
use super::host::Host;
use super::results::{self, Results};
use super::trap;

/// The exports of a component that takes one event per invocation.
#[derive(Clone, Copy)]
pub(super) enum RowExports<'a> {
    Single(&'a EventHandler),
    Keyed(&'a KeyedEventHandler),
}

/// Runs all rows of a call. A lane stops at its first row that is not done. `results` must be clear.
pub(super) async fn run(
    store: &mut Store<Host>,
    exports: RowExports<'_>,
    handler: &Handler,
    batch: &Batch,
    results: &mut Results,
) -> Result<(), GuestFailure> {
    let headers = header_records(batch);
    let mut events = Events::new(batch, &headers);
    let mut states = States::new(batch);
    let mut row = 0_u32;
    for (lane, rows) in (0_u32..).zip(batch.lanes()) {
        let first_state = states.next();
        let mut done = 0;
        let mut not_done = None;
        for _ in 0..*rows {
            // Rows after one that is not done are read but not run: their bytes precede those of the next lane.
            if let (Some(event), None) = (events.next(), &not_done) {
                results.start_row(lane, done, row);
                store.data().guest_log.at(event.partition, event.offset);
                not_done = match exports {
                    RowExports::Single(exports) => {
                        invoke(store, exports, handler, event, row, results).await?
                    }
                    RowExports::Keyed(exports) => {
                        let state = results.running_state().unwrap_or(first_state);
                        let returned = invoke_keyed(store, exports, event, state).await?;
                        take_keyed(returned, handler, (lane, row), results)?
                    }
                };
                done += u32::from(not_done.is_none());
            }
            row += 1;
        }
        results.end_lane(lane, done, not_done);
    }
    Ok(())
}

type NotDone = (Verdict, String);

/// Invokes a `handler` for one row.
async fn invoke(
    store: &mut Store<Host>,
    exports: &EventHandler,
    handler: &Handler,
    event: Event<'_>,
    row: u32,
    results: &mut Results,
) -> Result<Option<NotDone>, GuestFailure> {
    let guest = exports.keylane_handler_handler();
    match guest.call_handle(&mut *store, event).await {
        Ok(Ok(outputs)) => Ok(take_outputs(handler, row, &outputs, results)),
        Ok(Err(failure)) => Ok(Some(results::verdict_of_single(failure))),
        Err(error) => Err(trap::failure(&error, &store.data().limiter)),
    }
}

type KeyedResult = Result<keyed_handler::Effects, keyed_handler::Failure>;

/// Invokes a `keyed-handler` for one row.
async fn invoke_keyed(
    store: &mut Store<Host>,
    exports: &KeyedEventHandler,
    event: Event<'_>,
    state: Option<&[u8]>,
) -> Result<KeyedResult, GuestFailure> {
    let guest = exports.keylane_handler_keyed_handler();
    let returned = guest.call_handle(&mut *store, event, state).await;
    returned.map_err(|error| trap::failure(&error, &store.data().limiter))
}

/// Takes the result of one invocation of a `keyed-handler`. A state that is too large fails the call at this row, before
/// anything of the row is taken.
fn take_keyed(
    returned: KeyedResult,
    handler: &Handler,
    (lane, row): (u32, u32),
    results: &mut Results,
) -> Result<Option<NotDone>, GuestFailure> {
    let effects = match returned {
        Ok(effects) => effects,
        Err(failure) => return Ok(Some(results::verdict_of_single(failure))),
    };
    if let (StateChange::Put(state), Some(limits)) = (&effects.state, handler.state_limits()) {
        limits.check(lane, state.len()).map_err(|message| GuestFailure::new(Fault::Limit, message))?;
    }
    let not_done = take_outputs(handler, row, &effects.outputs, results);
    if not_done.is_none() {
        match &effects.state {
            StateChange::Keep => {}
            StateChange::Put(state) => results.push_state(Some(state)),
            StateChange::Delete => results.push_state(None),
        }
    }
    Ok(not_done)
}

fn take_outputs(handler: &Handler, row: u32, outputs: &[Output], results: &mut Results) -> Option<NotDone> {
    let taken = results.push_row(row, handler.outputs(), outputs);
    taken.err().map(|reason| (Verdict::Unpublishable, reason))
}

/// The states of a batch, lane by lane.
struct States<'a> {
    lengths: &'a [i32],
    data: &'a [u8],
}

impl<'a> States<'a> {
    fn new(batch: &'a Batch) -> States<'a> {
        match &batch.columns().states {
            Some(states) => States { lengths: &states.lengths, data: &states.data },
            None => States { lengths: &[], data: &[] },
        }
    }

    /// Returns the state of the next lane; `None` if it has no state, or the handler has none.
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.lengths.split_first()?;
        self.lengths = rest;
        batch::next(*length, &mut self.data)
    }
}

/// Returns all headers of a call, as records that borrow from its columns: one allocation, or none without headers.
fn header_records(batch: &Batch) -> Vec<HeaderParam<'_>> {
    let Some(headers) = &batch.columns().headers else { return Vec::new() };
    let (mut names, mut values) = (headers.names.data.as_slice(), headers.values.data.as_slice());
    headers
        .names
        .lengths
        .iter()
        .zip(&headers.values.lengths)
        .map(|(name, value)| {
            let name = batch::next(*name, &mut names).unwrap_or_default();
            HeaderParam {
                name: std::str::from_utf8(name).expect("invalid UTF-8 is replaced when a name is pushed"),
                value: batch::next(*value, &mut values),
            }
        })
        .collect()
}

/// The rows of a batch as events, in order.
struct Events<'a> {
    batch: &'a Batch,
    row: usize,
    keys: &'a [u8],
    values: &'a [u8],
    headers: &'a [HeaderParam<'a>],
}

impl<'a> Events<'a> {
    fn new(batch: &'a Batch, headers: &'a [HeaderParam<'a>]) -> Events<'a> {
        let columns = batch.columns();
        Events { batch, row: 0, keys: &columns.keys.data, values: &columns.values.data, headers }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let (columns, row) = (self.batch.columns(), self.row);
        let (partition, offset) = self.batch.position(row)?;
        let counts = columns.headers.as_ref().map(|headers| headers.counts.as_slice());
        let count = counts.and_then(|counts| counts.get(row)).copied().unwrap_or(0);
        let (headers, rest) = self.headers.split_at_checked(usize::try_from(count).ok()?)?;
        let event = Event {
            topic: &columns.topic,
            partition,
            offset,
            timestamp: *columns.timestamps.get(row)?,
            key: batch::next(*columns.keys.lengths.get(row)?, &mut self.keys),
            value: batch::next(*columns.values.lengths.get(row)?, &mut self.values),
            headers,
            attempt: columns.attempt,
            last_attempt: columns.last_attempt,
        };
        self.headers = rest;
        self.row += 1;
        Some(event)
    }
}
