//! Admission of records: the filter, the lane key, and the arena that keeps records until they have their outcome.
//! Admission does no I/O.

pub mod arena;
pub mod event_field;
pub mod filter;
pub mod key_identity;
pub mod lane_key;
pub mod lane_name;
pub mod order_value;
pub mod typed_key;

mod json_scalar;

pub use arena::{Arena, ArenaRecord, Header};
pub use event_field::FieldReader;
pub use filter::{Filter, FilterCount};
pub use key_identity::{EnteredKey, KeyIdentities, KeyIndex};
pub use lane_key::LaneRule;
pub use lane_name::{lane_key_text, lane_name};
pub use order_value::{OrderValueRule, typed_order_value};
pub use typed_key::{typed_field, typed_key, typed_parts};
