//! What gates remember of keys: in the memory of the process, or in mark records.

use keylane_core::{GateKey, LookUpId, MemoryChange, OwnershipId, Partition};

use super::gates::Gates;
use super::keyed::FoundMark;
use super::{EventLoop, Keyed, Reading};

impl EventLoop {
    /// Looks up what is remembered of a gate key. The answer follows, perhaps later.
    pub(super) fn look_up_key(
        &mut self,
        request: LookUpId,
        (partition, ownership): (Partition, OwnershipId),
        key: GateKey,
    ) {
        let EventLoop { reading, keyed, .. } = self;
        let Some(keyed) = keyed.as_mut().filter(|_| reading.gates().is_some_and(Gates::is_durable)) else {
            return reading.gates_mut().into_iter().for_each(|gates| gates.look_up(request, partition, key));
        };
        let record_key = reading.load_mark(request, (partition, key));
        let found = record_key.and_then(|key| keyed.look_up_mark(request, (partition, ownership), key));
        found.into_iter().for_each(|found| self.take_mark(found));
    }

    /// The store has answered.
    pub(super) fn marks_found(&mut self, found: Vec<FoundMark>) {
        found.into_iter().for_each(|found| self.take_mark(found));
        self.carry_out(None);
    }

    fn take_mark(&mut self, found: FoundMark) {
        let FoundMark { request, key, value } = found;
        let Some(gates) = self.reading.gates_mut() else { return };
        if let Err(error) = gates.loaded(request, value.as_deref()) {
            let name = keylane_state::record_key::display(&key);
            self.closing.stop(&self.log, format!("the {name} can't be read: {error}"));
        }
    }
}

/// Remembers what settled events have changed.
pub(super) fn remember(reading: &mut Reading, keyed: &mut Option<Keyed>, changes: &[MemoryChange]) {
    if !reading.gates().is_some_and(Gates::is_durable) {
        return reading.remember(changes);
    }
    reading.change_marks(changes, |change, key, value| {
        if let Some(keyed) = keyed {
            keyed.remember((change.partition, change.ownership), change.number, key, value);
        }
    });
}
