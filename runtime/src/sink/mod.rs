//! The producer side: one producer per process, shared by all handlers.
//!
//! Records of one topic and key keep the order of the [`Sink::produce`] calls, except records that failed and were sent
//! again ([`Delivery::resent`]). A caller that needs a certain order makes these calls one after the other. The
//! delivery report of each record goes to the handler that sent it, on the delivery thread, through its [`Route`].
//! Nothing here waits for a broker except [`Sink::start`] and [`Sink::flush`].
//!
//! The limits of the topics are requested at the start ([`topics`]). Batches stay below them, and [`Sink::check`]
//! determines before a record is produced whether it can be stored ([`topic_limits`]).
//!
//! *Invariant:* an accepted record that is not discarded is reported exactly once: stored, or rejected. After an error
//! that does not reject the record itself ([`errors`]), it is sent again ([`resend`]), and its topic accepts no new
//! record before that.

mod delivery;
mod delivery_thread;
mod errors;
mod producer;
mod record;
mod resend;
mod spec;
mod topic_limits;
mod topics;
mod transactions;
mod unreported;

pub use delivery::{Delivery, RecordMetadata};
pub use errors::DeliveryError;
pub use producer::{ProduceError, ProducerTotals, Route, Sink, SinkRecord};
pub use record::{OwnedRecord, SinkTopic};
pub use spec::{Error, SinkSpec};
pub use topic_limits::{RecordSize, TimeFit, Unpublishable};
pub use transactions::{
    RecordBatch, RefusedRecord, StoredOffset, Transaction, TransactionEvent, TransactionOffset,
    TransactionSpec, TransactionalProducer, Written, packed_bytes,
};
pub use unreported::RecordId;

#[cfg(test)]
mod tests;
