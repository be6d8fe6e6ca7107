//! Keylane runs event handlers on Kafka topics, as sandboxed WebAssembly components.
//!
//! The modules follow the life of an event: `source` reads it, `admit` filters it and finds its lane key, the core
//! (`keylane-core`) queues it on the lane of its key, `guest` calls the handler, `sink` publishes the emitted
//! outputs, and `source` commits the settled offsets. `changelog` restores keyed state. `app` builds all of it from a checked configuration and
//! runs the event loop, which carries out the core's actions.
//!
//! Each layer uses only the layers below it; siblings never import each other:
//!
//! ```text
//! main ─ cli  →  app  →  source | admit | changelog | sink | guest  →  config | librdkafka  →  logging | status | keylane-admin | keylane-core
//! ```
//!
//! Six of these modules are crates of their own, beside this folder: `keylane-admin`, `keylane-core`, `keylane-guest`,
//! `keylane-librdkafka`, `keylane-log` and `keylane-state`.

#![forbid(unsafe_code)]
#![allow(
    unreachable_pub,
    reason = "`pub` marks the interface of a layer; the crate exports only `cli`, to detect dead code"
)]

mod admit;
mod app;
mod changelog;
pub mod cli;
mod config;
mod sink;
mod source;
mod status;

use keylane_guest as guest;
use keylane_librdkafka as librdkafka;
use keylane_log as logging;
