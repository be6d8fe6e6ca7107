//! How much one event may publish.

/// Outputs of one event at most: more is a runaway loop.
pub(super) const OUTPUTS_MAX: usize = 1_000;

/// Bytes of one output at most, unless the topics of the handler's outputs take more: room for a key and a value of
/// 1 MiB each.
pub const OUTPUT_BYTES: usize = 2 << 20;

/// Bytes of all outputs of one event at most, unless one of them may have more.
const EVENT_BYTES: usize = 8 << 20;

/// How large the outputs of an event may be.
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
    /// One more, to this target and of so many bytes of key, value and headers. The error says why the event can't
    /// have it.
    pub(super) fn add(&mut self, target: &str, bytes: usize, limits: &EventLimits) -> Result<(), String> {
        let EventLimits { output_bytes, event_bytes } = *limits;
        self.outputs += 1;
        self.bytes += bytes;
        if self.outputs > OUTPUTS_MAX {
            Err(format!("the event has more than {OUTPUTS_MAX} outputs"))
        } else if bytes > output_bytes {
            Err(format!(
                "the output to `{target}` has {bytes} bytes, and {output_bytes} are allowed: emit less, or set \
                 `max_output_bytes`"
            ))
        } else if self.bytes > event_bytes {
            Err(format!("the outputs of the event have more than {event_bytes} bytes: emit less"))
        } else {
            Ok(())
        }
    }
}
