//! The thread that receives delivery reports: it notifies the handlers, resends failed records, and replaces a failed
//! producer.
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::delivery::{Delivery, RecordMetadata};
use super::errors::{BatchError, DeliveryError, classify};
use super::in_flight::FinishedRecord;
use super::producer::{OnAuthenticationFailure, Route, Shared};
use super::record::{OwnedRecord, SinkTopic};
use super::resend::{FailedRecord, Resend, ResendDecision};
use crate::librdkafka::{ClientEvent, ConfigError, DeliveryReport, ErrorCode, EventKind, Producer, Queue};
use crate::telemetry::{Allowed, LineLimit};

/// Longest wait for an event.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Log lines per second and cause.
const LINES_MAX: u32 = 2;

/// The state of the delivery thread: the reports, sorted by handler, and the records to send again.
pub(super) struct DeliveryThread {
    shared: Arc<Shared>,
    reports: Queue,
    /// A replaced producer, until it has returned every record.
    old: Option<(Producer, Queue)>,
    routes: Vec<Route>,
    on_authentication_failure: OnAuthenticationFailure,
    /// Deliveries that are not passed to their handlers yet, by handler.
    sorted: Vec<Vec<Delivery>>,
    /// The records to send again, by topic.
    resend: Vec<Resend>,
    /// Whether the producer failed and must be replaced.
    broken: bool,
    /// The limit on log lines about rejected batches.
    lines: LineLimit,
    /// The limit on log lines about errors of the client.
    error_lines: LineLimit,
}

