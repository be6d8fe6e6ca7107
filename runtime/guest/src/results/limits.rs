//! Limits of what one event may publish.

/// Maximum number of outputs of one event: more of them indicate a runaway loop.
pub(super) const OUTPUTS_MAX: usize = 1_000;

/// Maximum size of one output, unless the topics of the handler's outputs accept more: capacity for a key and a value
/// of 1 MiB each.
pub const OUTPUT_BYTES: usize = 2 << 20;

/// Maximum size of all outputs of one event, unless one output may be larger.
pub(crate) const EVENT_BYTES: usize = 8 << 20;

/// The size limits of an event's outputs, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventLimits {
    output_bytes: usize,
    event_bytes: usize,
}

impl EventLimits {
    pub(super) fn new(output_bytes: usize) -> EventLimits {
        EventLimits { output_bytes, event_bytes: EVENT_BYTES.max(output_bytes) }
    }
}

/// The outputs of an event so far.
#[derive(Default)]
pub(super) struct EventSize {
    outputs: usize,
    bytes: usize,
}

impl EventSize {
    /// Adds an output to this target; `bytes`: the size of key, value and headers. The error describes which limit the
    /// event exceeds.
    pub(super) fn add(&mut self, target: &str, bytes: usize, limits: &EventLimits) -> Result<(), String> {
        let EventLimits { output_bytes, event_bytes } = *limits;
        self.outputs += 1;
        self.bytes += bytes;
        if self.outputs > OUTPUTS_MAX {
            Err(format!("the event has more than {OUTPUTS_MAX} outputs"))
        } else if bytes > output_bytes {
            Err(format!(
                "the output to `{target}` has {bytes} bytes, the limit is {output_bytes}: emit less, or set \
                 `max_output_bytes`"
            ))
        } else if self.bytes > event_bytes {
            Err(format!("the outputs of the event have more than {event_bytes} bytes: emit less"))
        } else {
            Ok(())
        }
    }
}
