//! What `bindgen!` makes of `wit/handler.wit`: one module for each of the interfaces that this version calls.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    unused_variables,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]

/// The per-event interface. An event is lent: nothing of it is copied on our side of the boundary.
pub mod single {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "event-handler",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// The interface in columns. Its types own their columns and a call takes them by reference, so that the
/// staging area is the argument itself and keeps its buffers.
pub mod batch {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "batch-event-handler",
        exports: { default: async },
    });
}
