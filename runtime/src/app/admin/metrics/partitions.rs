//! Metrics of partitions.

use std::fmt;
use std::time::Duration;

use crate::status::{HandlerStatus, PartitionStatus};

use super::families::{Families, Label, count};
use super::{Metrics, owned};

impl Metrics {
    pub(super) fn write_partitions(&self, families: &mut Families<'_>) -> fmt::Result {
        type Of = fn(&PartitionStatus) -> Option<i64>;
        let partitions: Vec<OwnedPartition<'_>> = self
            .status
            .handlers
            .iter()
            .flat_map(|handler| owned(handler).iter().map(move |partition| (handler, partition)))
            .map(|(handler, status)| OwnedPartition { handler, status, number: status.partition.to_string() })
            .collect();
        let gauges: [(&str, &str, Of); 6] = [
            ("keylane_committed_offset", "The offset that the coordinator has stored.", |p| p.committed),
            ("keylane_committable_offset", "The first offset that is not settled.", |p| p.committable),
            ("keylane_log_end_offset", "One past the last offset of the log, as of the last fetch.", |p| {
                p.log_end
            }),
            ("keylane_queued_events", "Events that were read and are not settled.", |p| {
                Some(count(p.queued))
            }),
            ("keylane_queued_bytes", "Bytes of events that were read and are not settled.", |p| {
                Some(count(p.queued_bytes))
            }),
            (
                "keylane_commit_unclaimed_offsets",
                "Offsets beyond the committed one, settled or missing, that the last commit could not claim.",
                |p| Some(count(p.unclaimed)),
            ),
        ];
        for (name, help, of) in gauges {
            let samples =
                partitions.iter().filter_map(|partition| Some((partition.labels(), of(partition.status)?)));
            families.gauge((name, help), samples)?;
        }
        write_ages(families, &partitions)?;
        write_lags(families, &partitions)
    }
}

/// A partition, with its number as a label.
struct OwnedPartition<'s> {
    handler: &'s HandlerStatus,
    status: &'s PartitionStatus,
    number: String,
}

impl OwnedPartition<'_> {
    fn labels(&self) -> Vec<Label<'_>> {
        vec![
            ("handler", self.handler.handler.as_str()),
            ("topic", self.status.topic.as_str()),
            ("partition", self.number.as_str()),
        ]
    }
}

fn write_ages(families: &mut Families<'_>, partitions: &[OwnedPartition<'_>]) -> fmt::Result {
    type Of = fn(&PartitionStatus) -> Option<u64>;
    let ages: [(&str, &str, Of); 2] = [
        (
            "keylane_oldest_unsettled_seconds",
            "The age of the first unsettled event by the time of its record; 0: no event is queued.",
            |p| p.oldest_record_age_ms,
        ),
        (
            "keylane_oldest_queued_seconds",
            "How long ago the first unsettled event was read; 0: no event is queued.",
            |p| p.oldest_queued_ms,
        ),
    ];
    for (name, help, of) in ages {
        let samples = partitions
            .iter()
            .map(|partition| (partition.labels(), seconds(of(partition.status).unwrap_or(0))));
        families.fraction((name, help), samples)?;
    }
    Ok(())
}

fn write_lags(families: &mut Families<'_>, partitions: &[OwnedPartition<'_>]) -> fmt::Result {
    let lags = partitions.iter().flat_map(|partition| {
        let PartitionStatus { lag_committed, lag_unsettled, .. } = partition.status;
        let kinds = [("committed", *lag_committed), ("unsettled", *lag_unsettled)];
        kinds.into_iter().filter_map(move |(kind, lag)| {
            let mut labels = partition.labels();
            labels.push(("kind", kind));
            Some((labels, count(lag?)))
        })
    });
    families.gauge(
        ("keylane_lag_offsets", "Offsets up to the end of the log that are not committed, or not settled."),
        lags,
    )
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}
