//! The output targets of a handler.

use crate::config::{OutputConfig, OutputTime};
use crate::sink::SinkTopic;

/// The configuration of one output target.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) topic: SinkTopic,
    pub(super) provenance: bool,
    pub(super) time: OutputTime,
}

impl Target {
    /// Returns the targets of a handler, in the order in which its outputs name them. `topics`: the topics that the sink was
    /// started with.
    pub(super) fn all(outputs: &[OutputConfig], topics: &[String]) -> Vec<Target> {
        let topic = |name: &String| {
            (0..).zip(topics).find(|(_, known)| *known == name).map(|(index, _)| SinkTopic(index))
        };
        let target = |output: &OutputConfig| Target {
            topic: topic(&output.topic).expect("the sink was started with the topics of every output"),
            provenance: output.provenance,
            time: output.timestamp,
        };
        outputs.iter().map(target).collect()
    }
}
