//! Dead letters: what is sent, what is left out if it is too large, and what is kept until the brokers have it
//! (SEMANTICS: outputs and dead letters).

use std::collections::HashMap;

use keylane_core::{CallId, DeadLetter, Fault, Reason};

use crate::admit::StoredRecord;
use crate::config;
use crate::sink::Record;

/// A reason of ours goes into a header.
const ERROR_MAX: usize = 1024;
/// Tells how often an event was set aside before: each time adds one.
const REASON_HEADER: &[u8] = b"keylane-reason";

/// The dead letters of one handler.
pub(in crate::app) struct Letters {
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
    /// On their way.
    sent: HashMap<(CallId, u32), Sent>,
}

struct Sent {
    record: Record,
    /// So many of its headers are the event's own; those behind them are ours.
    own_headers: usize,
    form: Form,
}

/// What is left of an event. Each form is smaller than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    /// Of our headers only those without which it could not be put back.
    Lean,
    /// Only where the original is, and its key.
    WithoutValue,
    /// Only where the original is.
    Stub,
}

/// What a dead letter says beside the event.
pub(in crate::app) struct Context<'a> {
    /// What the guest or the brokers said.
    pub(in crate::app) error: &'a str,
    /// Outputs of the event that the brokers have.
    pub(in crate::app) published: String,
    /// Milliseconds since 1970.
    pub(in crate::app) now_ms: i64,
}

impl Letters {
    /// `topics`: those that the sink was started with.
    pub(in crate::app) fn new(handler: &config::Handler, digest: &str, topics: &[String]) -> Self {
        let index =
            |name: &String| (0..).zip(topics).find(|(_, known)| *known == name).map(|(index, _)| index);
        let letters = handler.dead_letters.as_ref();
        let known =
            |name: &String| index(name).expect("the sink was started with the topics of all dead letters");
        Letters {
            handler: handler.name.clone(),
            group: handler.group_id.clone(),
            digest: digest.to_owned(),
            inputs: handler.topics.clone(),
            topics: letters.map_or_else(Vec::new, |letters| letters.topics.iter().map(known).collect()),
            spring: letters.is_some_and(|letters| letters.spring),
            max_redrives: letters.map_or(0, |letters| letters.max_redrives),
            no_key: format!("it has no lane key: `{}` finds none", handler.lanes.lane_key),
            sent: HashMap::new(),
        }
    }

    /// Where they go, by topic of the sink.
    pub(in crate::app) fn topics(&self) -> impl Iterator<Item = u16> {
        self.topics.iter().copied()
    }

    /// Writes a dead letter, to be sent by [`Letters::that_fits`]. The event's own key, value and headers are in it byte for byte.
    pub(in crate::app) fn write(
        &mut self,
        letter: &DeadLetter,
        event: &StoredRecord<'_>,
        context: &Context<'_>,
    ) {
        let mut headers: Vec<(Vec<u8>, Option<Vec<u8>>)> =
            event.headers.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
        let own_headers = headers.len();
        let before = headers.iter().filter(|(name, _)| name == REASON_HEADER).count();
        self.add_headers(&mut headers, letter, context, before);
        let topic = self.topics.get(usize::from(letter.event.partition.topic)).copied();
        let record = Record {
            topic: topic.expect("dead letters are asked for only where they have a topic"),
            // With an old time it would be deleted at once.
            timestamp: None,
            key: event.key.map(<[u8]>::to_vec),
            value: event.value.map(<[u8]>::to_vec),
            headers,
        };
        let sent = Sent { record, own_headers, form: Form::Whole };
        self.sent.insert((letter.call, letter.row), sent);
    }

    /// The letter in the largest form that fits, from the present one on; the smallest one, if none is known to fit.
    pub(in crate::app) fn that_fits(
        &mut self,
        call: CallId,
        row: u32,
        fits: impl Fn(&Record) -> bool,
    ) -> Option<&Record> {
        while !fits(&self.sent.get(&(call, row))?.record) && self.smaller(call, row).is_some() {}
        self.sent.get(&(call, row)).map(|sent| &sent.record)
    }

    /// The brokers have it.
    pub(in crate::app) fn landed(&mut self, call: CallId, row: u32) {
        self.sent.remove(&(call, row));
    }

    /// Nobody waits for those any more.
    pub(in crate::app) fn forget(&mut self, which: impl Fn(CallId, u32) -> bool) {
        self.sent.retain(|&(call, row), _| !which(call, row));
    }

    /// Where it goes, as the index of the sink's topic.
    pub(in crate::app) fn topic(&self, call: CallId, row: u32) -> Option<u16> {
        self.sent.get(&(call, row)).map(|sent| sent.record.topic)
    }

