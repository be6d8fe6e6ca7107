//! The admin server: health, metrics and status over HTTP, on a thread of its own.
//!
//! A connection is accepted or closed ([`connections`]). Each request passes the checks of [`access`] (host, size, token)
//! before it reaches its route ([`routes`]). Every answer has the same security headers ([`responses`]). The server is
//! independent of handlers: its data comes from a [`Backend`].
//!
//! *Invariants.* At most 32 connections are open, and each ends after 10 s without a request. The last eight serve only
//! health and metrics. Without a token, only health and metrics are served on addresses other than loopback; they contain
//! no keys and no payloads.

#![forbid(unsafe_code)]

mod access;
mod address;
mod backend;
mod connections;
mod responses;
mod routes;
mod server;

pub use access::{AccessRules, TOKEN_MIN};
pub use address::{DEFAULT_PORTS, Listen, StartError};
pub use backend::{Answer, Backend, MetricsFormat};
pub use server::Server;

#[cfg(test)]
mod tests;
