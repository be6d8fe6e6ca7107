//! The format of dead letters, and the parts that are omitted from a dead letter that is too large.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keylane_core::{FailedEvent, Reason, Row};

use crate::admit::{Arena, ArenaRecord, Header};
use crate::config;
use crate::librdkafka::ErrorCode;
use crate::logging::{ClockedLineThrottle, LinePermit};
use crate::sink::{SinkRecord, SinkTopic};

use super::event_errors::EventErrors;
use super::reasons::name_of;

/// Maximum bytes of an error text in a header.
const ERROR_MAX: usize = 1024;
/// The first of Keylane's headers.
const REASON_HEADER: &[u8] = b"keylane-reason";
/// The header that counts earlier dead letters of an event.
const REDRIVES_HEADER: &[u8] = b"keylane-redrives";

/// Prefixes of Keylane's headers and of Spring's. The headers of an earlier dead letter are replaced.
const PREFIXES: [&[u8]; 2] = [b"keylane-", b"kafka_dlt-"];
/// The headers that mark an incomplete dead letter.
const OMITTED_HEADERS: [&[u8]; 3] =
    [b"keylane-value-omitted", b"keylane-key-omitted", b"keylane-headers-omitted"];
/// Maximum log lines a second about redriven events, and as many about dead letters that are too large.
const LINES_MAX: u32 = 2;

/// Formats the dead letters of one handler.
pub(super) struct DeadLetterFormat {
    handler: String,
    group: String,
    /// Names of the input topics, by their index.
    input_topics: Vec<String>,
    /// Dead-letter topics, as topics of the sink, by the index of the input topic.
    topics: Vec<SinkTopic>,
    spring: bool,
    alert_after_redrives: u32,
    events: EventErrors,
    redrive_lines: ClockedLineThrottle,
    size_lines: ClockedLineThrottle,
}

/// A dead letter that is not acknowledged. The event itself stays in the arena until it is.
#[derive(Debug)]
pub(super) struct PendingDeadLetter {
    event: Row,
    reason: Reason,
    attempt: u32,
    digest: Arc<str>,
    origin: Origin,
    error: String,
    published: String,
    /// The order value that was missing.
    expected: Option<i64>,
    /// Milliseconds since 1970.
    failed_at: i64,
    /// How often the event was dead-lettered before.
    redrives: u32,
    form: Form,
}

/// The parts of a dead letter that are sent. Each form is smaller than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Whole,
    /// Without those of Keylane's headers that a redrive does not need.
    Minimal,
    /// The key, the reason and the location of the original, without the value and the event's own headers.
    WithoutValue,
    /// The reason and the location of the original, without any part of the event.
    MetadataOnly,
}

/// Properties of an event's topic and timestamp that are not part of the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The topic's id; zeros if the brokers return none.
    pub(super) topic_id: [u8; 16],
    /// Whether the broker set the event's timestamp.
    pub(super) log_append_time: bool,
}

/// The content of a dead letter in addition to the event.
pub(super) struct Context<'a> {
    /// The digest of the component that was called with the event last, or would be called.
    pub(super) digest: Arc<str>,
    pub(super) origin: Origin,
    /// The error that the guest or the brokers returned.
    pub(super) error: &'a str,
    /// The stored outputs of the event.
    pub(super) published: String,
    /// The order value that was missing, if that is the reason.
    pub(super) expected: Option<i64>,
    /// Milliseconds since 1970.
    pub(super) now_ms: i64,
}

