//! Runs handlers: WebAssembly components, called in batches on a few worker threads.
//!
//! In the order of the flow: [`engine`] owns every setting of the WebAssembly engine and the [`clock`] for
//! deadlines. [`load`] turns a file into a checked component ([`inspect`] analyses it, [`compiler`] compiles it in
//! a child process, [`cache`] stores compiled code), and [`handler`] links it and creates instances. The event loop
//! fills a [`batch`], puts it into a [`call`] and submits it to the [`workers`]. They take an instance from the
//! pool, run the call as a fiber under its deadline, check its result ([`results`]) and return the call through
//! [`CallObserver`]. [`counters`] shows what the instances of a handler use.
//!
//! *Invariant:* this crate does not use Kafka or the configuration, and of the core only the types of a call and its
//! result. A guest's failure is a value ([`CallStatus::Failed`]), never an error of ours. A guest imports nothing that
//! it was not granted ([`grants`]): standard WASI is linked over a context without files and network, [`http`] is
//! linked where it is granted, and every other import is refused when the component is loaded.
//!
//! *Invariant:* an instance that trapped, exceeded its deadline, was cancelled or broke the contract is
//! dropped and never called again.

pub mod batch;
pub mod cache;
pub mod call;
pub mod clock;
pub mod compiler;
pub mod counters;
pub mod engine;
pub mod grants;
pub mod handler;
pub mod http;
pub mod inspect;
pub mod load;
pub mod results;
pub mod workers;

mod bindings;
mod guest_log;
mod host;
mod pool;
mod rows;
#[cfg(test)]
mod testing;
mod trap;

pub use batch::Batch;
pub use cache::Cache;
pub use call::{Call, CallEvent, CallKey, CallObserver, CallStatus, GuestFailure};
pub use clock::TickClock;
pub use compiler::Compiler;
pub use counters::{GuestCounters, GuestUsage};
pub use engine::{Engine, EngineError, EngineOptions};
pub use grants::{AllowedImports, Grants};
pub use handler::{Handler, HandlerOptions};
pub use http::{AllowedHost, GrantUsage, HTTP_CLASSES, HttpClient, HttpGrant, HttpUsage};
pub use inspect::{HandlerInterface, Import, ImportKind, Inspection};
pub use load::{Component, LoadError};
pub use results::{GuestOutput, OUTPUT_BYTES, Results, StateChange, StateLimits, StoppedLane, UnknownState};
pub use workers::Workers;
