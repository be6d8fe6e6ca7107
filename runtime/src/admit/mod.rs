//! Pure looks at a record's bytes: what the core must know of it, and where its bytes stay until it is dispatched.

pub mod arena;
pub mod lane_key;

pub use arena::{Arena, StoredRecord};
pub use lane_key::LaneRule;
