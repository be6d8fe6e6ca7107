//! Builds event loops that are ready to run from a checked configuration. No group is joined here: a member that is not
//! polled blocks its group.
//!
//! [`Parts`] builds the parts that all handlers share and prepares each loop ([`assemble`]). Cheap failures come first:
//! components, then [`input_topics`], then outputs. [`options`] has the settings of the clients and of the engine.
//! While no broker answers, [`broker_wait`] logs the reason, with the findings of [`addresses`].

pub(super) mod addresses;
mod assemble;
mod broker_wait;
mod embedded;
mod errors;
mod input_topics;
mod keyed;
mod options;
mod preflight;

pub(super) use assemble::Parts;
pub(super) use broker_wait::BrokerWait;
pub use errors::is_permanent;
pub(super) use errors::is_stopped;
pub(super) use keyed::keys_of;
pub(super) use options::{Access, client_properties, credentials, source_spec};
pub use preflight::preflight_problems;
