//! Transactional delivery: copies the outputs and dead letters of settled events, which are kept until a transaction
//! publishes them.

use std::ops::Range;
use std::sync::Arc;

use keylane_core::{FailedEvent, KeptEffect, KeptEffects, Reason};

use crate::admit::{Arena, Header};
use crate::app::event_loop::{Calling, Reading};
use crate::guest::{Call, GuestOutput};
use crate::sink::{RecordBatch, RecordSize, Sink, SinkRecord, Unpublishable, packed_bytes};
use crate::source::Source;

use super::Publishing;
use super::dead_letters::{Context, Origin};
use super::order_values::OrderHeader;
use super::provenance::{self, ProvenanceHeaders};
use super::targets::Target;

/// What the copies depend on besides the events.
pub(in crate::app::event_loop) struct EffectContext<'a> {
    source: &'a Source,
    reading: &'a Reading,
    arena: &'a Arena,
    /// The digest of the component that would be called, for an event without a call.
    digest: &'a Arc<str>,
    /// Milliseconds since 1970.
    now_ms: i64,
}

impl<'a> EffectContext<'a> {
    pub(in crate::app::event_loop) fn new(
        source: &'a Source,
        reading: &'a Reading,
        calling: &'a Calling,
        now_ms: i64,
    ) -> Self {
        EffectContext { source, reading, arena: reading.arena(), digest: calling.digest(), now_ms }
    }
}

/// Copied records, with the range of each event's.
pub(in crate::app::event_loop) type CopiedEffects = (RecordBatch, Vec<Range<usize>>);

impl Publishing {
    /// Returns the producer, which knows the limits of topics.
    pub(in crate::app::event_loop) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Returns the memory that the outputs of each row with effects will take, in the order of the rows.
    pub(in crate::app::event_loop) fn output_bytes(&self, ended: &Call, bytes: &mut Vec<u32>) {
        bytes.clear();
        let mut outputs = ended.results.outputs().peekable();
        for row in ended.results.rows_with_effects() {
            let mut of_row = 0_u32;
            while let Some(output) = outputs.next_if(|output| output.row <= *row) {
                let size = RecordSize::new(output.key, output.value);
                let size =
                    output.headers().fold(size, |size, (name, value)| size.with(name.as_bytes(), value));
                let order_header = self.order_values.header(&output, self.calls.get(ended.key.call));
                let size = order_header.iter().fold(size, OrderHeader::add_to);
                let extra = if self.target(&output).provenance { provenance::BYTES_MAX } else { 0 };
                let of_output = u32::try_from(packed_bytes(size) + extra).unwrap_or(u32::MAX);
                of_row = of_row.saturating_add(of_output);
            }
            bytes.push(of_row);
        }
    }

    /// Copies the effects of settled events. `ended`: the call whose end is handled now.
    pub(in crate::app::event_loop) fn copy_effects(
        &mut self,
        ended: Option<&Call>,
        effects: &[KeptEffects],
        context: &EffectContext<'_>,
    ) -> CopiedEffects {
        let mut batch = RecordBatch::default();
        let mut ranges = Vec::with_capacity(effects.len());
        let mut outputs = ended.into_iter().flat_map(|ended| ended.results.outputs()).peekable();
        for kept in effects {
            let first = batch.len();
            match kept.effect {
                KeptEffect::Outputs => {
                    let ended = ended.filter(|ended| ended.key.call == kept.call);
                    let ended = ended.expect("outputs are kept while the end of their call is handled");
                    while outputs.next_if(|output| output.row < kept.row).is_some() {}
                    let mut index_in_row = 0;
                    while let Some(output) = outputs.next_if(|output| output.row == kept.row) {
                        self.copy_output(ended, &output, (index_in_row, context.now_ms), &mut batch);
                        index_in_row += 1;
                    }
                }
                KeptEffect::DeadLetter(reason) => self.copy_dead_letter(kept, reason, context, &mut batch),
            }
            ranges.push(first..batch.len());
        }
        (batch, ranges)
    }

    fn copy_output(
        &mut self,
        ended: &Call,
        output: &GuestOutput<'_>,
        (index_in_row, now_ms): (u32, i64),
        batch: &mut RecordBatch,
    ) {
        let Target { topic, provenance, time } = *self.target(output);
        let timestamp =
            self.times.of(time, (&self.sink, topic), ended.batch.timestamp(output.row as usize), now_ms);
        let pending_call = self.calls.get(ended.key.call);
        let provenance_headers =
            provenance.then(|| self.provenance.headers(ended, pending_call, output.row, index_in_row));
        let headers = output.headers().map(|(name, value)| (name.as_bytes(), value));
        let order_header = self.order_values.header(output, pending_call);
        let headers: Vec<Header<'_>> = headers
            .chain(order_header.iter().map(OrderHeader::get))
            .chain(provenance_headers.iter().flat_map(ProvenanceHeaders::iter))
            .collect();
        batch.push(&SinkRecord { topic, timestamp, key: output.key, value: output.value, headers: &headers });
    }

    fn copy_dead_letter(
        &mut self,
        kept: &KeptEffects,
        reason: Reason,
        context: &EffectContext<'_>,
        batch: &mut RecordBatch,
    ) {
        let &KeptEffects { call, row, event, attempt, .. } = kept;
        let stored = context.arena.get(event.arena_slot);
        let topic_id = context.source.topic_id(event.partition);
        let origin = Origin { topic_id, log_append_time: stored.log_append_time };
        let error = self.error_of(call, row, reason).to_owned();
        let digest = self.calls.get(call).and_then(|pending_call| pending_call.digest.clone());
        let digest = digest.unwrap_or_else(|| context.digest.clone());
        let failed = FailedEvent { call, row, event, attempt, reason };
        let expected =
            (reason == Reason::Gap).then(|| context.reading.expected_value(event.arena_slot)).flatten();
        let published = String::new();
        let details = Context { digest, origin, error: &error, published, expected, now_ms: context.now_ms };
        let Publishing { sink, dead_letters, .. } = self;
        let mut pending = dead_letters.pending(&failed, &stored, details);
        let topic = dead_letters.topic_of(&pending);
        let fits = |record: &SinkRecord<'_>| {
            !matches!(
                sink.check(topic, RecordSize::of(record)),
                Err(Unpublishable::TooLargeForTopic { .. } | Unpublishable::TooLargeForClient { .. })
            )
        };
        while !dead_letters.lend(&pending, context.arena, fits) && dead_letters.reduce(&mut pending) {}
        dead_letters.lend(&pending, context.arena, |record| batch.push(record));
    }
}
