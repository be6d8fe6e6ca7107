//! The group coordinator: members, generations, rebalances, and at most one unanswered rebalance event per member.
//!
//! In a rebalance, every member rejoins and releases the partitions that move (cooperative) or all
//! partitions (eager). Then the generation increases, and free partitions are assigned. A member
//! that does not answer is expelled.

use std::collections::BTreeSet;

use keylane_core::{Input, RebalanceId};

use super::plan::{Class, MS, SECOND};
use super::planted::Planted;
use super::process::{Control, Outstanding};
use super::trace::Seen;
use super::world::{Event, World};

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) members: Vec<usize>,
    pub(crate) generation: u32,
    pub(crate) owner: Vec<Option<usize>>,
    rebalance: Option<Rebalance>,
    rebalances: u64,
    /// Members joined or left since the last rebalance began.
    changed: bool,
    /// Commit requests in flight to the coordinator, by member.
    pub(crate) commits_in_flight: Vec<usize>,
}

#[derive(Debug)]
struct Rebalance {
    waiting: BTreeSet<usize>,
    target: Vec<Option<usize>>,
}

impl Group {
    pub(crate) fn new(partitions: usize) -> Group {
        Group {
            members: Vec::new(),
            generation: 0,
            owner: vec![None; partitions],
            rebalance: None,
            rebalances: 0,
            changed: false,
            commits_in_flight: Vec::new(),
        }
    }

    pub(crate) fn rebalancing(&self) -> bool {
        self.rebalance.is_some()
    }

    fn forget(&mut self, p: usize) {
        self.members.retain(|&member| member != p);
        for owner in &mut self.owner {
            if *owner == Some(p) {
                *owner = None;
            }
        }
        if let Some(rebalance) = &mut self.rebalance {
            rebalance.waiting.remove(&p);
        }
        self.changed = true;
    }
}

impl World {
    pub(crate) fn join(&mut self, p: usize) {
        if self.processes[p].left || self.group.members.contains(&p) {
            return;
        }
        self.note(p, "join", None, -1, 0);
        self.group.members.push(p);
        self.joined(p);
        self.group.changed = true;
        self.rebalance_soon();
    }

    /// The member has left, or its session has expired.
    pub(crate) fn leave(&mut self, p: usize) {
        if self.group.members.contains(&p) {
            self.note(p, "leave", None, -1, 0);
            self.group.forget(p);
            self.rebalance_soon();
        }
    }

    /// A dead or paused member missed its heartbeats.
    pub(crate) fn expire(&mut self, p: usize) {
        let process = &self.processes[p];
        let responsive =
            process.alive && (!process.paused || process.paused_at + self.plan.session_timeout > self.now);
        if responsive || !self.group.members.contains(&p) {
            return;
        }
        self.expel(p);
    }

    pub(crate) fn expel(&mut self, p: usize) {
        self.note(p, "expelled", None, -1, 0);
        self.leave(p);
        if self.processes[p].alive && !self.processes[p].left {
            // Undelivered rebalance events are discarded.
            self.processes[p].controls.clear();
            self.processes[p].controls.push_back(Control::Lost(Vec::new()));
            let longest = self.rng.pick(&[20 * MS, 2 * SECOND]);
            let delay = self.rng.range(MS, longest);
            self.after(delay, Event::Control(p));
            if self.planted == Some(Planted::LossUnheard) {
                self.after(5 * MS, Event::Join(p)); // the client rejoins before the core knows of the loss
            }
        }
    }

    fn rebalance_soon(&mut self) {
        let delay = self.rng.range(10, 100) * MS;
        self.after(delay, Event::Rebalance);
    }

    pub(crate) fn rebalance(&mut self) {
        match &self.group.rebalance {
            Some(rebalance) if rebalance.waiting.is_empty() => self.end_rebalance(),
            Some(_) => {}
            None if self.group.changed => self.begin_rebalance(),
            None => {}
        }
    }

    fn begin_rebalance(&mut self) {
        self.group.changed = false;
        self.group.rebalances += 1;
        let rebalance = self.group.rebalances;
        let target = self.assignment();
        self.saw(if self.plan.eager { Seen::EagerRebalances } else { Seen::CooperativeRebalances });
        let waiting = self.group.members.iter().copied().collect();
        self.group.rebalance = Some(Rebalance { waiting, target: target.clone() });
        for p in self.group.members.clone() {
            let moves = |index: usize| self.plan.eager || target[index] != Some(p);
            let held = (0..target.len()).filter(|&index| self.group.owner[index] == Some(p));
            let revoked = held.filter(|&index| moves(index)).collect();
            self.push_control(p, Control::Revoke(revoked));
        }
        if self.group.members.is_empty() {
            self.group.rebalance = None;
            return;
        }
        self.after(60 * SECOND, Event::RebalanceTimeout(rebalance));
    }

    /// A sticky and balanced assignment, which is occasionally less sticky.
    fn assignment(&mut self) -> Vec<Option<usize>> {
        let members = self.group.members.clone();
        let mut target = vec![None; self.logs.len()];
        if members.is_empty() {
            return target;
        }
        let most = self.logs.len().div_ceil(members.len());
        let mut load = vec![0; members.len()];
        for (index, owner) in self.group.owner.clone().into_iter().enumerate() {
            let kept = members.iter().position(|&member| Some(member) == owner);
            if let Some(kept) = kept.filter(|&kept| load[kept] < most)
                && self.rng.percent(70)
            {
                load[kept] += 1;
                target[index] = owner;
            }
        }
        for owner in target.iter_mut().filter(|owner| owner.is_none()) {
            let from = self.rng.index(members.len());
            let order = (0..members.len()).map(|at| (at + from) % members.len());
            let least = order.min_by_key(|&at| load[at]).unwrap_or(0);
            load[least] += 1;
            *owner = Some(members[least]);
        }
        target
    }

