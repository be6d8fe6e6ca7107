//! Views: what a core shows at any time must agree with the state of its process, and reading it must change nothing.

use keylane_core::{
    ArenaSlot, BlockedOn, Core, LaneScan, LaneView, OwnershipState, Partition, PartitionView, View,
};

use super::planted::Planted;
use super::trace::Seen;
use super::world::World;

/// What a reader with a planted bug read before the last input.
#[derive(Default)]
pub(crate) struct ReadBefore {
    view: Option<View>,
    lanes: Option<Vec<LaneView>>,
}

/// All lanes, in small steps.
fn scan(core: &Core) -> Vec<LaneView> {
    let (mut scan, mut lanes) = (LaneScan::default(), Vec::new());
    while !core.scan_lanes(&mut scan, 3, |lane| lanes.push(lane)) {}
    lanes
}

impl World {
    /// Takes what a reader with a planted bug sees after this input.
    pub(crate) fn read_before(&self, core: &Core) -> ReadBefore {
        ReadBefore {
            view: (self.planted == Some(Planted::StaleView)).then(|| core.view()),
            lanes: (self.planted == Some(Planted::StaleLanes)).then(|| scan(core)),
        }
    }

    /// Compares a view and a scan of the lanes with the process. `before`: what was seen before the last input, for
    /// planted bugs.
    pub(crate) fn check_view(&mut self, p: usize, core: &Core, before: ReadBefore) {
        let mut view = before.view.unwrap_or_else(|| core.view());
        if self.planted == Some(Planted::HideInactive) {
            let inactive = view.partitions.iter_mut().filter(|view| view.state != OwnershipState::Active);
            inactive.for_each(|view| view.blocked = None);
        }
        let lanes = before.lanes.unwrap_or_else(|| scan(core));
        for partition in &view.partitions {
            if let Some(blocked) = &partition.blocked
                && let Some(offset) = blocked.offset
            {
                self.check_slot(p, blocked.partition, offset, blocked.arena_slot);
            }
        }
        for lane in &lanes {
            self.check_slot(p, lane.partition, lane.offset, Some(lane.arena_slot));
        }
        for partition in view.partitions.iter().filter(|view| view.state != OwnershipState::Active) {
            self.check_inactive_view(p, partition);
        }
        for partition in view.partitions.iter().filter(|view| view.state == OwnershipState::Active) {
            self.check_partition_view(p, partition);
            self.check_lane_views(p, partition, &lanes);
            self.check_first_unsettled(p, core, partition, &lanes);
        }
    }

    /// A slot that is shown holds the event that it is shown with.
    fn check_slot(&mut self, p: usize, partition: Partition, offset: i64, slot: Option<ArenaSlot>) {
        let Some(slot) = slot else { return };
        let index = self.index(partition);
        let kept = self.processes[p].kept_at(slot).map(|kept| (kept.partition, kept.offset));
        self.require(kept == Some((index, offset)), "I-view", index, offset, || {
            format!("process {p} shows {offset} in {slot:?}, which holds {kept:?}")
        });
    }

    /// The lanes of a partition have no more events than it has, and one of them has the event that blocks it.
    fn check_lane_views(&mut self, p: usize, view: &PartitionView, lanes: &[LaneView]) {
        let index = self.index(view.partition);
        let lanes: Vec<&LaneView> = lanes.iter().filter(|lane| lane.partition == view.partition).collect();
        let events: u64 = lanes.iter().map(|lane| u64::from(lane.events)).sum();
        // Events whose outcome needs no call are in no lane until it begins.
        self.require(events <= view.open, "I-view", index, view.committable_offset, || {
            format!("process {p} shows {events} events in lanes, but {} unsettled events", view.open)
        });
        let Some(blocked) = view.blocked else { return };
        let is_in_lane = match blocked.blocked_on {
            BlockedOn::Guest
            | BlockedOn::StateLoading
            | BlockedOn::Gap
            | BlockedOn::Window
            | BlockedOn::Retry
            | BlockedOn::OutputsUnacked
            | BlockedOn::DeadLetterUnacked => lanes.iter().any(|lane| Some(lane.offset) == blocked.offset),
            BlockedOn::StartLookup
            | BlockedOn::Rebalance
            | BlockedOn::Release
            | BlockedOn::Stopped
            | BlockedOn::Undispatched
            | BlockedOn::OtherPartitions
            | BlockedOn::Commit
            | BlockedOn::Excluded
            | BlockedOn::ReadFailed(_)
            | BlockedOn::NotFetched { .. } => true,
        };
        // With a gate, the event with the lowest offset may be behind others.
        let is_in_lane = is_in_lane || self.is_gated();
        self.require(is_in_lane, "I-view", index, view.committable_offset, || {
            format!("process {p} shows {blocked:?}, but no lane begins with this event: {lanes:?}")
        });
    }

    /// A partition that is not active yet, or no longer, shows what it waits for.
    fn check_inactive_view(&mut self, p: usize, view: &PartitionView) {
        let blocked_on = view.blocked.map(|blocked| blocked.blocked_on);
        let fits = match (view.state, blocked_on) {
            (OwnershipState::Starting, Some(blocked_on)) => matches!(
                blocked_on,
                BlockedOn::StartLookup | BlockedOn::Rebalance | BlockedOn::Commit | BlockedOn::ReadFailed(_)
            ),
            (OwnershipState::Closing | OwnershipState::Committing, Some(blocked_on)) => matches!(
                blocked_on,
                BlockedOn::Release
                    | BlockedOn::Commit
                    | BlockedOn::Guest
                    | BlockedOn::OutputsUnacked
                    | BlockedOn::DeadLetterUnacked
            ),
            (OwnershipState::Stopped, blocked_on) => blocked_on == Some(BlockedOn::Stopped),
            (OwnershipState::Active, Some(_)) => true,
            (_, None) => false,
        };
        let index = self.index(view.partition);
        self.require(fits, "I-view", index, view.committable_offset, || {
            format!("process {p} shows {:?} blocked on {blocked_on:?}", view.state)
        });
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
            BlockedOn::OtherPartitions => self.saw(Seen::WaitsForOthers),
            BlockedOn::Undispatched
            | BlockedOn::Guest
            | BlockedOn::StateLoading
            | BlockedOn::Gap
            | BlockedOn::Window
            | BlockedOn::Retry
            | BlockedOn::OutputsUnacked
            | BlockedOn::DeadLetterUnacked
            | BlockedOn::Commit
            | BlockedOn::Excluded => {}
            BlockedOn::StartLookup | BlockedOn::Rebalance | BlockedOn::Release | BlockedOn::Stopped => {
                return self.require(false, "I-view", index, offset, || {
                    format!("process {p} shows {blocked:?} for an active partition")
                });
            }
        }
        self.require(blocked.offset == Some(offset), "I-view", index, offset, || {
            format!("process {p} shows {blocked:?}, but {offset} is the first unsettled offset")
        });
        let runs = self.processes[p].runs(index, offset, view.ownership);
        self.require((blocked.blocked_on == BlockedOn::Guest) == runs, "I-view", index, offset, || {
            format!("process {p} shows {blocked:?}, and a call with the event runs: {runs}")
        });
    }
}
