//! From the outputs of an ended call, and from events that can't be handled, to the acks that the lanes wait for.

mod acks;
mod backlog;
mod dead_letters;
mod errors;
mod invalid_rows;
mod provenance;
mod rejected_dead_letters;
mod revoked;
mod times;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use keylane_core::{CallId, DeadLetter, Dispatch, Reason};

use crate::admit::Arena;
use crate::config::{self, OutputTime};
use crate::guest::{Call, GuestOutput};
use crate::librdkafka::ErrorCode;
use crate::sink::{
    self, Delivery, DeliveryError, OwnedRecord, ProduceError, RecordMetadata, RecordSize, Sink, Token,
    Unpublishable,
};

use acks::{Acks, Answered};
use backlog::{Backlog, QueuedItem};
pub(super) use dead_letters::name_of;
use dead_letters::{Context, Origin, PendingDeadLetters};
pub(super) use errors::ErrorTexts;
use invalid_rows::Lanes;
use provenance::Provenance;
use rejected_dead_letters::RejectedDeadLetters;
use revoked::RevokedRows;
use times::Times;

/// Hands outputs and dead letters to the producer in their order, and tells when all of a row have arrived.
pub(super) struct Outputs {
    sink: Arc<Sink>,
    /// Names this loop to the sink.
    handler: u16,
    targets: Vec<Target>,
    /// Names of the sink's topics.
    topics: Vec<String>,
    provenance: Provenance,
    times: Times,
    letters: PendingDeadLetters,
    acks: Acks,
    backlog: Backlog,
    /// Rows whose ownership is over: what is left of them here is to be forgotten.
    revoked: RevokedRows,
    rejected_dead_letters: RejectedDeadLetters,
    /// What is to be told when it is asked for next.
    events: VecDeque<OutputEvent>,
    /// What was said about events that are not done.
    pub(super) texts: ErrorTexts,
    done: u64,
    emitted: u64,
    /// Outputs that were sent again and landed behind later ones of their lane, and where the last one did.
    order_breaks: u64,
    broken_at: Option<RecordMetadata>,
}

/// Something became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputEvent {
    /// The brokers have all its outputs.
    Acked(CallId, u32),
    /// They refuse one of them, and have answered for all.
    Refused(CallId, u32),
    /// They have its dead letter.
    DeadLetterAcked(CallId, u32),
}

/// Where a target leads.
struct Target {
    topic: u16,
    provenance: bool,
    time: OutputTime,
}

impl Outputs {
    /// `topics`: those that the sink was started with; `backlog_bytes`: with more of them waiting no call should begin.
    pub(super) fn new(
        sink: Arc<Sink>,
        index: u16,
        handler: &config::HandlerConfig,
        topics: &[String],
        digest: &str,
        backlog_bytes: usize,
    ) -> Self {
        let topic =
            |name: &String| (0..).zip(topics).find(|(_, known)| *known == name).map(|(index, _)| index);
        let target = |output: &config::OutputConfig| Target {
            topic: topic(&output.topic).expect("the sink was started with the topics of every output"),
            provenance: output.provenance,
            time: output.timestamp,
        };
        let targets: Vec<Target> = handler.outputs.iter().map(target).collect();
        let wanted = targets.iter().any(|target| target.provenance);
        let letters = PendingDeadLetters::new(handler, digest, topics);
        letters.topics().filter(|topic| sink.is_compacted(*topic)).for_each(|topic| {
            let topic = topics.get(usize::from(topic)).map_or("?", String::as_str);
            tracing::warn!(
                handler = handler.name,
                topic,
                remedy = "give it `cleanup.policy=delete`",
                "the topic of dead letters is compacted: it keeps one letter per key, and takes none without a key, so \
                 that the lane of such an event would stand still"
            );
        });
        Outputs {
            sink,
            handler: index,
            targets,
            topics: topics.to_vec(),
            provenance: Provenance::new(digest, wanted),
            times: Times::default(),
            letters,
            acks: Acks::default(),
            backlog: Backlog::new(topics.len(), backlog_bytes),
            revoked: RevokedRows::default(),
            rejected_dead_letters: RejectedDeadLetters::default(),
            events: VecDeque::new(),
            texts: ErrorTexts::default(),
            done: 0,
            emitted: 0,
            order_breaks: 0,
            broken_at: None,
        }
    }

