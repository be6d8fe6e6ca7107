//! Publishes the outputs of ended calls and the dead letters of events that can't be handled, and receives their
//! acknowledgements.

mod backlog;
mod calls;
mod dead_letters;
mod effects;
mod event_errors;
mod invalid_rows;
mod order_values;
mod provenance;
mod reasons;
mod refused_outputs;
mod rejected_dead_letters;
mod reported_topics;
mod targets;
mod times;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use keylane_core::{CallId, Dispatch, FailedEvent, Input, Now, Reason};

use crate::admit::{Arena, Header};
use crate::config;
use crate::guest::{Call, CallStatus, GuestOutput};
use crate::librdkafka::ErrorCode;
use crate::sink::{
    Delivery, DeliveryError, ProduceError, ProducerTotals, RecordId, RecordMetadata, RecordSize, Sink,
    SinkRecord, SinkTopic, Unpublishable,
};

use backlog::{Backlog, QueuedItem};
use calls::{PendingCalls, RowDelivery};
pub(super) use dead_letters::was_redriven;
use dead_letters::{Context, DeadLetterFormat, Origin};
pub(super) use effects::{CopiedEffects, EffectContext};
use invalid_rows::LaneCursor;
use order_values::{OrderHeader, OrderValues};
use provenance::{Provenance, ProvenanceHeaders};
pub(super) use reasons::{REASON_NAMES, name_of};
pub(super) use refused_outputs::REASON as OUTPUT_REJECTED;
use refused_outputs::RefusedOutputs;
use rejected_dead_letters::RejectedDeadLetters;
use targets::Target;
use times::OutputTimestamps;

/// Produces outputs and dead letters in order, and reports the result of a row when all of its records are acknowledged
/// or rejected.
pub(in crate::app) struct Publishing {
    sink: Arc<Sink>,
    /// The number that identifies this loop to the sink.
    handler_index: u16,
    targets: Vec<Target>,
    /// Names of the sink's topics.
    topics: Vec<String>,
    provenance: Provenance,
    order_values: OrderValues,
    times: OutputTimestamps,
    dead_letters: DeadLetterFormat,
    refused_outputs: RefusedOutputs,
    calls: PendingCalls,
    backlog: Backlog,
    /// The last reported state of the backlog.
    backlog_full: bool,
    rejected_dead_letters: RejectedDeadLetters,
    /// Acknowledgements and rejections for the core.
    core_inputs: VecDeque<Input<'static>>,
    counters: PublishingCounters,
    /// The last output that was stored after a later one of its lane, until it is logged.
    order_break: Option<RecordMetadata>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PublishingCounters {
    /// Events that a guest call processed successfully.
    done: u64,
    outputs_acknowledged: u64,
    /// Output headers that were dropped because their names are reserved for Keylane.
    removed_headers: u64,
    /// Resent outputs that were stored after later ones of their lane.
    order_breaks: u64,
}

/// A snapshot of the publishing of one handler.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct PublishingView {
    pub(in crate::app) outputs_acknowledged: u64,
    /// Number of outputs that were stored after later ones of their lane.
    pub(in crate::app) order_breaks: u64,
    /// Number of outputs with the time of sending because they could not keep the time of their event.
    pub(in crate::app) restamped: u64,
    /// Number of output headers that were dropped because their names are reserved for Keylane.
    pub(in crate::app) removed_headers: u64,
    /// The topic with the most queued outputs, while they block new calls.
    pub(in crate::app) blocking_topic: Option<String>,
    /// Memory of the queued outputs and dead letters.
    pub(in crate::app) backlog_bytes: usize,
    /// The producer that all handlers share.
    pub(in crate::app) producer: ProducerTotals,
}

