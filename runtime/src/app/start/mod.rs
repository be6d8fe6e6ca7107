//! Builds event loops that are ready to run from a checked configuration. No group is joined here: a member that is not
//! polled blocks its group.
//!
//! [`Parts`] builds the parts that all handlers share and prepares each loop. Cheap failures come first: components,
//! then [`inputs`], then outputs. While no broker answers, [`broker_wait`] logs the reason, with the findings of
//! [`addresses`].

mod addresses;
mod broker_wait;
mod errors;
mod inputs;
mod parts;
mod preflight;
mod specs;

pub(super) use broker_wait::BrokerWait;
pub use errors::is_final;
pub(super) use errors::is_stopped;
pub(super) use parts::Parts;
pub use preflight::refusals;
pub(super) use specs::{Access, client};
