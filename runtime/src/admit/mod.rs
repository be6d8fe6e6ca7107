//! Pure looks at a record's bytes: whether the handler wants it, which lane it belongs to, and where its bytes stay until
//! it has reached its ending.

pub mod arena;
pub mod filter;
pub mod lane_key;

mod json_scalar;

pub use arena::{Arena, Header, StoredRecord};
pub use filter::Filter;
pub use lane_key::LaneRule;