impl Publishing {
    /// Creates the publishing of one handler. `topics`: the topics that the sink was started with. `backlog_bytes`: the
    /// number of queued bytes above which no call should begin.
    pub(in crate::app) fn new(
        sink: Arc<Sink>,
        handler_index: u16,
        handler: &config::HandlerConfig,
        topics: &[String],
        backlog_bytes: usize,
    ) -> Self {
        let targets = Target::all(&handler.outputs, topics);
        let provenance = Provenance::new(targets.iter().any(|target| target.provenance));
        let dead_letters = DeadLetterFormat::new(handler, topics);
        dead_letters.topics().filter(|topic| sink.is_compacted(*topic)).for_each(|topic| {
            let topic = topics.get(topic.index()).map_or("?", String::as_str);
            tracing::warn!(
                handler = handler.name,
                topic,
                remedy = "give it `cleanup.policy=delete`",
                "dead-letter topic is compacted: it keeps one dead letter per key, and rejects those without a key, which \
                 blocks their lanes"
            );
        });
        Publishing {
            sink,
            handler_index,
            targets,
            topics: topics.to_vec(),
            provenance,
            order_values: OrderValues::new(handler),
            times: OutputTimestamps::new(handler.name.clone()),
            dead_letters,
            refused_outputs: RefusedOutputs::new(handler, topics),
            calls: PendingCalls::default(),
            backlog: Backlog::new(topics.len(), backlog_bytes),
            backlog_full: false,
            rejected_dead_letters: RejectedDeadLetters::default(),
            core_inputs: VecDeque::new(),
            counters: PublishingCounters::default(),
            order_break: None,
        }
    }

    /// Returns the size in bytes of the largest record that any output topic of the handler may accept.
    pub(in crate::app) fn max_record_bytes(&self) -> usize {
        self.targets.iter().map(|target| self.sink.max_record_bytes(target.topic)).max().unwrap_or(0)
    }

    // -- calls --------------------------------------------------------------------------------------

    /// Begins the state of a dispatched call. `digest`: of the component that is called.
    pub(super) fn begin_call(&mut self, dispatch: &Dispatch<'_>, digest: &Arc<str>, arena: &Arena) {
        let pending_call = self.calls.entry(dispatch.call);
        pending_call.attempt = dispatch.attempt;
        pending_call.digest = Some(digest.clone());
        if self.provenance.is_enabled {
            // The core keeps the ownership of a row only until the call has ended.
            pending_call.ownerships.extend(dispatch.rows.iter().map(|row| row.ownership));
        }
        self.order_values.read(dispatch.rows, arena, &mut pending_call.order_values);
    }

    /// Keeps the errors of events that are not done: the core requests their outcome later.
    pub(super) fn keep_errors(&mut self, ended: &Call) {
        let Some(pending_call) = self.calls.get_mut(ended.key.call) else { return };
        for (row, failed) in ended.failed_rows() {
            pending_call.add_error(row, failed.reason.clone());
        }
        if let CallStatus::Failed(failure) = &ended.status {
            pending_call.add_error(failure.row.unwrap_or(0), failure.message.clone());
        }
    }

    /// Returns the error of an event that can't be handled for this reason.
    pub(super) fn error_of(&self, call: CallId, row: u32, reason: Reason) -> &str {
        self.dead_letters.events().error(reason).unwrap_or_else(|| self.calls.error_of(call, row))
    }

    // -- outputs ------------------------------------------------------------------------------------

    /// Publishes the outputs of these rows and drops those of other rows. `rows`: in ascending order. `ended`: the call
    /// whose end is handled now.
    pub(super) fn publish(
        &mut self,
        ended: Option<&Call>,
        call: CallId,
        rows: &[u32],
        arena: &Arena,
        now: Now,
    ) {
        let ended = ended.filter(|ended| ended.key.call == call);
        let ended = ended.expect("outputs are published while the end of their call is handled");
        let mut selected = rows.iter().copied().peekable();
        let mut lanes = LaneCursor::of(ended);
        let mut index_in_row = 0;
        let mut row_before = None;
        let mut rejected = Vec::new();
        for (index, output) in (0..).zip(ended.results.outputs()) {
            index_in_row = if row_before == Some(output.row) { index_in_row + 1 } else { 0 };
            row_before = Some(output.row);
            while selected.next_if(|&row| row < output.row).is_some() {}
            if selected.peek() == Some(&output.row) {
                let (lane, _) = lanes.find(output.row);
                let (handler, row) = (self.handler_index, output.row);
                let id = RecordId { handler, call, row, lane, output: index, dead_letter: false };
                let produced = self.produce(ended, &output, (index_in_row, now.wall_ms), id);
                rejected.extend(produced.err().map(|error| (id, error)));
            }
        }
        // Rejections are handled only after all outputs of their rows are counted.
        for (id, error) in rejected {
            self.rejected(id, error, arena);
        }
    }

