//! The thread that hears what became of records: it tells the handlers, sends again what has to be, and replaces a
//! producer that can't go on.
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::in_flight::Left;
use super::outcome::{Delivery, DeliveryError, RecordMetadata, Refusal, refusal};
use super::producer::{OnRefusal, Route, Shared};
use super::record::OwnedRecord;
use super::resend::{Quarantined, Resend, ResendDecision};
use crate::librdkafka::{ClientEvent, ConfigError, Delivered, ErrorCode, EventKind, Producer, Queue};
use crate::telemetry::LineLimit;

/// The thread looks around at least so often.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Lines a second about one cause.
const LINES_MAX: u32 = 2;

/// Takes reports, sorts them by handler, and keeps what is to be sent again.
pub(super) struct DeliveryThread {
    shared: Arc<Shared>,
    reports: Queue,
    /// A producer that was replaced, until every record has come back from it.
    old: Option<(Producer, Queue)>,
    routes: Vec<Route>,
    on_refusal: OnRefusal,
    /// What is collected per handler from one event of the library.
    sorted: Vec<Vec<Delivery>>,
    /// By topic.
    resend: Vec<Resend>,
    /// The producer can't go on, and another one has to be made.
    broken: bool,
    /// Of lines about refused batches.
    lines: LineLimit,
    /// Of lines about errors of the client.
    error_lines: LineLimit,
}