/// Headers that Keylane adds.
type KeylaneHeaders = Vec<(&'static str, Vec<u8>)>;

impl DeadLetterFormat {
    /// Creates the format of one handler. `topics`: the topics that the sink was started with.
    pub(super) fn new(handler: &config::HandlerConfig, topics: &[String]) -> Self {
        let index = |name: &String| {
            (0..).zip(topics).find(|(_, known)| *known == name).map(|(index, _)| SinkTopic(index))
        };
        let dead_letters = handler.dead_letters.as_ref();
        let known =
            |name: &String| index(name).expect("the sink was started with the topics of all dead letters");
        DeadLetterFormat {
            handler: handler.name.clone(),
            group: handler.group_id.clone(),
            input_topics: handler.topics.clone(),
            topics: dead_letters
                .map_or_else(Vec::new, |dead_letters| dead_letters.topics.iter().map(known).collect()),
            spring: dead_letters.is_some_and(|dead_letters| dead_letters.spring),
            alert_after_redrives: dead_letters.map_or(0, |dead_letters| dead_letters.alert_after_redrives),
            events: EventErrors::new(handler),
            redrive_lines: ClockedLineThrottle::new(LINES_MAX),
            size_lines: ClockedLineThrottle::new(LINES_MAX),
        }
    }

    /// Returns the errors of events that no guest has received.
    pub(super) fn events(&self) -> &EventErrors {
        &self.events
    }

    /// Returns the dead-letter topics, as topics of the sink.
    pub(super) fn topics(&self) -> impl Iterator<Item = SinkTopic> {
        self.topics.iter().copied()
    }

    /// Creates a dead letter in its largest form. [`DeadLetterFormat::lend`] writes it each time it is sent.
    pub(super) fn pending(
        &mut self,
        dead_letter: &FailedEvent,
        stored: &ArenaRecord<'_>,
        context: Context<'_>,
    ) -> PendingDeadLetter {
        let &FailedEvent { event, attempt, reason, .. } = dead_letter;
        let redrives = redrives(stored);
        if self.reaches_alert(redrives) {
            self.log_redrives(&event, redrives);
        }
        let Context { digest, origin, error, published, expected, now_ms: failed_at } = context;
        let (error, form) = (header_text(error), Form::Whole);
        PendingDeadLetter {
            event,
            reason,
            attempt,
            digest,
            origin,
            error,
            published,
            expected,
            failed_at,
            redrives,
            form,
        }
    }

    /// Calls `to` with a dead letter in its current form. The parts of the event that it contains are unchanged, byte
    /// for byte.
    pub(super) fn lend<T>(
        &self,
        pending: &PendingDeadLetter,
        arena: &Arena,
        to: impl FnOnce(&SinkRecord<'_>) -> T,
    ) -> T {
        let stored = arena.get(pending.event.arena_slot);
        let keylane_headers = self.keylane_headers(pending, &stored);
        let keylane_headers =
            keylane_headers.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_slice())));
        let event_headers = event_headers(&stored).filter(|_| pending.form <= Form::Minimal);
        let headers: Vec<Header<'_>> = event_headers.chain(keylane_headers).collect();
        to(&SinkRecord {
            topic: self.topic_of(pending),
            timestamp: None, // with an old timestamp the topic's retention could delete it at once
            key: stored.key.filter(|_| pending.form < Form::MetadataOnly),
            value: stored.value.filter(|_| pending.form <= Form::Minimal),
            headers: &headers,
        })
    }

    /// Changes a dead letter that is too large to its next smaller form. Returns false if there is none.
    pub(super) fn reduce(&mut self, pending: &mut PendingDeadLetter) -> bool {
        let Some(form) = pending.form.smaller() else { return false };
        pending.form = form;
        if let Some(LinePermit { dropped }) = self.size_lines.permit() {
            let (partition, offset) = (pending.event.partition.number, pending.event.offset);
            tracing::warn!(
                handler = self.handler,
                topic = self
                    .input_topics
                    .get(usize::from(pending.event.partition.topic))
                    .map_or("", String::as_str),
                partition,
                offset,
                ?form,
                dropped,
                remedy = "raise `max.message.bytes` of the dead-letter topic",
                "dead letter too large: parts are omitted"
            );
        }
        true
    }

    /// Logs that a dead-letter topic rejected a dead letter, which is retried.
    pub(super) fn log_rejected(&self, topic: &str, code: ErrorCode) {
        tracing::error!(
            handler = self.handler,
            topic,
            %code,
            remedy = "check why the topic rejects it; it is retried every few seconds",
            "dead letter rejected: its lane is blocked"
        );
    }

    /// Logs the number of lines dropped after the last one of each cause. Called at the end of the loop.
    pub(super) fn log_dropped_lines(&mut self) {
        for (cause, limit) in [("Redriven", &mut self.redrive_lines), ("TooLarge", &mut self.size_lines)] {
            let dropped = limit.take_dropped();
            if dropped > 0 {
                tracing::warn!(handler = self.handler, cause, dropped, "log lines dropped");
            }
        }
    }

    /// Returns the topic of a dead letter, as the index of a topic of the sink.
    pub(super) fn topic_of(&self, pending: &PendingDeadLetter) -> SinkTopic {
        let topic = self.topics.get(usize::from(pending.event.partition.topic)).copied();
        topic.expect("the core requests dead letters only if they have a topic")
    }

    fn reaches_alert(&self, redrives: u32) -> bool {
        redrives > 0 && redrives >= self.alert_after_redrives
    }

    fn log_redrives(&mut self, event: &Row, redrives: u32) {
        let Some(LinePermit { dropped }) = self.redrive_lines.permit() else { return };
        let topic = self.input_topics.get(usize::from(event.partition.topic)).map_or("", String::as_str);
        let (handler, offset, partition) = (&self.handler, event.offset, event.partition.number);
        tracing::error!(
            handler,
            topic,
            partition,
            offset,
            redrives,
            dropped,
            remedy = "find the cause before the next redrive",
            "redriven event dead-lettered again"
        );
    }

    /// Returns Keylane's headers in the current form. The reason comes first: it marks the beginning of the dead
    /// letter's headers.
    fn keylane_headers(&self, pending: &PendingDeadLetter, stored: &ArenaRecord<'_>) -> KeylaneHeaders {
        let event = &pending.event;
        let topic = self.input_topics.get(usize::from(event.partition.topic)).map_or("", String::as_str);
        let mut headers = KeylaneHeaders::new();
        let mut add = |name: &'static str, value: Vec<u8>| headers.push((name, value));
        let text = |value: &dyn ToString| value.to_string().into_bytes();
        add("keylane-reason", text(&name_of(pending.reason)));
        add("keylane-origin-topic", text(&topic));
        add("keylane-origin-partition", text(&event.partition.number));
        add("keylane-origin-offset", text(&event.offset));
        add("keylane-origin-timestamp", text(&event.timestamp));
        add("keylane-attempt", text(&pending.attempt));
        if pending.redrives > 0 {
            add("keylane-redrives", text(&pending.redrives));
        }
        let Row { timestamp, .. } = *event;
        if let Some(value) = self.events.order_value(pending.reason, stored, timestamp) {
            add("keylane-order-value", text(&value));
        }
        if let Some(expected) = pending.expected {
            add("keylane-gap-expected", text(&expected));
        }
        if pending.form > Form::Minimal {
            self.add_omitted(&mut add, pending, stored);
        }
        if pending.form > Form::Whole {
            return headers;
        }
        let time_type = time_type(event.timestamp, pending.origin.log_append_time);
        add("keylane-origin-timestamp-type", text(&time_type));
        add("keylane-error", text(&pending.error));
        add("keylane-failed-at", text(&pending.failed_at));
        add("keylane-handler", text(&self.handler));
        add("keylane-handler-digest", text(&pending.digest));
        add("keylane-group", text(&self.group));
        if !pending.published.is_empty() {
            add("keylane-published", text(&pending.published));
        }
        if self.reaches_alert(pending.redrives) {
            add("keylane-redrives-alert", text(&true));
        }
        if self.spring {
            self.add_spring_headers(&mut add, pending, topic, time_type);
        }
        headers
    }

    /// Adds the headers of an incomplete dead letter, from which the event can't be redriven. The id of the original's
    /// topic shows whether the location is still valid: the topic may have been recreated.
    fn add_omitted(
        &self,
        add: &mut dyn FnMut(&'static str, Vec<u8>),
        pending: &PendingDeadLetter,
        stored: &ArenaRecord<'_>,
    ) {
        if let Some(value) = stored.value {
            add("keylane-value-omitted", value.len().to_string().into_bytes());
        }
        if let Some(key) = stored.key.filter(|_| pending.form == Form::MetadataOnly) {
            add("keylane-key-omitted", key.len().to_string().into_bytes());
        }
        let headers = event_headers(stored).count();
        if headers > 0 {
            add("keylane-headers-omitted", headers.to_string().into_bytes());
        }
        if pending.origin.topic_id != [0; 16] {
            add("keylane-origin-topic-id", URL_SAFE_NO_PAD.encode(pending.origin.topic_id).into_bytes());
        }
    }

    /// Adds headers as Spring's `DeadLetterPublishingRecoverer` writes them: numbers are big-endian.
    fn add_spring_headers(
        &self,
        add: &mut dyn FnMut(&'static str, Vec<u8>),
        pending: &PendingDeadLetter,
        topic: &str,
        time_type: &str,
    ) {
        let event = &pending.event;
        add("kafka_dlt-original-topic", topic.as_bytes().to_vec());
        add("kafka_dlt-original-partition", event.partition.number.to_be_bytes().to_vec());
        add("kafka_dlt-original-offset", event.offset.to_be_bytes().to_vec());
        add("kafka_dlt-original-timestamp", event.timestamp.to_be_bytes().to_vec());
        add("kafka_dlt-original-timestamp-type", time_type.as_bytes().to_vec());
        add("kafka_dlt-original-consumer-group", self.group.clone().into_bytes());
        add("kafka_dlt-exception-fqcn", format!("keylane.{}", name_of(pending.reason)).into_bytes());
        add("kafka_dlt-exception-message", pending.error.as_bytes().to_vec());
    }
}

impl Form {
    fn smaller(self) -> Option<Form> {
        match self {
            Form::Whole => Some(Form::Minimal),
            Form::Minimal => Some(Form::WithoutValue),
            Form::WithoutValue => Some(Form::MetadataOnly),
            Form::MetadataOnly => None,
        }
    }
}

/// Returns the event's own headers. A redriven event has the headers of its dead letter behind its own. They are
/// removed, except those of an incomplete dead letter: only they record the missing parts and the location of the
/// original.
fn event_headers<'a>(stored: &ArenaRecord<'a>) -> impl Iterator<Item = Header<'a>> {
    let incomplete = is_incomplete(stored);
    let mut in_dead_letter = false;
    stored.headers.filter(move |(name, _)| {
        in_dead_letter |= *name == REASON_HEADER;
        incomplete || !(in_dead_letter && PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    })
}

