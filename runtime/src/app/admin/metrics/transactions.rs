//! Metrics of transactional delivery. Handlers with at-least-once delivery have none.

use std::fmt;

use crate::app::event_loop::TransactionView;
use crate::status::HandlerStatus;

use super::families::{Families, labels};
use super::{Metrics, owned};

const MICROS: f64 = 1e6;

impl Metrics {
    pub(super) fn write_transactions(&self, families: &mut Families<'_>) -> fmt::Result {
        let results = self.transactional().flat_map(|(handler, view)| {
            let results = [("committed", view.totals.committed), ("aborted", view.totals.aborted)];
            results.map(|(result, count)| {
                (vec![("handler", handler.handler.as_str()), ("result", result)], count)
            })
        });
        families.counter(
            ("keylane_transactions", "Transactions by result. The content of an aborted one is repeated."),
            results,
        )?;
        let records = self.transactional().map(|(handler, view)| (labels(handler), view.totals.records));
        families.counter(
            ("keylane_transaction_records", "Outputs and dead letters of committed transactions."),
            records,
        )?;
        let kept = self.transactional().map(|(handler, view)| (labels(handler), view.kept_bytes));
        families.size(
            (
                "keylane_kept_effect_bytes",
                "Outputs and dead letters that no committed transaction contains yet.",
            ),
            kept,
        )?;
        let withheld = self.transactional().map(|(handler, _)| {
            (labels(handler), owned(handler).iter().map(|partition| partition.withheld).sum())
        });
        families.size(
            (
                "keylane_withheld_events",
                "Settled events that no transaction can commit now: their completed set would be too long, or their partition is left out.",
            ),
            withheld,
        )?;
        let left_out = self.transactional().map(|(handler, _)| {
            let left_out = owned(handler).iter().filter(|partition| partition.left_out.is_some());
            (labels(handler), left_out.count() as u64)
        });
        families.size(
            (
                "keylane_partitions_left_out",
                "Partitions that transactions leave out: a topic rejects their outputs, dead letters or states.",
            ),
            left_out,
        )?;
        let available =
            self.transactional().map(|(handler, view)| (labels(handler), view.unavailable.is_none().into()));
        families.gauge(
            ("keylane_transactions_available", "0 while the brokers can't keep transactions."),
            available,
        )?;
        let times = self.transactional().map(|(handler, view)| (labels(handler), view.times));
        families.histogram(
            ("keylane_transaction_seconds", "From the snapshot of a transaction to its commit."),
            MICROS,
            times,
        )
    }

    fn transactional(&self) -> impl Iterator<Item = (&HandlerStatus, &TransactionView)> {
        self.with_view().filter_map(|(handler, view)| Some((handler, view.transactions.as_ref()?)))
    }
}
