//! What guests and brokers said about events that are not done, until it is needed: in a dead letter, or when the handler
//! stops.

use keylane_core::CallId;

/// By call and row. The memory of a call's slot is reused by the next call there.
#[derive(Debug, Default)]
pub(in crate::app) struct ErrorTexts {
    slots: Vec<CallErrors>,
}

#[derive(Debug, Default)]
struct CallErrors {
    generation: u32,
    texts: Vec<(u32, String)>,
}

impl ErrorTexts {
    /// This was said about this row.
    pub(in crate::app) fn add(&mut self, call: CallId, row: u32, text: String) {
        let at = call.slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, CallErrors::default);
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        match call.generation.wrapping_sub(slot.generation).cast_signed() {
            0 => {}
            1.. => {
                slot.generation = call.generation;
                slot.texts.clear();
            }
            _ => return, // of a call that is over
        }
        slot.texts.push((row, text));
    }

    /// What was said about it last.
    pub(in crate::app) fn of(&self, call: CallId, row: u32) -> &str {
        let slot = self.slots.get(call.slot as usize).filter(|slot| slot.generation == call.generation);
        let texts = slot.map_or(&[][..], |slot| slot.texts.as_slice());
        texts.iter().rev().find(|(known, _)| *known == row).map_or("", |(_, text)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_lives_as_long_as_its_call() {
        let (old, new) = (CallId { slot: 1, generation: 1 }, CallId { slot: 1, generation: 2 });
        let mut texts = ErrorTexts::default();
        texts.add(old, 3, "no price".to_owned());
        texts.add(old, 3, "still none".to_owned());
        assert_eq!((texts.of(old, 3), texts.of(old, 2), texts.of(new, 3)), ("still none", "", ""));
        texts.add(new, 0, "late".to_owned());
        assert_eq!((texts.of(old, 3), texts.of(new, 0)), ("", "late"));
        texts.add(old, 3, "too late".to_owned());
        assert_eq!((texts.of(old, 3), texts.of(new, 0)), ("", "late"));
    }
}