impl DeliveryThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        reports: Queue,
        routes: Vec<Route>,
        on_refusal: OnRefusal,
    ) -> DeliveryThread {
        let sorted = routes.iter().map(|_| Vec::new()).collect();
        let resend = shared.names.iter().map(|_| Resend::default()).collect();
        DeliveryThread {
            shared,
            reports,
            old: None,
            routes,
            on_refusal,
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
            for topic in 0..self.resend.len() {
                self.send_again(topic);
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
        while let Some(report) = event.next_delivered() {
            match report.error.into_result() {
                Ok(()) => self.landed(&report),
                Err(code) => self.came_back(&report, code),
            }
        }
        self.pass_on();
    }

    /// Tells every handler what was collected for it.
    fn pass_on(&mut self) {
        for (route, collected) in self.routes.iter_mut().zip(&mut self.sorted) {
            if !collected.is_empty() {
                route(collected);
                collected.clear();
            }
        }
    }

    fn landed(&mut self, report: &Delivered<'_>) {
        let topic = self.shared.in_flight.topic(report.token);
        if let Some(resend) = self.resend.get_mut(usize::from(topic))
            && resend.is_alone(report.token)
        {
            resend.settled();
        }
        self.shared.all_clear(topic.into());
        let landed = RecordMetadata { topic, partition: report.partition, offset: report.offset };
        self.report_outcome(report.token, Ok(landed));
    }

    /// The brokers, or the client, did not take a record.
    fn came_back(&mut self, report: &Delivered<'_>, code: ErrorCode) {
        let refusal = refusal(code);
        let place = report.token;
        if self.shared.in_flight.is_forgotten(place) {
            let topic = usize::from(self.shared.in_flight.topic(place));
            if let Some(resend) = self.resend.get_mut(topic).filter(|resend| resend.is_alone(place)) {
                resend.settled();
            }
            self.shared.in_flight.leave(place);
            return;
        }
        let number = self.shared.in_flight.set_aside(place);
        let topic = usize::from(number);
        let closed_before = self.shared.close(topic);
        if refusal == Refusal::Again && !closed_before {
            self.log_batch_rejected(topic, code);
        }
        let Some(resend) = self.resend.get_mut(topic) else { return };
        if resend.is_alone(place) {
            match resend.refused(refusal, code) {
                ResendDecision::Refused => {
                    resend.settled();
                    self.log_rejected(place, code);
                }
                ResendDecision::Restamped => self.shared.in_flight.restamp(place),
                ResendDecision::Blocked => self.shared.alarm(topic, code),
            }
            return;
        }
        match report.record() {
            Ok(message) => {
                let timestamp = self.shared.in_flight.timestamp(place);
                let record = OwnedRecord::copy_of(number, timestamp, &message);
                let alone = refusal != Refusal::Producer;
                resend.push(Quarantined { place, record, alone });
            }
            Err(code) => self.log_rejected(place, code),
        }
        if refusal == Refusal::Topic {
            self.shared.alarm(topic, code);
        }
    }

    /// Sends what may be sent again to this topic now; opens the topic when nothing is left.
    fn send_again(&mut self, topic: usize) {
        if self.broken || self.old.is_some() {
            return; // what comes back yet may go before these
        }
        let Some(resend) = self.resend.get_mut(topic) else { return };
        if !resend.is_empty() && self.shared.in_flight.has_forgotten() {
            for place in resend.forget(|place| self.shared.in_flight.is_forgotten(place)) {
                self.shared.in_flight.leave(place);
            }
        }
        while let Some(next) = resend.next(self.shared.in_flight.records_to(topic)) {
            let place = next.place;
            self.shared.in_flight.send_again(place);
            match next.record.lend(|output| self.shared.current().hand_over(output, place)) {
                Ok(()) => resend.sent(),
                Err(ErrorCode::MSG_SIZE_TOO_LARGE) => {
                    resend.settled();
                    self.log_rejected(place, ErrorCode::MSG_SIZE_TOO_LARGE);
                    self.pass_on();
                    return self.send_again(topic);
                }
                Err(code) => {
                    self.shared.in_flight.set_aside(place);
                    resend.not_now();
                    return self.shared.alarm(topic, code);
                }
            }
        }
        if resend.is_empty()
            && !self.broken
            && self.shared.is_closed(u16::try_from(topic).unwrap_or(u16::MAX))
        {
            self.open(topic);
        }
    }

    fn open(&mut self, topic: usize) {
        self.shared.open(topic);
        for route in &mut self.routes {
            route(&[]);
        }
    }

    fn log_batch_rejected(&mut self, topic: usize, code: ErrorCode) {
        let Some(dropped) = self.lines.allow() else { return };
        let topic = self.shared.name(topic);
        tracing::warn!(topic, %code, dropped, "a batch of outputs is refused: its records are sent again, one by one");
    }

    fn log_rejected(&mut self, place: usize, code: ErrorCode) {
        let topic = self.shared.in_flight.topic(place);
        self.report_outcome(place, Err(DeliveryError { topic, code }));
    }

    fn report_outcome(&mut self, place: usize, result: Result<RecordMetadata, DeliveryError>) {
        let Left { token, again, restamped } = self.shared.in_flight.leave(place);
        let delivery = Delivery { token, again, restamped, result };
        let handler = usize::from(delivery.token.handler);
        let collected = self.sorted.get_mut(handler).expect("every handler that produces has a route");
        collected.push(delivery);
    }

    fn note(&mut self, event: &ClientEvent) {
        let text = format!("{} ({})", event.text(), event.error().name());
        if let Some(dropped) = self.error_lines.allow() {
            let remedy = "see whether the brokers run; the client connects again by itself";
            tracing::warn!(error = text, remedy, dropped, "the producer reports an error");
        }
        self.shared.note_error(text);
        if event.error().is_refusal() {
            (self.on_refusal)();
        }
        if event.is_fatal() {
            self.broken = true;
        }
    }

    /// Everything that has no report goes out again, by another producer. Until all of it has come back from the old
    /// one nothing new is sent: it would overtake.
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
                    "the producer can't go on: another one takes its place; outputs on their \
                    way may land twice"
                );
                self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).replaced += 1;
                self.old = Some((old, reports));
            }
            Err(error) => {
                if matches!(error, ConfigError::Credentials(_)) {
                    (self.on_refusal)(); // a token that has ended: no broker is asked
                }
                if let Some(dropped) = self.error_lines.allow() {
                    tracing::error!(%error, dropped, "no producer could be made; it is tried again");
                }
            }
        }
    }

    fn drain_old_producer(&mut self) {
        let Some((old, reports)) = self.old.take() else { return };
        // Reports may lie in the queue after the client has counted them.
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
            resend.sort_by_key(|place| self.shared.in_flight.sequence(place));
        }
    }
}
