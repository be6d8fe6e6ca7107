//! The thread that receives delivery reports: it notifies the handlers, resends failed records, and replaces a failed
//! producer.
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::delivery::{Delivery, RecordMetadata};
use super::errors::{BatchError, DeliveryError, classify};
use super::producer::{OnAuthenticationFailure, Route, Shared};
use super::record::{OwnedRecord, SinkTopic};
use super::resend::{FailedRecord, ResendDecision, ResendQueue};
use super::unreported::FinishedRecord;
use crate::librdkafka::{ClientError, ClientEvent, DeliveryReport, ErrorCode, EventKind, Producer, Queue};
use crate::logging::{ClockedLineThrottle, LinePermit};

/// Longest wait for an event.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Log lines per second and cause.
const LINES_MAX: u32 = 2;

/// The state of the delivery thread: the reports by handler, and the records to send again.
pub(super) struct DeliveryThread {
    shared: Arc<Shared>,
    reports: Queue,
    /// A replaced producer, until it has returned every record.
    old: Option<(Producer, Queue)>,
    routes: Vec<Route>,
    on_authentication_failure: OnAuthenticationFailure,
    /// Deliveries that are not passed to their handlers yet, by handler.
    by_handler: Vec<Vec<Delivery>>,
    /// The records to send again, by topic.
    resend_queues: Vec<ResendQueue>,
    /// Whether the producer failed and must be replaced.
    broken: bool,
    /// The limit on log lines about rejected batches.
    lines: ClockedLineThrottle,
    /// The limit on log lines about errors of the client.
    error_lines: ClockedLineThrottle,
}

