//! Write a Keylane handler in Rust: a function that processes one event.
//!
//! ```
//! use keylane_sdk::{Effects, Event, Result};
//!
//! fn handle(event: &Event<'_>, effects: &mut Effects) -> Result {
//!     effects.emit("greetings").key(event.key()).value(format!("Hello, {}!", event.text()?));
//!     Ok(())
//! }
//! keylane_sdk::handler!(handle);
//! ```
//!
//! The return value decides what happens to the event:
//!
//! | returned | consequence |
//! |---|---|
//! | `Ok(())` | the event is done; its outputs are published |
//! | [`retry("…")`](retry), [`retry_after`] | the event is retried later; its lane waits for it |
//! | [`reject("…")`](reject), `?` on a decoding error | the event never succeeds; by default it becomes a dead letter |
//! | a panic | the instance is discarded; the event that panics is charged an attempt |
//!
//! Outputs of an event that is not done are not published, even if they were emitted before the function failed.
//!
//! A handler is an ordinary library crate of type `cdylib`, built with
//! `cargo build --release --target wasm32-wasip2`. `cargo test` runs it natively, without WebAssembly
//! and without a broker: see [`testing`].
//!
//! A handler can keep a state for each key: see [`keyed_handler!`] and [`State`].
//!
//! With the feature `http` a handler may send HTTP requests: see `http`.
//!
//! # Map of this crate
//!
//! A batch arrives as columns. `columns` splits them into rows, [`Event`] is the view of one row, and
//! `batch` has the loop that calls the handler row by row and stops a lane at its first failure.
//! [`Effects`] collects the columns of the result, with a mark to roll back to, and `state` those of changed states.
//! `bindings` is generated from `wit/handler.wit`, interface `batch-handler`; [`handler!`] and [`keyed_handler!`]
//! connect it to the loop.

mod batch;
#[doc(hidden)]
pub mod bindings;
mod columns;
mod effects;
mod event;
mod export;
mod failure;
#[cfg(feature = "http")]
pub mod http;
mod state;
pub mod testing;

pub use effects::{Effects, OptionalBytes, Output};
pub use event::{Event, Header, Headers};
pub use failure::{Failure, OrFail, Result, reject, retry, retry_after};
pub use state::{Bytes, State};

#[doc(hidden)]
pub use batch::{run, run_keyed};
#[doc(hidden)]
pub use export::check_keyed_handler;

/// The code blocks of the README are compiled and run like those of this documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
