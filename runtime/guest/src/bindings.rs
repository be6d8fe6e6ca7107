//! The code that `bindgen!` generates from `wit/handler.wit`: one module for each interface.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    unused_variables,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]

/// The per-event interface. Events are borrowed: the host makes no copy besides the one in the memory of the guest.
pub mod single {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "event-handler",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// The per-event interface with the state of the lane. It shares the types of events and outputs with [`single`].
pub mod keyed {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "keyed-event-handler",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "keylane:handler/types@0.1.0": super::single::keylane::handler::types },
    });
}

/// The interface in columns. Its types own their columns, and a call takes them by reference. So the staging area is
/// the argument itself, and keeps its buffers.
pub mod batch {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "batch-event-handler",
        exports: { default: async },
    });
}
