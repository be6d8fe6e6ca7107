//! The code that wit-bindgen generates from `wit/handler.wit`. It is not part of the public API, but `handler!` needs
//! access to it from the handler's crate.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code: the canonical ABI uses pointers and casts"
)]

wit_bindgen::generate!({
    path: "../wit",
    world: "batch-event-handler",
    pub_export_macro: true,
    export_macro_name: "export_batch_handler",
    default_bindings_module: "keylane_sdk::bindings",
});

pub use exports::keylane::handler::batch_handler::{
    Batch, BytesColumn, Guest, HeaderColumns, LaneFailure, OutputColumns, Results, StateChanges,
};
pub use keylane::handler::types::{Failure, Retry};
