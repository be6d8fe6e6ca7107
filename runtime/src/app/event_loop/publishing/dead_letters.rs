//! Dead letters: what is sent, what is left out if it is too large, and what is kept until the brokers have it
//! (SEMANTICS: outputs and dead letters).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keylane_core::{DeadLetter, Fault, Reason, Row};

use crate::admit::{Arena, Header, StoredRecord};
use crate::config;
use crate::sink::OutputRecord;
use crate::telemetry::LineLimit;

/// A reason of ours goes into a header.
const ERROR_MAX: usize = 1024;
/// The first of our headers.
const REASON_HEADER: &[u8] = b"keylane-reason";
/// How often an event was set aside before.
const REDRIVES_HEADER: &[u8] = b"keylane-redrives";

/// Our headers, and Spring's: those of an earlier letter are replaced, not joined by others.
const PREFIXES: [&[u8]; 2] = [b"keylane-", b"kafka_dlt-"];
/// What says that a letter is not whole.
const OMITTED_HEADERS: [&[u8]; 3] =
    [b"keylane-value-omitted", b"keylane-key-omitted", b"keylane-headers-omitted"];
/// Lines a second about events that were set aside before, and about letters that are too large: each.
const LINES_MAX: u32 = 2;

/// The dead letters of one handler.
pub(super) struct DeadLetterFormat {
    handler: String,
    group: String,
    digest: String,
    /// Names of the inputs, by their index.
    inputs: Vec<String>,
    /// Topics of the sink, by the index of the input.
    topics: Vec<u16>,
    spring: bool,
    max_redrives: u32,
    /// What is said of an event without a lane key: no guest saw it.
    no_key: String,
    redrive_lines: LineLimit,
    size_lines: LineLimit,
}

/// A dead letter under way. The event itself stays in the arena until the brokers have it.
#[derive(Debug)]
pub(super) struct PendingDeadLetter {
    event: Row,
    reason: Reason,
    attempt: u32,
    origin: Origin,
    error: String,
    published: String,
    /// Milliseconds since 1970.
    failed_at: i64,
    /// How often the event was set aside before.
    redrives: u32,
    form: Form,
}

/// What is left of an event. Each form is smaller than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Whole,
    /// Of our headers only those without which it could not be put back.
    Minimal,
    /// Only where the original is, and its key.
    WithoutValue,
    /// Only where the original is.
    MetadataOnly,
}

/// What is known of an event's topic and time beside the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The topic's id; zeros: the brokers do not tell it.
    pub(super) topic_id: [u8; 16],
    /// Its time is that of the broker which stored it.
    pub(super) log_append_time: bool,
}

/// What a dead letter says beside the event.
pub(super) struct Context<'a> {
    pub(super) origin: Origin,
    /// What the guest or the brokers said.
    pub(super) error: &'a str,
    /// Outputs of the event that the brokers have.
    pub(super) published: String,
    /// Milliseconds since 1970.
    pub(super) now_ms: i64,
}