fn is_incomplete(stored: &ArenaRecord<'_>) -> bool {
    stored.headers.into_iter().any(|(name, _)| OMITTED_HEADERS.contains(&name))
}

/// Returns whether a record was a dead letter before.
pub(in crate::app::event_loop) fn was_redriven(stored: &ArenaRecord<'_>) -> bool {
    stored.headers.into_iter().any(|(name, _)| name == REASON_HEADER)
}

/// Returns how often the event was dead-lettered before, according to its headers.
fn redrives(stored: &ArenaRecord<'_>) -> u32 {
    let (mut dead_letters, mut counted) = (0_u32, 0);
    for (name, value) in stored.headers {
        dead_letters = dead_letters.saturating_add(u32::from(name == REASON_HEADER));
        if name == REDRIVES_HEADER && dead_letters > 0 {
            let number = value.and_then(|value| str::from_utf8(value).ok()?.parse::<u32>().ok());
            counted = number.unwrap_or(counted);
        }
    }
    if dead_letters == 0 { 0 } else { dead_letters.max(counted.saturating_add(1)) }
}

/// Returns the timestamp type, as Kafka's own clients name it.
fn time_type(timestamp: i64, log_append_time: bool) -> &'static str {
    match (timestamp, log_append_time) {
        (..0, _) => "NoTimestampType",
        (_, true) => "LogAppendTime",
        (_, false) => "CreateTime",
    }
}