    /// Bytes of the largest record that one of the handler's output topics is known to take.
    pub(super) fn largest_taken(&self) -> usize {
        self.targets.iter().map(|target| self.sink.largest_taken(target.topic)).max().unwrap_or(0)
    }

    /// A call goes to the guest: its outputs will say where they come from.
    pub(super) fn remember(&mut self, dispatch: &Dispatch<'_>) {
        self.provenance.remember(dispatch);
    }

    /// Hands over the outputs of these rows, ascending; those of other rows are dropped.
    pub(super) fn hand_over(&mut self, call: &Call, rows: &[u32], arena: &Arena, now_ms: i64) {
        let mut wanted = rows.iter().copied().peekable();
        let mut lanes = Lanes::of(call);
        let mut index_in_row = 0;
        let mut row_before = None;
        let mut refused = Vec::new();
        for (index, output) in (0..).zip(call.results.outputs()) {
            index_in_row = if row_before == Some(output.row) { index_in_row + 1 } else { 0 };
            row_before = Some(output.row);
            while wanted.next_if(|&row| row < output.row).is_some() {}
            if wanted.peek() == Some(&output.row) {
                let (lane, _) = lanes.find(output.row);
                let token = Token {
                    handler: self.handler,
                    call: call.key.call,
                    row: output.row,
                    lane,
                    output: index,
                    letter: false,
                };
                let handed_over = self.produce(call, &output, (index_in_row, now_ms), token);
                refused.extend(handed_over.err().map(|error| (token, error)));
            }
        }
        // Not before all outputs of their rows are counted.
        for (token, error) in refused {
            self.refused(token, error, arena);
        }
    }

    /// Sends an event to the dead letters. `topic_id`: that of its topic.
    pub(super) fn dead_letter(
        &mut self,
        letter: &DeadLetter,
        arena: &Arena,
        topic_id: [u8; 16],
        now_ms: i64,
    ) {
        let (call, row, stored) = (letter.call, letter.row, arena.get(letter.event.arena_slot));
        let origin = Origin { topic_id, log_append_time: stored.log_append_time };
        let error = self.error_of(call, row, letter.reason).to_owned();
        let published = self.acks.published(call, row, &self.topics);
        self.letters.write(letter, &stored, Context { origin, error: &error, published, now_ms });
        let token = Token { handler: self.handler, call, row, lane: 0, output: 0, letter: true };
        self.send_dead_letter(token, arena);
    }

    /// What was said about an event that has this ending.
    pub(super) fn error_of(&self, call: CallId, row: u32, reason: Reason) -> &str {
        if reason == Reason::NoKey {
            return self.letters.no_key();
        }
        self.texts.of(call, row)
    }

    /// The ownership of these rows is over: see [`Outputs::discard_revoked`].
    pub(super) fn revoked(&mut self, call: CallId, rows: Range<u32>) {
        self.revoked.add(call, rows);
    }

    /// Drops what has not left of rows whose ownership is over. Whoever owns their partition now runs their events, and
    /// what came later would land behind that.
    pub(super) fn discard_revoked(&mut self) {
        if self.revoked.is_empty() {
            return;
        }
        let revoked = std::mem::take(&mut self.revoked);
        self.backlog.forget(&revoked);
        self.letters.forget(|call, row| revoked.contains(call, row));
        self.rejected_dead_letters.forget(&revoked);
        self.sink.forget(self.handler, &|token| revoked.contains(token.call, token.row));
    }

    /// The topic for which so much waits that no more calls begin.
    pub(super) fn blocking_topic(&self) -> Option<&str> {
        self.backlog.fullest().and_then(|topic| self.topics.get(topic)).map(String::as_str)
    }

