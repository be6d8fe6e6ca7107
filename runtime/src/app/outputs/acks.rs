//! Outputs that were handed over and are not acknowledged yet, counted per row of each call.

use std::fmt::Write as _;

use keylane_core::CallId;

use crate::sink::{RecordMetadata, Token};

/// One counter per row. The memory of a call's slot is reused by the next call there.
#[derive(Debug, Default)]
pub(super) struct Acks {
    slots: Vec<CallAcks>,
}

#[derive(Debug, Default)]
struct CallAcks {
    generation: u32,
    left: Vec<u32>,
    /// Rows of which an output was refused.
    refused: Vec<u32>,
    /// Outputs that arrived, and where.
    arrived: Vec<Arrived>,
}

/// What became of a row when the last of its outputs has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The brokers have all of them.
    Acked,
    /// They refuse one at least, and have the others.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Arrived {
    row: u32,
    lane: u32,
    /// Position among the outputs of the call.
    output: u32,
    acknowledged: RecordMetadata,
}

impl Acks {
    /// One more output of this row is on its way.
    pub(super) fn add(&mut self, call: CallId, row: u32) {
        let at = call.slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, CallAcks::default);
        }
        let slot = self.slots.get_mut(at).expect("it was just made");
        if slot.generation != call.generation {
            slot.generation = call.generation;
            slot.left.clear();
            slot.refused.clear();
            slot.arrived.clear();
        }
        let row = row as usize;
        if slot.left.len() <= row {
            slot.left.resize(row + 1, 0);
        }
        if let Some(left) = slot.left.get_mut(row) {
            *left += 1;
        }
    }

    /// An output of this row arrived. Told once all of them have their answer.
    pub(super) fn acked(&mut self, token: &Token, acknowledged: RecordMetadata) -> Option<Answered> {
        let &Token { call, row, lane, output, .. } = token;
        let slot = self.slot(call)?;
        slot.arrived.push(Arrived { row, lane, output, acknowledged });
        slot.answered(row)
    }

    /// An output of this row was refused. Told once all of them have their answer: what is still on its way is then
    /// known to whoever looks at the dead letter.
    pub(super) fn refused(&mut self, token: &Token) -> Option<Answered> {
        let slot = self.slot(token.call)?;
        slot.refused.push(token.row);
        slot.answered(token.row)
    }

    fn slot(&mut self, call: CallId) -> Option<&mut CallAcks> {
        self.slots.get_mut(call.slot as usize).filter(|slot| slot.generation == call.generation)
    }
}

impl CallAcks {
    fn answered(&mut self, row: u32) -> Option<Answered> {
        let left = self.left.get_mut(row as usize).filter(|left| **left > 0)?;
        *left -= 1;
        let refused = || self.refused.contains(&row);
        (*left == 0).then(|| if refused() { Answered::Refused } else { Answered::Acked })
    }
}

impl Acks {
    /// Whether an output that landed there stands behind a later one of its lane. Only those that were sent again can:
    /// the others land in the order in which they were handed over. Outputs on different partitions have no order that
    /// anybody could see.
    pub(super) fn was_overtaken(&self, token: &Token, acknowledged: RecordMetadata) -> bool {
        let later = |arrived: &Arrived| arrived.lane == token.lane && arrived.output > token.output;
        let ahead = |at: RecordMetadata| {
            (at.topic, at.partition) == (acknowledged.topic, acknowledged.partition)
                && at.offset < acknowledged.offset
        };
        self.arrived(token.call).iter().any(|arrived| later(arrived) && ahead(arrived.acknowledged))
    }

    /// Where the outputs of this row arrived: `topic/partition/offset`, separated by commas.
    pub(super) fn published(&self, call: CallId, row: u32, topics: &[String]) -> String {
        let mut text = String::new();
        for Arrived { acknowledged, .. } in self.arrived(call).iter().filter(|arrived| arrived.row == row) {
            let separator = if text.is_empty() { "" } else { "," };
            let topic = topics.get(usize::from(acknowledged.topic)).map_or("?", String::as_str);
            write!(text, "{separator}{topic}/{}/{}", acknowledged.partition, acknowledged.offset)
                .expect("writing to a string can't fail");
        }
        text
    }