    fn end_rebalance(&mut self) {
        // The earlier requests of a member arrive before it rejoins. Only a stale commit arrives
        // later.
        let in_flight = self.group.commits_in_flight.iter().any(|&p| self.processes[p].alive);
        if in_flight && !self.has(Class::Stale) {
            self.after(5 * MS, Event::Rebalance);
            return;
        }
        let Some(rebalance) = self.group.rebalance.take() else { return };
        self.group.generation += 1;
        for p in self.group.members.clone() {
            self.processes[p].generation = self.group.generation;
            let mut assigned = Vec::new();
            for (index, target) in rebalance.target.iter().enumerate() {
                if *target == Some(p) && self.group.owner[index] != Some(p) {
                    self.group.owner[index] = Some(p);
                    assigned.push(index);
                }
            }
            self.push_control(p, Control::Assign(assigned));
        }
        if self.group.changed {
            self.rebalance_soon();
        }
    }

    /// A member did not answer. For a running process this is a violation.
    pub(crate) fn rebalance_timeout(&mut self, rebalance: u64) {
        if self.group.rebalances != rebalance {
            return;
        }
        let Some(waiting) = self.group.rebalance.as_ref().map(|rebalance| rebalance.waiting.clone()) else {
            return;
        };
        for p in waiting {
            if self.processes[p].alive && !self.processes[p].paused {
                self.report_violation(
                    "I-answer",
                    format!("process {p} blocks a rebalance for a minute"),
                    None,
                    -1,
                );
            }
            self.expel(p);
        }
    }

    fn push_control(&mut self, p: usize, control: Control) {
        self.processes[p].controls.push_back(control);
        self.control_soon(p);
    }

    pub(crate) fn control_soon(&mut self, p: usize) {
        let delay = self.rng.range(1, 20) * MS;
        self.after(delay, Event::Control(p));
    }

    pub(crate) fn deliver_control(&mut self, p: usize) {
        let process = &mut self.processes[p];
        let is_loss = matches!(process.controls.front(), Some(Control::Lost(_)));
        // A loss replaces an unanswered event.
        if process.left || (process.outstanding.is_some() && !is_loss) {
            return;
        }
        let Some(control) = process.controls.pop_front() else { return };
        match control {
            Control::Assign(list) => self.deliver_assign(p, list),
            Control::Revoke(list) if list.is_empty() => {
                self.rejoined(p);
                self.control_soon(p);
            }
            Control::Revoke(list) => {
                self.deliver_revoke(p, list);
            }
            Control::Lost(_) => self.deliver_lost(p),
        }
    }

    fn deliver_assign(&mut self, p: usize, list: Vec<usize>) {
        for &index in &list {
            let part = &mut self.processes[p].parts[index];
            part.owned = true;
            part.epoch += 1;
            part.floor = None;
            self.note(p, "assign", Some(index), -1, 0);
        }
        let partitions: Vec<_> = list.iter().map(|&index| self.logs[index].partition).collect();
        self.make_producer(p);
        let request = self.begin_request(p, Control::Assign(list));
        self.feed(p, Input::AssignRequested { request, partitions: &partitions });
    }

    fn deliver_revoke(&mut self, p: usize, list: Vec<usize>) {
        self.saw(Seen::Revokes);
        let revoked = |row: &super::process::CallRow| list.contains(&row.partition);
        if self.processes[p].calls.values().any(|call| !call.ended && call.rows.iter().any(revoked)) {
            self.saw(Seen::RevokesWithCallsInFlight);
        }
        self.saw_while_undecided(p, Seen::RevokesWhileUndecided);
        for &index in &list {
            self.note(p, "revoke", Some(index), -1, 0);
        }
        let partitions: Vec<_> = list.iter().map(|&index| self.logs[index].partition).collect();
        let request = self.begin_request(p, Control::Revoke(list));
        self.feed(p, Input::Revoked { request, partitions: &partitions });
    }

    fn deliver_lost(&mut self, p: usize) {
        let parts = self.processes[p].parts.iter().enumerate();
        let list: Vec<_> = parts.filter(|(_, part)| part.owned).map(|(index, _)| index).collect();
        if list.is_empty() {
            self.after(10 * MS, Event::Join(p));
            return;
        }
        self.saw(Seen::Losses);
        self.saw_while_undecided(p, Seen::LossesWhileUndecided);
        for &index in &list {
            self.note(p, "lost", Some(index), -1, 0);
            self.processes[p].release_partition(index);
        }
        let partitions: Vec<_> = list.iter().map(|&index| self.logs[index].partition).collect();
        if self.processes[p].outstanding.is_some() {
            self.saw(Seen::LossesWhileUnanswered);
        }
        let request = self.begin_request(p, Control::Lost(list));
        self.feed(p, Input::Lost { request, partitions: &partitions });
    }

    fn begin_request(&mut self, p: usize, control: Control) -> RebalanceId {
        let since = self.now;
        let process = &mut self.processes[p];
        process.rebalances += 1;
        let id = RebalanceId(process.rebalances);
        process.outstanding = Some(Outstanding { id, control, since });
        id
    }

    /// The member has released its partitions.
    pub(crate) fn rejoined(&mut self, p: usize) {
        let Some(rebalance) = &mut self.group.rebalance else { return };
        rebalance.waiting.remove(&p);
        if rebalance.waiting.is_empty() {
            self.after(MS, Event::Rebalance);
        }
    }
}
