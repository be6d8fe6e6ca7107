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
//! main ─ cli  →  app  →  source | admit | guest | sink  →  config | telemetry | librdkafka  →  keylane-core
//! ```

pub mod admit;
pub mod app;
pub mod cli;
pub mod config;
pub mod guest;
pub mod librdkafka;
pub mod sink;
pub mod source;
pub mod telemetry;
