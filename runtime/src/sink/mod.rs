//! Where results go: one producer per process, shared by all handlers.
//!
//! Records of one topic and key keep the order of the [`Sink::produce`] calls; whoever needs an order across
//! calls makes them one after the other. What became of each record is told to the handler that sent it, on the
//! sink's delivery thread, by its [`Route`]. Nothing here waits for a broker except [`Sink::start`] and
//! [`Sink::flush`].
//!
//! What the topics take is asked at the start ([`topics`]): batches stay below it, and [`Sink::check`] knows before a
//! record is handed over whether it can be stored ([`limits`]).
//!
//! *Invariant:* a record that was taken is told of exactly once: it landed, or the brokers refuse this very record.
//! Whatever else goes wrong, it is sent again ([`resend`]), and its topic takes nothing new before that.

mod delivery;
mod in_flight;
mod limits;
mod outcome;
mod producer;
mod record;
mod resend;
mod start;
mod topics;

pub use in_flight::Token;
pub use limits::{RecordSize, TimeFit, Unpublishable};
pub use outcome::{Delivery, DeliveryError, RecordMetadata};
pub use producer::{OnRefusal, OutputRecord, ProduceError, Route, Sink, SinkHealth};
pub use record::OwnedRecord;
pub use start::{Error, SinkSpec};

#[cfg(test)]
mod tests;
