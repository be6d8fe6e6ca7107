//! Native tests of handlers: build an event, run the handler on it, check the verdict.
//!
//! ```
//! use keylane_sdk::testing::{self, Verdict};
//! use keylane_sdk::{Effects, Event, Result};
//!
//! fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
//!     let amount: u32 = event.json()?;
//!     effects.emit("doubled").key(event.key()).json(&(2 * amount))?;
//!     Ok(())
//! }
//!
//! let verdict = testing::event().key("a").value("21").run(handle);
//! let output = &verdict.outputs()[0];
//! assert_eq!((output.target.as_str(), output.text()), ("doubled", "42"));
//!
//! let verdict = testing::event().key("a").value("many").run(handle);
//! assert!(matches!(verdict, Verdict::Reject { reason } if reason.contains("JSON")));
//! ```
//!
//! [`TestEvent::run`] uses the same columns and the same loop as a component.
//!
//! For a handler with state, [`States`] has the states of all keys and passes them on from event to event:
//!
//! ```
//! use keylane_sdk::testing::{self, States};
//! use keylane_sdk::{Effects, Event, Result};
//!
//! fn count(_: &Event<'_>, state: &mut Option<u64>, _: &mut Effects) -> Result {
//!     *state.get_or_insert(0) += 1;
//!     Ok(())
//! }
//!
//! let mut states = States::new();
//! for key in ["a", "b", "a"] {
//!     testing::event().key(key).run_keyed(&mut states, count).outputs();
//! }
//! assert_eq!(states.get("a"), Some(2));
//! assert_eq!(states.get::<u64>("c"), None);
//! ```

mod states;

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::bindings::{Batch, BytesColumn, HeaderColumns, OutputColumns, Results};
use crate::columns::{ColumnReader, EMPTY, HeaderRows, push};
use crate::effects::OptionalBytes;
use crate::event::NO_TIMESTAMP;
use crate::{Effects, Event, Failure, Result, State};

pub use states::States;

/// Creates an event without key, value and headers, the first of its partition, in its first attempt.
pub fn event() -> TestEvent {
    TestEvent {
        topic: "test".to_owned(),
        partition: 0,
        offset: 0,
        timestamp: NO_TIMESTAMP,
        key: None,
        value: None,
        header_count: 0,
        header_names: EMPTY,
        header_values: EMPTY,
        attempt: 1,
        last_attempt: false,
    }
}

/// A builder of a test event.
#[derive(Clone, Debug)]
pub struct TestEvent {
    topic: String,
    partition: u32,
    offset: u64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    header_count: u32,
    header_names: BytesColumn,
    header_values: BytesColumn,
    attempt: u32,
    last_attempt: bool,
}

impl TestEvent {
    /// Sets the key; `None` for an event without a key.
    #[must_use]
    pub fn key(mut self, key: impl OptionalBytes) -> Self {
        self.key = key.optional_bytes().map(<[u8]>::to_vec);
        self
    }

    /// Sets the value; `None` for a tombstone.
    #[must_use]
    pub fn value(mut self, value: impl OptionalBytes) -> Self {
        self.value = value.optional_bytes().map(<[u8]>::to_vec);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl OptionalBytes) -> Self {
        self.header_count += 1;
        push(&mut self.header_names, Some(name.as_bytes()));
        push(&mut self.header_values, value.optional_bytes());
        self
    }