    /// The brokers don't take it: a smaller form of it. `None`: there is none.
    pub(in crate::app) fn smaller(&mut self, call: CallId, row: u32) -> Option<&Record> {
        let sent = self.sent.get_mut(&(call, row))?;
        let form = sent.form.smaller()?;
        let size = sent.record.value.as_ref().map_or(0, Vec::len);
        tracing::warn!(
            handler = self.handler,
            ?form,
            value_bytes = size,
            "dead letter too large: parts are left out"
        );
        sent.reduce(form);
        Some(&sent.record)
    }

    fn add_headers(
        &self,
        headers: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>,
        letter: &DeadLetter,
        context: &Context<'_>,
        before: usize,
    ) {
        let event = &letter.event;
        let topic = self.inputs.get(usize::from(event.partition.topic)).map_or("", String::as_str);
        let mut add = |name: &str, value: Vec<u8>| headers.push((name.as_bytes().to_vec(), Some(value)));
        let text = |value: &dyn ToString| value.to_string().into_bytes();
        let error = cut(if letter.reason == Reason::NoKey { &self.no_key } else { context.error });
        // Those without which it could not be put back come first: see `ESSENTIAL`.
        add("keylane-reason", text(&name_of(letter.reason)));
        add("keylane-origin-topic", text(&topic));
        add("keylane-origin-partition", text(&event.partition.number));
        add("keylane-origin-offset", text(&event.offset));
        add("keylane-origin-timestamp", text(&event.timestamp));
        add("keylane-attempt", text(&letter.attempt));
        add("keylane-error", error.as_bytes().to_vec());
        add("keylane-failed-at", text(&context.now_ms));
        add("keylane-handler", text(&self.handler));
        add("keylane-handler-digest", text(&self.digest));
        add("keylane-group", text(&self.group));
        if !context.published.is_empty() {
            add("keylane-published", text(&context.published));
        }
        if before > 0 {
            add("keylane-redrives", text(&before));
        }
        if before >= self.max_redrives as usize && before > 0 {
            add("keylane-redrives-exceeded", text(&true));
            let (handler, offset, partition) = (&self.handler, event.offset, event.partition.number);
            tracing::error!(
                handler,
                topic,
                partition,
                offset,
                before,
                "an event was set aside again: see why before \
                it is put back once more"
            );
        }
        if self.spring {
            self.add_spring_headers(&mut add, letter, topic, error);
        }
    }

    /// As Spring's `DeadLetterPublishingRecoverer` writes them: numbers are big-endian.
    fn add_spring_headers(
        &self,
        add: &mut dyn FnMut(&str, Vec<u8>),
        letter: &DeadLetter,
        topic: &str,
        error: &str,
    ) {
        let event = &letter.event;
        add("kafka_dlt-original-topic", topic.as_bytes().to_vec());
        add("kafka_dlt-original-partition", event.partition.number.to_be_bytes().to_vec());
        add("kafka_dlt-original-offset", event.offset.to_be_bytes().to_vec());
        add("kafka_dlt-original-timestamp", event.timestamp.to_be_bytes().to_vec());
        add("kafka_dlt-original-timestamp-type", b"CreateTime".to_vec());
        add("kafka_dlt-original-consumer-group", self.group.clone().into_bytes());
        add("kafka_dlt-exception-fqcn", format!("keylane.{}", name_of(letter.reason)).into_bytes());
        add("kafka_dlt-exception-message", error.as_bytes().to_vec());
    }
}

/// Of our headers, the first so many stay in every form.
const ESSENTIAL: usize = 6;

impl Form {
    fn smaller(self) -> Option<Form> {
        match self {
            Form::Whole => Some(Form::Lean),
            Form::Lean => Some(Form::WithoutValue),
            Form::WithoutValue => Some(Form::Stub),
            Form::Stub => None,
        }
    }
}

impl Sent {
    fn reduce(&mut self, form: Form) {
        self.form = form;
        let record = &mut self.record;
        if form == Form::Lean {
            record.headers.truncate(self.own_headers + ESSENTIAL);
            return;
        }
        record.headers.drain(..std::mem::take(&mut self.own_headers));
        if let Some(value) = record.value.take() {
            let omitted = value.len().to_string().into_bytes();
            record.headers.push((b"keylane-value-omitted".to_vec(), Some(omitted)));
        }
        if form == Form::Stub {
            record.key = None;
        }
    }
}

/// As it stands in headers and counters.
pub(in crate::app) fn name_of(reason: Reason) -> &'static str {
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