impl DeliveryThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        reports: Queue,
        routes: Vec<Route>,
        on_authentication_failure: OnAuthenticationFailure,
    ) -> DeliveryThread {
        let sorted = routes.iter().map(|_| Vec::new()).collect();
        let resend = shared.names.iter().map(|_| Resend::default()).collect();
        DeliveryThread {
            shared,
            reports,
            old: None,
            routes,
            on_authentication_failure,
            sorted,
            resend,
            broken: false,
            lines: LineLimit::new(LINES_MAX),
            error_lines: LineLimit::new(LINES_MAX),
        }
    }

    pub(super) fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.broken && self.old.is_none() {
                self.replace_producer();
            }
            self.drain_old_producer();
            if let Some(mut event) = self.reports.poll(POLL_INTERVAL) {
                self.take(&mut event);
            }
            for topic in SinkTopic::all(self.resend.len()) {
                self.resend(topic);
            }
        }
    }

    fn take(&mut self, event: &mut ClientEvent) {
        match event.kind() {
            EventKind::Delivery => self.deliver(event),
            EventKind::Error => self.note(event),
            EventKind::Rebalance | EventKind::Commit | EventKind::Record | EventKind::Other(_) => {}
        }
    }

    fn deliver(&mut self, event: &mut ClientEvent) {
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
        for (route, collected) in self.routes.iter_mut().zip(&mut self.sorted) {
            if !collected.is_empty() {
                route(collected);
                collected.clear();
            }
        }
    }

    fn on_stored(&mut self, report: &DeliveryReport<'_>) {
        let topic = self.shared.in_flight.topic(report.token);
        if let Some(resend) = self.resend.get_mut(topic.index())
            && resend.is_alone(report.token)
        {
            resend.finished();
        }
        self.shared.log_unblocked(topic);
        let stored = RecordMetadata { topic, partition: report.partition, offset: report.offset };
        self.report_delivery(report.token, Ok(stored));
    }

    /// Handles a record that the brokers, or the client, did not store.
    fn on_failed(&mut self, report: &DeliveryReport<'_>, code: ErrorCode) {
        let error = classify(code);
        let slot = report.token;
        if self.shared.in_flight.is_discarded(slot) {
            let topic = self.shared.in_flight.topic(slot);
            if let Some(resend) = self.resend.get_mut(topic.index()).filter(|resend| resend.is_alone(slot)) {
                resend.finished();
            }
            self.shared.in_flight.leave(slot);
            return;
        }
        let topic = self.shared.in_flight.mark_for_resend(slot);
        let closed_before = self.shared.close(topic);
        if error == BatchError::Again && !closed_before {
            self.log_batch_rejected(topic, code);
        }
        let Some(resend) = self.resend.get_mut(topic.index()) else { return };
        if resend.is_alone(slot) {
            match resend.failed(error, code) {
                ResendDecision::Rejected => {
                    resend.finished();
                    self.report_rejected(slot, code);
                }
                ResendDecision::Restamped => self.shared.in_flight.restamp(slot),
                ResendDecision::Blocked => self.shared.log_blocked(topic, code),
            }
            return;
        }
        match report.record() {
            Ok(message) => {
                let timestamp = self.shared.in_flight.timestamp(slot);
                let record = OwnedRecord::copy_of(topic, timestamp, &message);
                let alone = error != BatchError::Producer;
                resend.push(FailedRecord { slot, record, alone });
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
        let Some(resend) = self.resend.get_mut(topic.index()) else { return };
        if !resend.is_empty() && self.shared.in_flight.has_discarded() {
            for slot in resend.discard(|slot| self.shared.in_flight.is_discarded(slot)) {
                self.shared.in_flight.leave(slot);
            }
        }
        while let Some(next) = resend.next(self.shared.in_flight.records_to(topic)) {
            let slot = next.slot;
            self.shared.in_flight.mark_resent(slot);
            match next.record.lend(|output| self.shared.current().submit(output, slot)) {
                Ok(()) => resend.sent(),
                Err(ErrorCode::MSG_SIZE_TOO_LARGE) => {
                    resend.finished();
                    self.report_rejected(slot, ErrorCode::MSG_SIZE_TOO_LARGE);
                    self.notify_handlers();
                    return self.resend(topic);
                }
                Err(code) => {
                    self.shared.in_flight.mark_for_resend(slot);
                    resend.not_now();
                    return self.shared.log_blocked(topic, code);
                }
            }
        }
        if resend.is_empty() && !self.broken && self.shared.is_closed(topic) {
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
        let Some(Allowed { dropped }) = self.lines.allow() else { return };
        let topic = self.shared.name(topic);
        tracing::warn!(topic, %code, dropped, "batch of outputs rejected: its records are sent again, one by one");
    }

    fn report_rejected(&mut self, slot: usize, code: ErrorCode) {
        let topic = self.shared.in_flight.topic(slot);
        self.report_delivery(slot, Err(DeliveryError { topic, code }));
    }

    fn report_delivery(&mut self, slot: usize, result: Result<RecordMetadata, DeliveryError>) {
        let FinishedRecord { token, again, restamped } = self.shared.in_flight.leave(slot);
        let delivery = Delivery { token, again, restamped, result };
        let handler = usize::from(delivery.token.handler);
        let collected = self.sorted.get_mut(handler).expect("every handler that produces has a route");
        collected.push(delivery);
    }

    fn note(&mut self, event: &ClientEvent) {
        let text = format!("{} ({})", event.text(), event.error().name());
        if let Some(Allowed { dropped }) = self.error_lines.allow() {
            let remedy = "check that the brokers are running; the client reconnects automatically";
            tracing::warn!(error = text, remedy, dropped, "producer error");
        }
        self.shared.note_error(text);
        if event.error().is_authentication_failure() {
            (self.on_authentication_failure)();
        }
        if event.is_fatal() {
            self.broken = true;
        }
    }

    /// Replaces the producer. The new one sends all records again that have no report. Nothing is sent until the old
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
                self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).replaced += 1;
                self.old = Some((old, reports));
            }
            Err(error) => {
                if matches!(error, ConfigError::Credentials(_)) {
                    (self.on_authentication_failure)(); // for example an expired token: no broker was contacted
                }
                if let Some(Allowed { dropped }) = self.error_lines.allow() {
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
                self.deliver(&mut event);
            }
        }
        if old.queued() > 0 {
            self.old = Some((old, reports));
            return;
        }
        for resend in &mut self.resend {
            resend.sort_by_key(|slot| self.shared.in_flight.sequence(slot));
        }
    }
}