    /// Sets the topic.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> Self {
        topic.clone_into(&mut self.topic);
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = partition;
        self
    }

    /// Sets the offset.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// Sets the number of the attempt, from 1.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Makes this the last attempt.
    #[must_use]
    pub fn last_attempt(mut self) -> Self {
        self.last_attempt = true;
        self
    }

    /// Runs the handler on this event.
    pub fn run(self, handle: impl FnMut(&Event<'_>, &mut Effects) -> Result) -> Verdict {
        Verdict::of(crate::run(&self.into_batch(), handle))
    }

    /// Runs a handler with state on this event. The state is that of the event's key; if the event is done, it is
    /// replaced by the new one.
    pub fn run_keyed<T: State>(
        self,
        states: &mut States,
        handle: impl FnMut(&Event<'_>, &mut Option<T>, &mut Effects) -> Result,
    ) -> Verdict {
        let key = self.key.clone();
        let mut batch = self.into_batch();
        let mut column = EMPTY;
        push(&mut column, states.bytes(&key));
        batch.states = Some(column);
        let mut results = crate::run_keyed(&batch, handle);
        if let Some(changes) = results.states.take() {
            let state = ColumnReader::new(&changes.values).read();
            states.set_bytes(&key, state);
        }
        Verdict::of(results)
    }

    fn into_batch(self) -> Batch {
        let (mut keys, mut values) = (EMPTY, EMPTY);
        push(&mut keys, self.key.as_deref());
        push(&mut values, self.value.as_deref());
        Batch {
            topic: self.topic,
            attempt: self.attempt,
            last_attempt: self.last_attempt,
            lanes: vec![1],
            partitions: vec![self.partition],
            offsets: vec![self.offset],
            timestamps: vec![self.timestamp],
            keys,
            values,
            headers: (self.header_count > 0).then_some(HeaderColumns {
                counts: vec![self.header_count],
                names: self.header_names,
                values: self.header_values,
            }),
            states: None,
        }
    }
}

/// Answers the requests of handlers on this thread, until the returned value is dropped.
///
/// ```
/// use keylane_sdk::{http, testing};
///
/// let _service = testing::http(|request| match request.url() {
///     "http://prices/tea" => http::Response::new(200, "3.50"),
///     _ => http::Response::new(404, ""),
/// });
/// assert_eq!(http::get("http://prices/tea").map(|response| response.body), Ok(b"3.50".to_vec()));
/// ```
#[cfg(all(feature = "http", not(target_family = "wasm")))]
#[must_use = "the service ends when this is dropped"]
pub fn http(answer: impl FnMut(&crate::http::Request) -> crate::http::Response + 'static) -> HttpService {
    HttpService { before: crate::http::native::replace(Some(Box::new(answer))) }
}

/// A simulated service, removed when dropped.
#[cfg(all(feature = "http", not(target_family = "wasm")))]
pub struct HttpService {
    before: Option<crate::http::native::Service>,
}

#[cfg(all(feature = "http", not(target_family = "wasm")))]
impl Drop for HttpService {
    fn drop(&mut self) {
        crate::http::native::replace(self.before.take());
    }
}

#[cfg(all(feature = "http", not(target_family = "wasm")))]
impl std::fmt::Debug for HttpService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpService").finish_non_exhaustive()
    }
}

/// The handler's verdict on an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The event is done; these outputs are published, in this order.
    Done(Vec<Emitted>),
    /// The event is to be retried.
    Retry {
        /// The reason.
        reason: String,
        /// How long to wait, if the handler specified it.
        after: Option<Duration>,
    },
    /// The event can never succeed.
    Reject {
        /// The reason.
        reason: String,
    },
}

impl Verdict {
    /// Returns the verdict in the results of one event.
    fn of(results: Results) -> Self {
        match results.failures.into_iter().next() {
            None => Self::Done(results.outputs.as_ref().map(read_outputs).unwrap_or_default()),
            Some(failed) => match failed.failure.into() {
                Failure::Retry { reason, after } => Self::Retry { reason, after },
                Failure::Reject { reason } => Self::Reject { reason },
            },
        }
    }

    /// Returns the outputs of an event that is done.
    ///
    /// # Panics
    /// If the event is not done, with the reason.
    #[expect(clippy::panic, reason = "a failing test must report the reason")]
    pub fn outputs(&self) -> &[Emitted] {
        match self {
            Self::Done(outputs) => outputs,
            Self::Retry { reason, .. } => panic!("the event is not done: retry: {reason}"),
            Self::Reject { reason } => panic!("the event is not done: reject: {reason}"),
        }
    }
}

/// One output of an event that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The target.
    pub target: String,
    /// The key, if the output has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Emitted {
    /// Returns the value as text.
    ///
    /// # Panics
    /// If there is no value or it is not UTF-8.
    pub fn text(&self) -> &str {
        let value = self.value.as_deref().expect("the output should have a value");
        str::from_utf8(value).expect("the output's value should be UTF-8")
    }

    /// Returns the value, decoded from JSON.
    ///
    /// # Panics
    /// If there is no value or it does not decode to `T`.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        let value = self.value.as_deref().expect("the output should have a value");
        serde_json::from_slice(value).expect("the output's value should be the expected JSON")
    }
}

fn read_outputs(columns: &OutputColumns) -> Vec<Emitted> {
    let mut keys = ColumnReader::new(&columns.keys);
    let mut values = ColumnReader::new(&columns.values);
    let mut headers = HeaderRows::new(columns.headers.as_ref());
    let output = |&target: &u32| Emitted {
        target: usize::try_from(target)
            .ok()
            .and_then(|index| columns.target_names.get(index))
            .expect("every output has one of the target names")
            .clone(),
        key: keys.read().map(<[u8]>::to_vec),
        value: values.read().map(<[u8]>::to_vec),
        headers: (headers.read())
            .map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    };
    columns.targets.iter().map(output).collect()
}
