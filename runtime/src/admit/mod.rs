//! Admission of records: the filter, the lane key, and the arena that keeps records until they have their outcome.
//! Admission does no I/O.

pub mod arena;
pub mod filter;
pub mod lane_identity;
pub mod lane_key;
pub mod lane_name;
pub mod order_value;
pub mod typed_key;

mod json_scalar;

pub use arena::{Arena, ArenaRecord, Header};
pub use filter::{Filter, FilterCount};
pub use lane_identity::LaneIdentities;
pub use lane_key::LaneRule;
pub use lane_name::{lane_key_text, lane_name};
pub use order_value::OrderValueRule;
pub use typed_key::{typed_key, typed_parts};