    fn arrived(&self, call: CallId) -> &[Arrived] {
        let slot = self.slots.get(call.slot as usize).filter(|slot| slot.generation == call.generation);
        slot.map_or(&[], |slot| slot.arrived.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEWHERE: RecordMetadata = RecordMetadata { topic: 0, partition: 3, offset: 7 };

    fn token(call: CallId, row: u32) -> Token {
        Token { handler: 0, call, row, lane: row / 10, output: row, letter: false }
    }

    #[test]
    fn a_row_is_acked_when_its_last_output_is() {
        let call = CallId { slot: 2, generation: 7 };
        let mut acks = Acks::default();
        acks.add(call, 3);
        acks.add(call, 3);
        acks.add(call, 0);
        assert_eq!(acks.acked(&token(call, 3), SOMEWHERE), None);
        assert_eq!(acks.acked(&token(call, 0), SOMEWHERE), Some(Answered::Acked));
        assert_eq!(acks.acked(&token(call, 3), SOMEWHERE), Some(Answered::Acked));
        assert_eq!(acks.acked(&token(call, 3), SOMEWHERE), None, "nothing is left of it");
        assert_eq!(acks.published(call, 0, &["out".to_owned()]), "out/3/7");
    }

    #[test]
    fn acks_of_an_older_call_are_not_counted() {
        let (old, new) = (CallId { slot: 0, generation: 1 }, CallId { slot: 0, generation: 2 });
        let mut acks = Acks::default();
        acks.add(old, 0);
        acks.add(new, 0);
        assert_eq!(acks.acked(&token(old, 0), SOMEWHERE), None);
        assert_eq!(acks.acked(&token(new, 0), SOMEWHERE), Some(Answered::Acked));
    }

    #[test]
    fn a_row_is_refused_when_its_other_outputs_have_their_answer() {
        let call = CallId { slot: 0, generation: 1 };
        let mut acks = Acks::default();
        (0..2).for_each(|_| acks.add(call, 5));
        acks.add(call, 6);
        assert_eq!(acks.refused(&token(call, 5)), None);
        assert_eq!(acks.acked(&token(call, 6), SOMEWHERE), Some(Answered::Acked));
        assert_eq!(acks.acked(&token(call, 5), SOMEWHERE), Some(Answered::Refused));
    }

    /// Rows 0 to 9 are one lane, 10 to 19 the next.
    #[test]
    fn an_output_is_overtaken_by_a_later_one_of_its_lane_that_lies_before_it() {
        let call = CallId { slot: 0, generation: 1 };
        let at = |partition, offset| RecordMetadata { topic: 0, partition, offset };
        let mut acks = Acks::default();
        (0..20).for_each(|row| acks.add(call, row));
        for (row, partition, offset) in [(1, 0, 50), (5, 0, 60), (7, 1, 10), (12, 0, 20)] {
            acks.acked(&token(call, row), at(partition, offset));
        }
        for (row, partition, offset, overtaken, why) in [
            (4, 0, 61, true, "5 lies before it"),
            (4, 0, 59, false, "5 lies behind it, although its ack came first"),
            (6, 0, 61, false, "nothing later lies before it"),
            (6, 1, 11, true, "7 lies before it"),
            (6, 2, 99, false, "nothing is on this partition"),
            (11, 0, 19, false, "other lanes do not count"),
            (11, 0, 61, true, "12 lies before it"),
        ] {
            assert_eq!(
                acks.was_overtaken(&token(call, row), at(partition, offset)),
                overtaken,
                "{row}: {why}"
            );
        }
        let other = CallId { slot: 0, generation: 2 };
        assert!(!acks.was_overtaken(&token(other, 4), at(0, 61)), "of another call");
    }
}