/// Our headers.
type Added = Vec<(&'static str, Vec<u8>)>;

impl DeadLetterFormat {
    /// `topics`: those that the sink was started with.
    pub(super) fn new(handler: &config::HandlerConfig, digest: &str, topics: &[String]) -> Self {
        let index =
            |name: &String| (0..).zip(topics).find(|(_, known)| *known == name).map(|(index, _)| index);
        let letters = handler.dead_letters.as_ref();
        let known =
            |name: &String| index(name).expect("the sink was started with the topics of all dead letters");
        DeadLetterFormat {
            handler: handler.name.clone(),
            group: handler.group_id.clone(),
            digest: digest.to_owned(),
            inputs: handler.topics.clone(),
            topics: letters.map_or_else(Vec::new, |letters| letters.topics.iter().map(known).collect()),
            spring: letters.is_some_and(|letters| letters.spring),
            max_redrives: letters.map_or(0, |letters| letters.max_redrives),
            no_key: format!("it has no lane key: `{}` finds none", handler.lanes.lane_key),
            redrive_lines: LineLimit::new(LINES_MAX),
            size_lines: LineLimit::new(LINES_MAX),
        }
    }

    /// What is said of an event without a lane key.
    pub(super) fn no_key(&self) -> &str {
        &self.no_key
    }

    /// Where they go, by topic of the sink.
    pub(super) fn topics(&self) -> impl Iterator<Item = u16> {
        self.topics.iter().copied()
    }

    /// A dead letter in its largest form. [`DeadLetterFormat::lend`] writes it each time it is sent.
    pub(super) fn pending(
        &mut self,
        dead_letter: &DeadLetter,
        stored: &StoredRecord<'_>,
        context: Context<'_>,
    ) -> PendingDeadLetter {
        let &DeadLetter { event, attempt, reason, .. } = dead_letter;
        let redrives = redrives(stored);
        if self.is_exceeded(redrives) {
            self.log_exceeded(&event, redrives);
        }
        let Context { origin, error, published, now_ms: failed_at } = context;
        let (error, form) = (cut(error).to_owned(), Form::Whole);
        PendingDeadLetter { event, reason, attempt, origin, error, published, failed_at, redrives, form }
    }

    /// Lends a dead letter for sending, in its present form. The event's own key, value and headers are in it byte for byte.
    pub(super) fn lend<T>(
        &self,
        pending: &PendingDeadLetter,
        arena: &Arena,
        to: impl FnOnce(&OutputRecord<'_>) -> T,
    ) -> T {
        let stored = arena.get(pending.event.arena_slot);
        let added = self.added(pending, &stored);
        let own = own_headers(&stored).filter(|_| pending.form <= Form::Minimal);
        let headers: Vec<Header<'_>> =
            own.chain(added.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_slice())))).collect();
        to(&OutputRecord {
            topic: self.topic_of(pending),
            timestamp: None, // with an old time it would be deleted at once
            key: stored.key.filter(|_| pending.form < Form::MetadataOnly),
            value: stored.value.filter(|_| pending.form <= Form::Minimal),
            headers: &headers,
        })
    }

    /// The brokers don't take it: it has a smaller form from now on. False: there is none.
    pub(super) fn reduce(&mut self, pending: &mut PendingDeadLetter) -> bool {
        let Some(form) = pending.form.smaller() else { return false };
        pending.form = form;
        if let Some(dropped) = self.size_lines.allow() {
            let (partition, offset) = (pending.event.partition.number, pending.event.offset);
            tracing::warn!(
                handler = self.handler,
                topic =
                    self.inputs.get(usize::from(pending.event.partition.topic)).map_or("", String::as_str),
                partition,
                offset,
                ?form,
                dropped,
                remedy = "raise `max.message.bytes` of the topic of dead letters",
                "dead letter too large: parts are left out"
            );
        }
        true
    }

    /// Where it goes, as the index of the sink's topic.
    pub(super) fn topic_of(&self, pending: &PendingDeadLetter) -> u16 {
        let topic = self.topics.get(usize::from(pending.event.partition.topic)).copied();
        topic.expect("dead letters are asked for only where they have a topic")
    }

    fn is_exceeded(&self, redrives: u32) -> bool {
        redrives > 0 && redrives >= self.max_redrives
    }

    fn log_exceeded(&mut self, event: &Row, redrives: u32) {
        let Some(dropped) = self.redrive_lines.allow() else { return };
        let topic = self.inputs.get(usize::from(event.partition.topic)).map_or("", String::as_str);
        let (handler, offset, partition) = (&self.handler, event.offset, event.partition.number);
        tracing::error!(
            handler,
            topic,
            partition,
            offset,
            redrives,
            dropped,
            "an event was set aside again: see why before it is put back once more"
        );
    }

    /// Our headers in the present form. Those without which the event could not be found come first.
    fn added(&self, pending: &PendingDeadLetter, stored: &StoredRecord<'_>) -> Added {
        let event = &pending.event;
        let topic = self.inputs.get(usize::from(event.partition.topic)).map_or("", String::as_str);
        let mut added = Added::new();
        let mut add = |name: &'static str, value: Vec<u8>| added.push((name, value));
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
        if pending.form > Form::Minimal {
            self.add_omitted(&mut add, pending, stored);
        }
        if pending.form > Form::Whole {
            return added;
        }
        let time_type = time_type(event.timestamp, pending.origin.log_append_time);
        add("keylane-origin-timestamp-type", text(&time_type));
        add("keylane-error", text(&pending.error));
        add("keylane-failed-at", text(&pending.failed_at));
        add("keylane-handler", text(&self.handler));
        add("keylane-handler-digest", text(&self.digest));
        add("keylane-group", text(&self.group));
        if !pending.published.is_empty() {
            add("keylane-published", text(&pending.published));
        }
        if self.is_exceeded(pending.redrives) {
            add("keylane-redrives-exceeded", text(&true));
        }
        if self.spring {
            self.add_spring_headers(&mut add, pending, topic, time_type);
        }
        added
    }

    /// Such a letter can't be put back as it is. Where the original is counts only while its topic is the same one.
    fn add_omitted(
        &self,
        add: &mut dyn FnMut(&'static str, Vec<u8>),
        pending: &PendingDeadLetter,
        stored: &StoredRecord<'_>,
    ) {
        if let Some(value) = stored.value {
            add("keylane-value-omitted", value.len().to_string().into_bytes());
        }
        if let Some(key) = stored.key.filter(|_| pending.form == Form::MetadataOnly) {
            add("keylane-key-omitted", key.len().to_string().into_bytes());
        }
        let headers = own_headers(stored).count();
        if headers > 0 {
            add("keylane-headers-omitted", headers.to_string().into_bytes());
        }
        if pending.origin.topic_id != [0; 16] {
            add("keylane-origin-topic-id", URL_SAFE_NO_PAD.encode(pending.origin.topic_id).into_bytes());
        }
    }

    /// As Spring's `DeadLetterPublishingRecoverer` writes them: numbers are big-endian.
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

/// An event that was put back carries the headers of its letter, behind its own: those are not its own. Those of a letter
/// with something left out stay: only they say that, and where the rest is.
fn own_headers<'a>(stored: &StoredRecord<'a>) -> impl Iterator<Item = Header<'a>> {
    let incomplete = is_incomplete(stored);
    let mut in_letter = false;
    stored.headers.filter(move |(name, _)| {
        in_letter |= *name == REASON_HEADER;
        incomplete || !(in_letter && PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    })
}