    /// Passes an output to the client, which copies it, or copies it to the backlog. An error means that the client
    /// will never accept the output.
    fn produce(
        &mut self,
        ended: &Call,
        output: &GuestOutput<'_>,
        (index_in_row, now_ms): (u32, i64),
        id: RecordId,
    ) -> Result<(), DeliveryError> {
        let Target { topic, provenance, time } = *self.target(output);
        let timestamp =
            self.times.of(time, (&self.sink, topic), ended.batch.timestamp(output.row as usize), now_ms);
        let pending_call = self.calls.entry(id.call);
        pending_call.sent(id.row, topic);
        let provenance_headers =
            provenance.then(|| self.provenance.headers(ended, Some(pending_call), output.row, index_in_row));
        let headers = output.headers().map(|(name, value)| (name.as_bytes(), value));
        let order_header = self.order_values.header(output, Some(pending_call));
        let headers: Vec<Header<'_>> = headers
            .chain(order_header.iter().map(OrderHeader::get))
            .chain(provenance_headers.iter().flat_map(ProvenanceHeaders::iter))
            .collect();
        let record = SinkRecord { topic, timestamp, key: output.key, value: output.value, headers: &headers };
        let produced = if self.backlog.is_empty(topic) {
            self.sink.produce(&record, id)
        } else {
            Err(ProduceError::NotNow)
        };
        match produced {
            Ok(()) => Ok(()),
            Err(ProduceError::NotNow) => {
                self.backlog.push((&record).into(), id);
                Ok(())
            }
            Err(ProduceError::Rejected(error)) => Err(error),
        }
    }

    fn target(&self, output: &GuestOutput<'_>) -> &Target {
        let target = self.targets.get(output.target as usize);
        target.expect("results are checked against the targets of the handler")
    }

    /// Handles a record that the brokers or the client rejected. An output is not sent again; a dead letter is.
    fn rejected(&mut self, id: RecordId, error: DeliveryError, arena: &Arena) {
        let RecordId { call, row, dead_letter, .. } = id;
        if dead_letter {
            return self.dead_letter_rejected(id, error, arena);
        }
        let topic = self.topic_name(error.topic);
        let text = format!("topic `{topic}` rejected the output: {}{}", error.code, remedy(error.code));
        if let Some(pending_call) = self.calls.get_mut(call) {
            pending_call.add_error(row, text);
            let delivery = pending_call.rejected(row);
            self.row_delivered(call, row, delivery);
        }
    }

    fn row_delivered(&mut self, call: CallId, row: u32, delivery: Option<RowDelivery>) {
        self.core_inputs.extend(delivery.map(|delivery| match delivery {
            RowDelivery::Acked => Input::EffectsAcked { call, row },
            RowDelivery::Rejected => Input::OutputRejected { call, row },
        }));
    }

    // -- dead letters -------------------------------------------------------------------------------

    /// Publishes an event to its dead-letter topic. `topic_id`: the id of the event's topic. `digest`: of the component
    /// that would be called, used for an event without a call.
    pub(super) fn dead_letter(
        &mut self,
        dead_letter: &FailedEvent,
        arena: &Arena,
        topic_id: [u8; 16],
        digest: &Arc<str>,
        now_ms: i64,
    ) {
        let &FailedEvent { call, row, event, reason, .. } = dead_letter;
        let stored = arena.get(event.arena_slot);
        let origin = Origin { topic_id, log_append_time: stored.log_append_time };
        let error = self.error_of(call, row, reason).to_owned();
        let pending_call = self.calls.entry(call);
        let published = pending_call.published(row, &self.topics);
        let digest = pending_call.digest.as_ref().unwrap_or(digest).clone();
        let context = Context { digest, origin, error: &error, published, expected: None, now_ms };
        let pending = self.dead_letters.pending(dead_letter, &stored, context);
        let topic = self.dead_letters.topic_of(&pending);
        self.calls.entry(call).add_dead_letter(row, topic, pending);
        let id = RecordId { handler: self.handler_index, call, row, lane: 0, output: 0, dead_letter: true };
        self.send_dead_letter(id, arena);
    }

