//! Keylane runs event handlers as sandboxed WebAssembly components next to Kafka.
//!
//! The modules follow the life of an event: `source` reads it, `admit` looks at its bytes, the core
//! (`keylane-core`) queues it on the lane of its key, `guest` calls the handler, `sink` publishes what the
//! handler emitted, and `source` commits what is settled. `app` builds all of it from a checked
//! configuration and runs the loop that carries out the core's actions.
//!
//! Each layer uses only what is below it; siblings never import each other:
//!
//! ```text
//! main ─ cli  →  app  →  source | admit | sink | guest  →  config | librdkafka  →  telemetry  →  keylane-core
//! ```
//!
//! Four layers are crates of their own, beside this folder: `keylane-core`, `keylane-guest`, `keylane-librdkafka` and
//! `keylane-telemetry`.

#![forbid(unsafe_code)]

pub mod admit;
pub mod app;
pub mod cli;
pub mod config;
pub mod sink;
pub mod source;

pub use keylane_guest as guest;
pub use keylane_librdkafka as librdkafka;
pub use keylane_telemetry as telemetry;