fn is_incomplete(stored: &StoredRecord<'_>) -> bool {
    stored.headers.into_iter().any(|(name, _)| OMITTED_HEADERS.contains(&name))
}

/// How often the event was set aside before, as its headers tell.
fn redrives(stored: &StoredRecord<'_>) -> u32 {
    let (mut letters, mut counted) = (0_u32, 0);
    for (name, value) in stored.headers {
        letters = letters.saturating_add(u32::from(name == REASON_HEADER));
        if name == REDRIVES_HEADER && letters > 0 {
            let number = value.and_then(|value| str::from_utf8(value).ok()?.parse::<u32>().ok());
            counted = number.unwrap_or(counted);
        }
    }
    if letters == 0 { 0 } else { letters.max(counted.saturating_add(1)) }
}

/// As Kafka's own clients call it.
fn time_type(timestamp: i64, log_append_time: bool) -> &'static str {
    match (timestamp, log_append_time) {
        (..0, _) => "NoTimestampType",
        (_, true) => "LogAppendTime",
        (_, false) => "CreateTime",
    }
}

/// As it stands in headers and counters.
pub(in crate::app::event_loop) fn name_of(reason: Reason) -> &'static str {
    match reason {
        Reason::RetriesExhausted => "retries-exhausted",
        Reason::Rejected => "rejected",
        Reason::TooOld => "too-old",
        Reason::OutputRefused => "output-refused",
        Reason::NoKey => "no-key",
        Reason::Fault(Fault::Trap) => "trap",
        Reason::Fault(Fault::Timeout) => "timeout",
        Reason::Fault(Fault::Cpu) => "cpu",
        Reason::Fault(Fault::Memory) => "memory",
        Reason::Fault(Fault::Stack) => "stack",
        Reason::Fault(Fault::Limit) => "limit",
        Reason::Fault(Fault::Contract) => "contract",
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ERROR_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(arena: &mut Arena, headers: &[Header<'_>]) -> keylane_core::ArenaSlot {
        arena.store(None, None, headers.iter().copied(), false).0
    }

    #[test]
    fn headers_of_an_earlier_letter_are_not_the_events_own() {
        let mut arena = Arena::default();
        let own: [Header<'_>; 2] = [(b"trace", Some(b"1")), (b"keylane-origin-topic", Some(b"upstream"))];
        let first = stored(&mut arena, &own);
        assert_eq!(own_headers(&arena.get(first)).collect::<Vec<_>>(), own, "provenance is its own");
        assert_eq!(redrives(&arena.get(first)), 0);
        let letter: [Header<'_>; 3] = [
            (b"keylane-reason", Some(b"trap")),
            (b"keylane-origin-topic", Some(b"in")),
            (b"kafka_dlt-original-topic", Some(b"in")),
        ];
        let added_later: [Header<'_>; 1] = [(b"by-whom", None)];
        let put_back = stored(&mut arena, &[&own[..], &letter, &added_later].concat());
        let left: Vec<_> = own_headers(&arena.get(put_back)).collect();
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
    fn an_incomplete_letter_stays_one() {
        let mut arena = Arena::default();
        let letter: [Header<'_>; 3] = [
            (b"keylane-reason", Some(b"trap")),
            (b"keylane-origin-offset", Some(b"7")),
            (b"keylane-value-omitted", Some(b"5000")),
        ];
        let handled_again = stored(&mut arena, &letter);
        assert_eq!(own_headers(&arena.get(handled_again)).collect::<Vec<_>>(), letter);
    }

    #[test]
    fn times_have_the_names_that_kafka_gives_them() {
        let names = [(-1, false), (0, false), (7, true)].map(|(time, append)| time_type(time, append));
        assert_eq!(names, ["NoTimestampType", "CreateTime", "LogAppendTime"]);
    }
}
