//! Outputs that were handed over and are not acknowledged yet, counted per row of each call.

use std::fmt::Write as _;

use keylane_core::CallId;

use crate::sink::Landed;

/// One counter per row. The memory of a call's slot is reused by the next call there.
#[derive(Debug, Default)]
pub(super) struct Acks {
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    left: Vec<u32>,
    /// Rows with an output that arrived, and where.
    landed: Vec<(u32, Landed)>,
}

impl Acks {
    /// One more output of this row is on its way.
    pub(super) fn add(&mut self, call: CallId, row: u32) {
        let at = call.slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, Slot::default);
        }
        let slot = self.slots.get_mut(at).expect("it was just made");
        if slot.generation != call.generation {
            slot.generation = call.generation;
            slot.left.clear();
            slot.landed.clear();
        }
        let row = row as usize;
        if slot.left.len() <= row {
            slot.left.resize(row + 1, 0);
        }
        if let Some(left) = slot.left.get_mut(row) {
            *left += 1;
        }
    }

    /// An output of this row arrived. True: it was the last one.
    pub(super) fn acked(&mut self, call: CallId, row: u32, landed: Landed) -> bool {
        let slot = self.slots.get_mut(call.slot as usize);
        let Some(slot) = slot.filter(|slot| slot.generation == call.generation) else { return false };
        slot.landed.push((row, landed));
        let Some(left) = slot.left.get_mut(row as usize).filter(|left| **left > 0) else { return false };
        *left -= 1;
        *left == 0
    }
}

impl Acks {
    /// Where the outputs of this row arrived: `topic/partition/offset`, separated by commas.
    pub(super) fn published(&self, call: CallId, row: u32, topics: &[String]) -> String {
        let slot = self.slots.get(call.slot as usize).filter(|slot| slot.generation == call.generation);
        let landed = slot.map_or(&[][..], |slot| slot.landed.as_slice());
        let mut text = String::new();
        for (_, landed) in landed.iter().filter(|(known, _)| *known == row) {
            let separator = if text.is_empty() { "" } else { "," };
            let topic = topics.get(usize::from(landed.topic)).map_or("?", String::as_str);
            write!(text, "{separator}{topic}/{}/{}", landed.partition, landed.offset)
                .expect("writing to a string can't fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEWHERE: Landed = Landed { topic: 0, partition: 3, offset: 7 };

    #[test]
    fn a_row_is_acked_when_its_last_output_is() {
        let call = CallId { slot: 2, generation: 7 };
        let mut acks = Acks::default();
        acks.add(call, 3);
        acks.add(call, 3);
        acks.add(call, 0);
        assert!(!acks.acked(call, 3, SOMEWHERE));
        assert!(acks.acked(call, 0, SOMEWHERE));
        assert!(acks.acked(call, 3, SOMEWHERE));
        assert!(!acks.acked(call, 3, SOMEWHERE), "nothing is left of it");
        assert_eq!(acks.published(call, 0, &["out".to_owned()]), "out/3/7");
    }

    #[test]
    fn acks_of_an_older_call_are_not_counted() {
        let (old, new) = (CallId { slot: 0, generation: 1 }, CallId { slot: 0, generation: 2 });
        let mut acks = Acks::default();
        acks.add(old, 0);
        acks.add(new, 0);
        assert!(!acks.acked(old, 0, SOMEWHERE));
        assert!(acks.acked(new, 0, SOMEWHERE));
    }
}