impl DeliveryThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        reports: Queue,
        routes: Vec<Route>,
        on_authentication_failure: OnAuthenticationFailure,
    ) -> DeliveryThread {
        let by_handler = routes.iter().map(|_| Vec::new()).collect();
        let resend_queues = shared.names.iter().map(|_| ResendQueue::default()).collect();
        DeliveryThread {
            shared,
            reports,
            old: None,
            routes,
            on_authentication_failure,
            by_handler,
            resend_queues,
            broken: false,
            lines: ClockedLineThrottle::new(LINES_MAX),
            error_lines: ClockedLineThrottle::new(LINES_MAX),
        }
    }

    pub(super) fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.broken && self.old.is_none() {
                self.replace_producer();
            }
            self.drain_old_producer();
            if let Some(event) = self.reports.poll(POLL_INTERVAL) {
                self.handle_event(event);
            }
            for topic in SinkTopic::all(self.resend_queues.len()) {
                self.resend(topic);
            }
        }
    }

    fn handle_event(&mut self, mut event: ClientEvent) {
        match event.kind() {
            EventKind::Delivery => self.handle_reports(&mut event),
            EventKind::Error => self.handle_client_error(&event),
            EventKind::Statistics => {
                if let Some(statistics) = &self.shared.statistics {
                    statistics.put(event);
                }
            }
            EventKind::Rebalance | EventKind::Commit | EventKind::Record | EventKind::Other(_) => {}
        }
    }

    fn handle_reports(&mut self, event: &mut ClientEvent) {
        while let Some(report) = event.next_report() {
            match report.error.into_result() {
                Ok(()) => self.on_stored(&report),
                Err(code) => self.on_failed(&report, code),
            }
        }
        self.notify_handlers();
    }

    /// Passes the collected deliveries to their handlers.
    fn notify_handlers(&mut self) {
        for (route, collected) in self.routes.iter_mut().zip(&mut self.by_handler) {
            if !collected.is_empty() {
                route(collected);
                collected.clear();
            }
        }
    }

    fn on_stored(&mut self, report: &DeliveryReport<'_>) {
        let topic = self.shared.unreported.topic(report.id);
        if let Some(queue) = self.resend_queues.get_mut(topic.index())
            && queue.is_in_flight_alone(report.id)
        {
            queue.finished();
        }
        self.shared.log_unblocked(topic);
        let stored = RecordMetadata { topic, partition: report.partition, offset: report.offset };
        self.report_delivery(report.id, Ok(stored));
    }

    /// Handles a record that the brokers, or the client, did not store.
    fn on_failed(&mut self, report: &DeliveryReport<'_>, code: ErrorCode) {
        let error = classify(code);
        let slot = report.id;
        if self.shared.unreported.is_discarded(slot) {
            let topic = self.shared.unreported.topic(slot);
            let queue = self.resend_queues.get_mut(topic.index());
            if let Some(queue) = queue.filter(|queue| queue.is_in_flight_alone(slot)) {
                queue.finished();
            }
            self.shared.unreported.leave(slot);
            return;
        }
        let topic = self.shared.unreported.mark_for_resend(slot);
        let closed_before = self.shared.close(topic);
        if error == BatchError::ResendAlone && !closed_before {
            self.log_batch_rejected(topic, code);
        }
        let Some(queue) = self.resend_queues.get_mut(topic.index()) else { return };
        if queue.is_in_flight_alone(slot) {
            match queue.failed(error, code) {
                ResendDecision::ReportRejected => {
                    queue.finished();
                    self.report_rejected(slot, code);
                }
                ResendDecision::Restamp => self.shared.unreported.restamp(slot),
                ResendDecision::RetryLater => self.shared.log_blocked(topic, code),
            }
            return;
        }
        match report.record() {
            Ok(message) => {
                let timestamp = self.shared.unreported.timestamp(slot);
                let record = OwnedRecord::copy_of(topic, timestamp, &message);
                let must_be_alone = error != BatchError::Producer;
                queue.push(FailedRecord { slot, record, must_be_alone });
            }
            Err(code) => self.report_rejected(slot, code),
        }
        if error == BatchError::Topic {
            self.shared.log_blocked(topic, code);
        }
    }

    /// Sends the records of this topic that may be sent again now; opens the topic when none is left.
    fn resend(&mut self, topic: SinkTopic) {
        if self.broken || self.old.is_some() {
            return; // records that the old producer has not returned yet may precede these
        }
        let Some(queue) = self.resend_queues.get_mut(topic.index()) else { return };
        if !queue.is_empty() && self.shared.unreported.has_discarded() {
            for slot in queue.discard(|slot| self.shared.unreported.is_discarded(slot)) {
                self.shared.unreported.leave(slot);
            }
        }
        while let Some(next) = queue.next(self.shared.unreported.in_flight_to(topic)) {
            let slot = next.slot;
            self.shared.unreported.mark_resent(slot);
            match next.record.lend(|record| self.shared.current().submit(record, slot)) {
                Ok(()) => queue.sent(),
                Err(ErrorCode::MSG_SIZE_TOO_LARGE) => {
                    queue.finished();
                    self.report_rejected(slot, ErrorCode::MSG_SIZE_TOO_LARGE);
                    self.notify_handlers();
                    return self.resend(topic);
                }
                Err(code) => {
                    self.shared.unreported.mark_for_resend(slot);
                    queue.pause();
                    return self.shared.log_blocked(topic, code);
                }
            }
        }
        if queue.is_empty() && !self.broken && self.shared.is_closed(topic) {
            self.open(topic);
        }
    }

    fn open(&mut self, topic: SinkTopic) {
        self.shared.open(topic);
        for route in &mut self.routes {
            route(&[]);
        }
    }

    fn log_batch_rejected(&mut self, topic: SinkTopic, code: ErrorCode) {
        let Some(LinePermit { dropped }) = self.lines.permit() else { return };
        let topic = self.shared.name(topic);
        tracing::warn!(topic, %code, dropped, "batch rejected: its records are sent again, one by one");
    }

    fn report_rejected(&mut self, slot: usize, code: ErrorCode) {
        let topic = self.shared.unreported.topic(slot);
        self.report_delivery(slot, Err(DeliveryError { topic, code }));
    }

    fn report_delivery(&mut self, slot: usize, result: Result<RecordMetadata, DeliveryError>) {
        let FinishedRecord { id, resent, restamped } = self.shared.unreported.leave(slot);
        let delivery = Delivery { id, resent, restamped, result };
        let handler = usize::from(delivery.id.handler);
        let collected = self.by_handler.get_mut(handler).expect("every handler that produces has a route");
        collected.push(delivery);
    }

    fn handle_client_error(&mut self, event: &ClientEvent) {
        let text = format!("{} ({})", event.text(), event.error().name());
        if let Some(LinePermit { dropped }) = self.error_lines.permit() {
            let remedy = "check that the brokers are running; the client reconnects automatically";
            tracing::warn!(error = text, remedy, dropped, "producer error");
        }
        if event.error().is_authentication_failure() {
            (self.on_authentication_failure)();
        }
        if event.is_fatal() {
            self.broken = true;
        }
    }

    /// Replaces the producer. The new one resends all records that have no report. Nothing is sent until the old
    /// producer has returned all of them, because a new record would overtake them.
    fn replace_producer(&mut self) {
        let replaced = self.shared.replace_producer();
        self.broken = replaced.is_err();
        match replaced {
            Ok(old) => {
                let reports =
                    std::mem::replace(&mut self.reports, self.shared.current().producer.main_queue());
                let purged = old.purge();
                tracing::error!(
                    ?purged,
                    "producer failed and was replaced: outputs in flight may be stored twice"
                );
                self.shared.totals.lock().unwrap_or_else(PoisonError::into_inner).replaced += 1;
                self.old = Some((old, reports));
            }
            Err(error) => {
                if matches!(error, ClientError::Credentials(_)) {
                    (self.on_authentication_failure)(); // for example an expired token: no broker was contacted
                }
                if let Some(LinePermit { dropped }) = self.error_lines.permit() {
                    tracing::error!(%error, dropped, "producer can't be created; retrying");
                }
            }
        }
    }

    fn drain_old_producer(&mut self) {
        let Some((old, reports)) = self.old.take() else { return };
        // The queue may hold reports that the client no longer counts.
        while let Some(mut event) = reports.poll(Duration::ZERO) {
            if event.kind() == EventKind::Delivery {
                self.handle_reports(&mut event);
            }
        }
        if old.queued() > 0 {
            self.old = Some((old, reports));
            return;
        }
        for queue in &mut self.resend_queues {
            queue.sort_by_key(|slot| self.shared.unreported.sequence(slot));
        }
    }
}
