//! From a checked configuration to loops that are ready to run. No group is joined here: a member that is not polled holds its
//! group up.
//!
//! [`Parts`] builds what all handlers share and prepares each loop, in the order in which things can fail cheaply:
//! components, then [`inputs`], then outputs. While no broker answers, [`broker_wait`] logs why, with what [`addresses`] finds.

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