    /// Sends a dead letter in its largest form that does not exceed the known limits of its topic.
    fn send_dead_letter(&mut self, id: RecordId, arena: &Arena) {
        let Publishing { sink, dead_letters, calls, backlog, .. } = self;
        let Some(pending) = calls.dead_letter(id.call, id.row) else { return };
        let topic = dead_letters.topic_of(pending);
        let fits = |record: &SinkRecord<'_>| {
            !matches!(
                sink.check(topic, RecordSize::of(record)),
                Err(Unpublishable::TooLargeForTopic { .. } | Unpublishable::TooLargeForClient { .. })
            )
        };
        while !dead_letters.lend(pending, arena, fits) && dead_letters.reduce(pending) {}
        let may_go = backlog.is_empty(topic);
        let (sent, bytes) = dead_letters.lend(pending, arena, |record| {
            let sent = if may_go { sink.produce(record, id) } else { Err(ProduceError::NotNow) };
            (sent, record.memory())
        });
        match sent {
            Ok(()) => {}
            Err(ProduceError::NotNow) => backlog.push_dead_letter(topic, id, bytes),
            Err(ProduceError::Rejected(error)) => self.dead_letter_rejected(id, error, arena),
        }
    }

    /// Reduces a dead letter that is too large. In its smallest form, or after any other error, it is retried: no event
    /// settles without its dead letter.
    fn dead_letter_rejected(&mut self, id: RecordId, error: DeliveryError, arena: &Arena) {
        let Publishing { dead_letters, calls, .. } = self;
        let Some(pending) = calls.dead_letter(id.call, id.row) else { return };
        let too_large =
            matches!(error.code, ErrorCode::MSG_SIZE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE);
        if too_large && dead_letters.reduce(pending) {
            return self.send_dead_letter(id, arena);
        }
        let topic = dead_letters.topic_of(pending);
        if self.rejected_dead_letters.add(id) {
            self.dead_letters.log_rejected(self.topic_name(topic), error.code);
        }
    }

    // -- disowned rows -------------------------------------------------------------------------------

    /// Marks rows whose results no longer count: see [`Publishing::discard_disowned`].
    pub(super) fn disown(&mut self, call: CallId, rows: Range<u32>) {
        self.calls.disown(call, rows);
    }

    /// Drops unsent records of rows whose results no longer count, because their ownership has ended or the handler is
    /// stopping. The new owner of the partition processes the events, and records sent later would be stored after the
    /// new owner's outputs.
    pub(super) fn discard_disowned(&mut self) {
        if !self.calls.discard_disowned() {
            return;
        }
        let Publishing { calls, backlog, rejected_dead_letters, sink, .. } = self;
        let is_disowned = |id: &RecordId| calls.is_disowned(id.call, id.row);
        backlog.discard(is_disowned);
        rejected_dead_letters.discard(is_disowned);
        sink.discard(self.handler_index, &is_disowned);
    }

    // -- the backlog --------------------------------------------------------------------------------

    /// Returns whether the backlog is full, if that has changed since the last call.
    pub(super) fn backlog_changed(&mut self) -> Option<bool> {
        let full = self.backlog.update_full();
        (std::mem::replace(&mut self.backlog_full, full) != full).then_some(full)
    }

    /// Retries the backlog and rejected dead letters. Returns true if any record left the backlog.
    pub(super) fn publish_backlog(&mut self, arena: &Arena) -> bool {
        self.discard_disowned();
        if let Some(id) = self.rejected_dead_letters.probe() {
            self.send_dead_letter(id, arena);
        }
        let mut rejected = Vec::new();
        let Publishing { backlog, sink, dead_letters, calls, .. } = self;
        let moved = backlog.produce(
            |item, id| match item {
                QueuedItem::Output(record) => record.lend(|record| sink.produce(record, id)),
                QueuedItem::DeadLetter => match calls.dead_letter(id.call, id.row) {
                    Some(pending) => dead_letters.lend(pending, arena, |record| sink.produce(record, id)),
                    None => Ok(()), // the dead letter is no longer needed
                },
            },
            |id, error| rejected.push((id, error)),
        );
        for (id, error) in rejected {
            self.rejected(id, error, arena);
        }
        moved
    }

    // -- delivery reports ---------------------------------------------------------------------------

    /// Handles a delivery report.
    pub(super) fn delivered(&mut self, delivery: &Delivery, arena: &Arena) {
        self.discard_disowned(); // the events of disowned rows are no longer in the arena
        let RecordId { call, row, dead_letter, .. } = delivery.id;
        match delivery.result {
            Err(error) => self.rejected(delivery.id, error, arena),
            Ok(_) if dead_letter => {
                let row_delivery =
                    self.calls.get_mut(call).and_then(|pending_call| pending_call.dead_letter_acked(row));
                self.row_delivered(call, row, row_delivery);
                for id in self.rejected_dead_letters.acknowledged(delivery.id) {
                    self.send_dead_letter(id, arena);
                }
            }
            Ok(stored) => {
                self.counters.outputs_acknowledged += 1;
                if delivery.restamped {
                    self.times.count_restamped();
                }
                let Some(pending_call) = self.calls.get_mut(call) else { return };
                if delivery.resent && pending_call.was_overtaken(&delivery.id, stored) {
                    self.counters.order_breaks += 1;
                    self.order_break = Some(stored);
                }
                let row_delivery = pending_call.acked(&delivery.id, stored);
                self.row_delivered(call, row, row_delivery);
            }
        }
    }

    /// Returns the next acknowledgement or rejection for the core.
    pub(super) fn next_input(&mut self) -> Option<Input<'static>> {
        self.core_inputs.pop_front()
    }

    // -- totals -------------------------------------------------------------------------------------

    pub(super) fn count_ended_call(&mut self, ended: &Call) {
        let done: u32 = ended.results.lane_ends().iter().map(|lane| lane.done).sum();
        self.counters.done += u64::from(done);
        self.counters.removed_headers += ended.results.reserved_headers();
    }

    /// Returns the number of events that a guest call processed successfully.
    pub(super) fn done(&self) -> u64 {
        self.counters.done
    }

    /// Returns the number of outputs that were stored after later ones of their lane.
    pub(super) fn order_breaks(&self) -> u64 {
        self.counters.order_breaks
    }

    /// Returns the topic and the location of the last output stored after a later one, if any since the previous call.
    pub(super) fn take_order_break(&mut self) -> Option<(String, RecordMetadata)> {
        let record = self.order_break.take()?;
        Some((self.topic_name(record.topic).to_owned(), record))
    }

    pub(super) fn log_dropped_lines(&mut self) {
        self.dead_letters.log_dropped_lines();
    }

    /// Returns a snapshot for reports. `in_transactions`: outputs of committed transactions.
    pub(super) fn view(&self, in_transactions: u64) -> PublishingView {
        PublishingView {
            outputs_acknowledged: self.counters.outputs_acknowledged + in_transactions,
            order_breaks: self.counters.order_breaks,
            restamped: self.times.restamped(),
            removed_headers: self.counters.removed_headers,
            blocking_topic: self.blocking_topic().map(str::to_owned),
            backlog_bytes: self.backlog.bytes(),
            producer: self.sink.totals(),
        }
    }

    pub(super) fn topic_name(&self, topic: SinkTopic) -> &str {
        self.topics.get(topic.index()).map_or("?", String::as_str)
    }
}

fn remedy(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::MSG_SIZE_TOO_LARGE => "; emit smaller outputs, or raise the topic's `max.message.bytes`",
        _ => "",
    }
}