/// Converts an error to one line of at most [`ERROR_MAX`] bytes: tools that print or parse headers treat a line feed as
/// the end of a record.
pub(super) fn header_text(text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(ERROR_MAX)).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(arena: &mut Arena, headers: &[Header<'_>]) -> keylane_core::ArenaSlot {
        arena.store(None, None, headers.iter().copied(), false).0
    }

    #[test]
    fn headers_of_an_earlier_dead_letter_are_not_the_events_own() {
        let mut arena = Arena::default();
        let own: [Header<'_>; 2] = [(b"trace", Some(b"1")), (b"keylane-origin-topic", Some(b"upstream"))];
        let first = stored(&mut arena, &own);
        assert_eq!(event_headers(&arena.get(first)).collect::<Vec<_>>(), own, "provenance is its own");
        assert_eq!(redrives(&arena.get(first)), 0);
        let dead_letter: [Header<'_>; 3] = [
            (b"keylane-reason", Some(b"trap")),
            (b"keylane-origin-topic", Some(b"in")),
            (b"kafka_dlt-original-topic", Some(b"in")),
        ];
        let added_later: [Header<'_>; 1] = [(b"by-whom", None)];
        let put_back = stored(&mut arena, &[&own[..], &dead_letter, &added_later].concat());
        let left: Vec<_> = event_headers(&arena.get(put_back)).collect();
        assert_eq!(left, [&own[..], &added_later].concat());
        assert_eq!(redrives(&arena.get(put_back)), 1);
        let again: [Header<'_>; 2] = [(b"keylane-reason", Some(b"trap")), (b"keylane-redrives", Some(b"20"))];
        let put_back = stored(&mut arena, &again);
        assert_eq!(redrives(&arena.get(put_back)), 21);
        let forged: [Header<'_>; 2] = [(b"keylane-reason", None), (b"keylane-redrives", Some(b"4294967295"))];
        let put_back = stored(&mut arena, &forged);
        assert_eq!(redrives(&arena.get(put_back)), u32::MAX);
    }

    #[test]
    fn an_incomplete_dead_letter_stays_incomplete() {
        let mut arena = Arena::default();
        let dead_letter: [Header<'_>; 3] = [
            (b"keylane-reason", Some(b"trap")),
            (b"keylane-origin-offset", Some(b"7")),
            (b"keylane-value-omitted", Some(b"5000")),
        ];
        let handled_again = stored(&mut arena, &dead_letter);
        assert_eq!(event_headers(&arena.get(handled_again)).collect::<Vec<_>>(), dead_letter);
    }

    #[test]
    fn timestamp_types_have_kafkas_names() {
        let names = [(-1, false), (0, false), (7, true)].map(|(time, append)| time_type(time, append));
        assert_eq!(names, ["NoTimestampType", "CreateTime", "LogAppendTime"]);
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(header_text("unknown `a\nb`,\r\texpected"), "unknown `a b`,  expected");
        assert_eq!(header_text(&"ä".repeat(ERROR_MAX)).len(), ERROR_MAX);
    }
}
