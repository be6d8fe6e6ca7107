//! Views: what a core shows at any time must agree with the state of its process, and reading it must change nothing.

use keylane_core::{BlockedOn, Core, OwnershipState, PartitionView, View};

use super::planted::Planted;
use super::world::World;

impl World {
    /// Takes the view that a reader sees after this input.
    pub(crate) fn view_before(&self, core: &Core) -> Option<View> {
        (self.planted == Some(Planted::StaleView)).then(|| core.view())
    }

    /// Compares a view with the process. `before`: the view before the last input, for a planted bug.
    pub(crate) fn check_view(&mut self, p: usize, core: &Core, before: Option<View>) {
        let view = before.unwrap_or_else(|| core.view());
        for partition in view.partitions.iter().filter(|view| view.status == OwnershipState::Active) {
            self.check_partition_view(p, partition);
        }
    }

    fn check_partition_view(&mut self, p: usize, view: &PartitionView) {
        let index = self.index(view.partition);
        let offset = view.committable_offset;
        let floor = self.processes[p].parts[index].floor.unwrap_or(0);
        self.require(offset >= floor, "I-view", index, offset, || {
            format!("process {p} shows {offset} as committable, but {floor} is committed")
        });
        let Some(blocked) = view.blocked else {
            self.require(view.open == 0, "I-view", index, offset, || {
                format!("process {p} shows {} open events, but nothing that blocks them", view.open)
            });
            return;
        };
        match blocked.blocked_on {
            BlockedOn::ReadFailed(_) | BlockedOn::NotFetched { leader_responds: false } => return,
            BlockedOn::NotFetched { leader_responds: true } => {
                let end = self.logs[index].end;
                let exists = end > view.next_offset || !self.reads_current_topic(p, index);
                return self.require(exists, "I-view", index, offset, || {
                    format!(
                        "process {p} shows records from {} on, but the log ends at {end}",
                        view.next_offset
                    )
                });
            }
            BlockedOn::Undispatched
            | BlockedOn::Guest
            | BlockedOn::Retry
            | BlockedOn::OutputsUnacked
            | BlockedOn::DeadLetterUnacked
            | BlockedOn::Commit => {}
        }
        self.require(blocked.offset == offset, "I-view", index, offset, || {
            format!("process {p} shows {blocked:?}, but {offset} is the first unsettled offset")
        });
        let runs = self.processes[p].runs(index, offset, view.ownership);
        self.require((blocked.blocked_on == BlockedOn::Guest) == runs, "I-view", index, offset, || {
            format!("process {p} shows {blocked:?}, and a call with the event runs: {runs}")
        });
    }
}
