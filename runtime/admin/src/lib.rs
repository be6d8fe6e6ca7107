//! The admin server: health, metrics and status over HTTP, on a thread of its own.
//!
//! A connection is accepted or turned away ([`connections`]). Each request passes the checks of [`access`] (host, origin,
//! size, token) before it reaches its route ([`routes`]). Every answer has the same security headers ([`responses`]).
//! The server knows nothing of handlers: what it serves comes from a [`Backend`].
//!
//! *Invariants.* Health and metrics are answered even if every other connection is in use. An answer never waits for a
//! handler longer than the backend allows. Nothing is served away from loopback without a token, except health, metrics
//! and the page, which hold no keys and no payloads.

#![forbid(unsafe_code)]

mod access;
mod address;
mod backend;
mod connections;
mod responses;
mod routes;
mod server;

pub use access::{Access, TOKEN_MIN};
pub use address::{AddressError, DEFAULT_PORTS, Listen};
pub use backend::{Answer, Backend, MetricsFormat};
pub use server::Server;

#[cfg(test)]
mod tests;
