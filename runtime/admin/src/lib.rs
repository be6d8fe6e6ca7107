//! The admin server: health, metrics, status and the operator's page over HTTP, on a thread of its own.
//!
//! A connection is accepted or closed ([`connections`]). Each request passes the checks of [`access`] (host, size,
//! token) before it reaches its route ([`routes`]). Every response has the same security headers ([`responses`]). The
//! server is independent of handlers: its data comes from a [`Backend`].
//!
//! *Invariants.* At most 32 connections are open, and each ends after 10 s without a request. The last eight serve only
//! health and metrics. Without a token, only health, metrics and the page are served on addresses other than loopback;
//! they contain no keys and no payloads. At most eight streams are open.

#![forbid(unsafe_code)]

mod access;
mod address;
mod backend;
mod connections;
mod event_stream;
mod page;
mod responses;
mod routes;
mod server;

pub use access::{AccessRules, TOKEN_MIN};
pub use address::{DEFAULT_PORTS, Listen, StartError};
pub use backend::{Backend, LaneOrder, LanesError, LanesRequest, MetricsFormat, Notice, ResponseFuture};
pub use server::Server;

#[cfg(test)]
mod tests;