    /// Whether so much waits for the producer that no more calls should begin.
    pub(super) fn is_backlog_full(&mut self) -> bool {
        self.backlog.is_full()
    }

    /// Tries again what the producer had no room for, and dead letters that were refused. True: something of it went
    /// out.
    pub(super) fn produce_backlog(&mut self, arena: &Arena) -> bool {
        self.discard_revoked();
        if let Some(token) = self.rejected_dead_letters.probe() {
            self.send_dead_letter(token, arena);
        }
        let mut refused = Vec::new();
        let Outputs { backlog, sink, letters, .. } = self;
        let moved = backlog.hand_over(
            |what, token| match what {
                QueuedItem::Output(record) => record.lend(|output| sink.produce(output, token)),
                QueuedItem::PendingDeadLetter => {
                    let produced =
                        letters.lend((token.call, token.row), arena, |output| sink.produce(output, token));
                    produced.unwrap_or(Ok(())) // nobody waits for it any more
                }
            },
            |token, error| refused.push((token, error)),
        );
        for (token, error) in refused {
            if let ProduceError::Refused(error) = error {
                self.refused(token, error, arena);
            }
        }
        moved
    }

    /// Takes a report.
    pub(super) fn take(&mut self, delivery: &Delivery, arena: &Arena) {
        self.discard_revoked(); // their events are not in the arena any more
        let Token { call, row, letter, .. } = delivery.token;
        match delivery.result {
            Err(error) => self.refused(delivery.token, error, arena),
            Ok(_) if letter => {
                self.letters.acknowledged(call, row);
                self.events.push_back(OutputEvent::DeadLetterAcked(call, row));
                for token in self.rejected_dead_letters.acknowledged(delivery.token) {
                    self.send_dead_letter(token, arena);
                }
            }
            Ok(acknowledged) => {
                self.emitted += 1;
                if delivery.restamped {
                    self.times.restamped();
                }
                if delivery.again && self.acks.was_overtaken(&delivery.token, acknowledged) {
                    self.order_breaks += 1;
                    self.broken_at = Some(acknowledged);
                }
                let answered = self.acks.acked(&delivery.token, acknowledged);
                self.hear(call, row, answered);
            }
        }
    }

    /// The next thing that became of a row.
    pub(super) fn next_event(&mut self) -> Option<OutputEvent> {
        self.events.pop_front()
    }

