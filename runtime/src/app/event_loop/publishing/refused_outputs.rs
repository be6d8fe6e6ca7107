//! Transactional delivery: dead letters of outputs that their topic refuses although they were checked.

use keylane_core::Partition;

use crate::config;
use crate::librdkafka::ErrorCode;
use crate::sink::{OwnedRecord, Sink, SinkRecord, SinkTopic};

use super::Publishing;
use super::dead_letters::header_text;

/// The value of `keylane-reason`.
pub(in crate::app::event_loop) const REASON: &str = "output-rejected";
/// The header by which such a dead letter differs from one of an event.
const TARGET_HEADER: &str = "keylane-output-target";
/// The first of the headers that identify the event of an output. Outputs with provenance have them already.
const ORIGIN_HEADER: &str = "keylane-origin-topic";

/// Makes dead letters of the outputs of one handler.
pub(super) struct RefusedOutputs {
    handler: String,
    group: String,
    /// Names of the input topics, by their index.
    input_topics: Vec<String>,
    /// Dead-letter topics, by the index of the input topic.
    topics: Vec<SinkTopic>,
    /// The output targets, by their topic.
    targets: Vec<(SinkTopic, String)>,
}

/// The parts of an output that its dead letter contains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Whole,
    /// The key, without the value and the output's own headers.
    WithoutValue,
    WithoutKey,
}

impl Publishing {
    /// Returns the dead letter of an output of this event; `None`: the handler has no dead-letter topic. It contains as much of
    /// the output as the dead-letter topic accepts, as far as known.
    pub(in crate::app::event_loop) fn dead_letter_of(
        &self,
        output: &SinkRecord<'_>,
        event: (Partition, i64),
        code: ErrorCode,
        now_ms: i64,
    ) -> Option<OwnedRecord> {
        self.refused_outputs.dead_letter(&self.sink, output, event, code, now_ms)
    }
}

impl RefusedOutputs {
    /// `topics`: the topics that the sink was started with.
    pub(super) fn new(handler: &config::HandlerConfig, topics: &[String]) -> Self {
        let index = |name: &String| {
            (0..).zip(topics).find(|(_, known)| *known == name).map(|(index, _)| SinkTopic(index))
        };
        let dead_letters = handler.dead_letters.iter().flat_map(|dead_letters| &dead_letters.topics);
        RefusedOutputs {
            handler: handler.name.clone(),
            group: handler.group_id.clone(),
            input_topics: handler.topics.clone(),
            topics: dead_letters.filter_map(index).collect(),
            targets: handler
                .outputs
                .iter()
                .filter_map(|output| Some((index(&output.topic)?, output.target.clone())))
                .collect(),
        }
    }

    fn dead_letter(
        &self,
        sink: &Sink,
        output: &SinkRecord<'_>,
        event: (Partition, i64),
        code: ErrorCode,
        now_ms: i64,
    ) -> Option<OwnedRecord> {
        let topic = *self.topics.get(usize::from(event.0.topic))?;
        let forms = [Form::Whole, Form::WithoutValue, Form::WithoutKey];
        let letters = forms.map(|form| self.in_form(form, topic, output, event, code, now_ms));
        let [.., smallest] = &letters;
        let fits = letters.iter().find(|letter| sink.check(topic, letter.size()).is_ok());
        Some(fits.unwrap_or(smallest).clone())
    }

    fn in_form(
        &self,
        form: Form,
        topic: SinkTopic,
        output: &SinkRecord<'_>,
        (partition, offset): (Partition, i64),
        code: ErrorCode,
        now_ms: i64,
    ) -> OwnedRecord {
        let mut letter = OwnedRecord::from(output);
        (letter.topic, letter.timestamp) = (topic, None); // see the dead letters of events
        let mut own = letter.headers.iter();
        let has_origin = own.any(|(name, _)| name == ORIGIN_HEADER.as_bytes()) && form == Form::Whole;
        let mut omitted = Vec::new();
        if form > Form::Whole {
            letter.headers.clear();
            omitted.extend(letter.value.take().map(|value| ("keylane-value-omitted", value.len())));
        }
        if form > Form::WithoutValue {
            omitted.extend(letter.key.take().map(|key| ("keylane-key-omitted", key.len())));
        }
        let mut add = |name: &str, value: &dyn ToString| {
            letter.headers.push((name.as_bytes().to_vec(), Some(value.to_string().into_bytes())));
        };
        let target = self.targets.iter().find(|(of, _)| *of == output.topic);
        add("keylane-reason", &REASON);
        add(TARGET_HEADER, &target.map_or("", |(_, target)| target));
        if !has_origin {
            let input = self.input_topics.get(usize::from(partition.topic)).map_or("", String::as_str);
            add(ORIGIN_HEADER, &input);
            add("keylane-origin-partition", &partition.number);
            add("keylane-origin-offset", &offset);
        }
        omitted.into_iter().for_each(|(name, bytes)| add(name, &bytes));
        add("keylane-error", &header_text(&code.to_string()));
        add("keylane-failed-at", &now_ms);
        add("keylane-handler", &self.handler);
        add("keylane-group", &self.group);
        letter
    }
}
