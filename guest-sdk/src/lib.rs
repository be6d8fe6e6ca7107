//! Write a Keylane handler in Rust: a function that sees one event.
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
//! How an event ends is what the function returns:
//!
//! | returned | what happens |
//! |---|---|
//! | `Ok(())` | the event is done and its outputs are published |
//! | [`retry("…")`](retry), [`retry_after`] | it is tried again later; its lane waits for it |
//! | [`reject("…")`](reject), `?` on a decoding error | it can never succeed and becomes a dead letter |
//! | a panic | the instance is thrown away; counts as one attempt |
//!
//! Nothing is published for an event that is not done, even if the function emitted before it failed.
//!
//! A handler is an ordinary library crate of type `cdylib`, built with
//! `cargo build --release --target wasm32-wasip2`. `cargo test` runs it natively, without WebAssembly
//! and without a broker: see [`testing`].
//!
//! With the feature `http` a handler may ask other services: see `http`.
//!
//! # Map of this crate
//!
//! A batch arrives as columns. `columns` cuts them into rows, [`Event`] is the view of one row, and
//! `batch` has the loop that calls the handler row by row and stops a lane at its first failure.
//! [`Effects`] is the columns of the result while they grow, with a mark to roll back to. `bindings` is
//! generated from `wit/handler.wit`, interface `batch-handler`; [`handler!`] joins it to the loop.

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
pub mod testing;

pub use effects::{Effects, OptionalBytes, Output};
pub use event::{Event, Header, Headers};
pub use failure::{Failure, OrFail, Result, reject, retry, retry_after};

#[doc(hidden)]
pub use batch::run;

/// The blocks of the README are compiled and run like those of this documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