    pub(super) fn count_done(&mut self, call: &Call) {
        let done: u32 = call.results.lane_ends().iter().map(|lane| lane.done).sum();
        self.done += u64::from(done);
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn emitted(&self) -> u64 {
        self.emitted
    }

    /// Outputs that landed behind later ones of their lane.
    pub(super) fn order_breaks(&self) -> u64 {
        self.order_breaks
    }

    /// Outputs that carry the time of sending because their topics refuse that of their events.
    pub(super) fn restamped(&self) -> u64 {
        self.times.count_restamped()
    }

    /// The topic, and place there, of the last one since this was asked before.
    pub(super) fn broken_at(&mut self) -> Option<(String, RecordMetadata)> {
        let acknowledged = self.broken_at.take()?;
        Some((self.topic_name(acknowledged.topic).to_owned(), acknowledged))
    }

    fn topic_name(&self, topic: u16) -> &str {
        self.topics.get(usize::from(topic)).map_or("?", String::as_str)
    }

    fn target(&self, output: &GuestOutput<'_>) -> &Target {
        let target = self.targets.get(output.target as usize);
        target.expect("results are checked against the targets of the handler")
    }

    /// The error: the client will never take it.
    fn produce(
        &mut self,
        call: &Call,
        output: &GuestOutput<'_>,
        (index_in_row, now_ms): (u32, i64),
        token: Token,
    ) -> Result<(), DeliveryError> {
        let &Target { topic, provenance, time } = self.target(output);
        let event_time = call.batch.timestamp(output.row as usize);
        let mut record = OwnedRecord {
            topic,
            timestamp: self.times.of(time, (&self.sink, topic), event_time, now_ms),
            key: output.key.map(<[u8]>::to_vec),
            value: output.value.map(<[u8]>::to_vec),
            headers: output
                .headers()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        };
        if provenance {
            self.provenance.add_to(&mut record.headers, call, output.row, index_in_row);
        }
        self.acks.add(token.call, token.row);
        self.send(record, token)
    }

    fn send(&mut self, record: OwnedRecord, token: Token) -> Result<(), DeliveryError> {
        let tried = if self.backlog.is_empty(record.topic) {
            record.lend(|output| self.sink.produce(output, token))
        } else {
            Err(ProduceError::Full)
        };
        match tried {
            Ok(()) => Ok(()),
            Err(ProduceError::Full) => {
                self.backlog.push(record, token);
                Ok(())
            }
            Err(ProduceError::Refused(error)) => Err(error),
        }
    }

    /// Sends a dead letter, in the largest form that its topic is known to take.
    fn send_dead_letter(&mut self, token: Token, arena: &Arena) {
        let Outputs { sink, letters, backlog, .. } = self;
        let key = (token.call, token.row);
        let Some(topic) = letters.topic(token.call, token.row) else { return };
        loop {
            let fits = |output: &sink::OutputRecord<'_>| {
                !matches!(
                    sink.check(topic, RecordSize::of(output)),
                    Err(Unpublishable::TooLargeForTopic { .. } | Unpublishable::TooLargeForClient { .. })
                )
            };
            if letters.lend(key, arena, fits).is_none_or(|fits| fits)
                || !letters.reduce(token.call, token.row)
            {
                break;
            }
        }
        let may_go = backlog.is_empty(topic);
        let sent = letters.lend(key, arena, |output| {
            let sent = if may_go { sink.produce(output, token) } else { Err(ProduceError::Full) };
            (sent, output.memory())
        });
        match sent {
            None | Some((Ok(()), _)) => {}
            Some((Err(ProduceError::Full), bytes)) => backlog.push_dead_letter(topic, token, bytes),
            Some((Err(ProduceError::Refused(error)), _)) => self.dead_letter_rejected(token, error, arena),
        }
    }

    /// The brokers, or the client, will never take this record.
    fn refused(&mut self, token: Token, error: DeliveryError, arena: &Arena) {
        let Token { call, row, letter, .. } = token;
        if letter {
            return self.dead_letter_rejected(token, error, arena);
        }
        let topic = self.topic_name(error.topic);
        let text = format!("topic `{topic}` refuses the output: {}{}", error.code, remedy(error.code));
        self.texts.add(call, row, text);
        let answered = self.acks.refused(&token);
        self.hear(call, row, answered);
    }

    /// A letter that is too large becomes smaller. Whatever else is wrong with it: it is not for us to pass the event.
    fn dead_letter_rejected(&mut self, token: Token, error: DeliveryError, arena: &Arena) {
        let Token { call, row, .. } = token;
        let too_large =
            matches!(error.code, ErrorCode::MSG_SIZE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE);
        if too_large && self.letters.reduce(call, row) {
            return self.send_dead_letter(token, arena);
        }
        let Some(topic) = self.letters.topic(call, row) else { return };
        if self.rejected_dead_letters.add(token) {
            tracing::error!(
                topic = self.topic_name(topic),
                code = %error.code,
                remedy = "see why the topic does not take it; it is sent again now and then",
                "a dead letter is refused: its lane stands still"
            );
        }
    }

    fn hear(&mut self, call: CallId, row: u32, answered: Option<Answered>) {
        self.events.extend(answered.map(|answered| match answered {
            Answered::Acked => OutputEvent::Acked(call, row),
            Answered::Refused => OutputEvent::Refused(call, row),
        }));
    }
}

fn remedy(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::MSG_SIZE_TOO_LARGE => "; emit less, or raise the topic's `max.message.bytes`",
        _ => "",
    }
}
