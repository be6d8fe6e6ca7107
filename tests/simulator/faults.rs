//! Faults: what is injected, when it stops, and how processes come and go.

use keylane_core::Input;
use keylane_core::codec::Encoder;

use super::plan::{Class, MS, SECOND};
use super::planted::Planted;
use super::trace::Seen;
use super::world::{Event, Stage, World};

type InjectedFault = (Class, fn(&mut World));

/// The external faults, by class.
const INJECTED_FAULTS: [InjectedFault; 12] = [
    (Class::Kill, World::kill),
    (Class::Pause, World::pause),
    (Class::Expelled, World::expel_running),
    (Class::Scale, World::scale),
    (Class::Retention, World::retain),
    (Class::Replaced, World::replace_topic),
    (Class::Damage, World::damage),
    (Class::ForeignMetadata, World::write_foreign_metadata),
    (Class::Backlog, World::fill_backlog),
    (Class::CoordinatorAway, World::take_coordinator_away),
    (Class::OffsetsReset, World::reset_offset),
    (Class::StoreFiles, World::harm_file),
];

impl World {
    pub(crate) fn fault(&mut self) {
        if self.stage != Stage::Faults {
            return;
        }
        let on: Vec<_> = INJECTED_FAULTS.into_iter().filter(|&(class, _)| self.has(class)).collect();
        if !on.is_empty() {
            let (_, inject) = self.rng.pick(&on);
            inject(self);
        }
        let delay = self.rng.range(self.plan.fault_every / 4, 2 * self.plan.fault_every);
        self.after(delay, Event::Fault);
    }

    fn any_process(&mut self) -> Option<usize> {
        let running: Vec<_> = (0..self.processes.len())
            .filter(|&p| self.processes[p].alive && !self.processes[p].paused)
            .collect();
        (!running.is_empty()).then(|| self.rng.pick(&running))
    }

    /// The producer has no capacity for a while.
    fn fill_backlog(&mut self) {
        if self.is_transactional() {
            return; // effects are kept instead
        }
        let Some(p) = self.any_process() else { return };
        self.saw(Seen::Backlogs);
        self.set_backlog(p, true);
        let delay = self.rng.range(10 * MS, 4 * SECOND);
        self.after(delay, Event::BacklogCleared(p));
    }

    pub(crate) fn set_backlog(&mut self, p: usize, full: bool) {
        self.processes[p].backlog = full;
        if self.planted != Some(Planted::HideBacklog) {
            self.feed(p, Input::OutputBacklog { full });
        }
    }

    fn kill(&mut self) {
        let Some(p) = self.any_process() else { return };
        if self.rng.percent(50) {
            // The process is killed in the middle of its next step.
            self.processes[p].actions_until_kill = Some(self.rng.below(8));
        } else {
            self.die(p);
        }
    }

    /// Counts the actions of a process that is to be killed in the middle of a step, and kills it when they are used
    /// up.
    pub(crate) fn kill_if_due(&mut self, p: usize) -> bool {
        match &mut self.processes[p].actions_until_kill {
            Some(0) => {
                self.saw(Seen::KillsMidStep);
                self.die(p);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// The process ends without notice. Requests that it sent are still delivered. The group
    /// detects the end later.
    pub(crate) fn die(&mut self, p: usize) {
        if !self.processes[p].alive {
            return;
        }
        self.saw(Seen::Kills);
        self.note(p, "killed", None, -1, 0);
        self.end_process(p);
        self.after(self.plan.session_timeout, Event::Expire(p));
    }

    pub(crate) fn end_process(&mut self, p: usize) {
        let process = &mut self.processes[p];
        process.alive = false;
        process.core = None;
        let instance = process.instance;
        let mut delay = self.rng.range(50 * MS, 5 * SECOND);
        let others = self.processes.iter().any(|process| process.alive);
        if self.plan.until_end && self.stage == Stage::Healing && others {
            // Under `--until-end`, every process leaves as soon as it can. Attempts start again in
            // each ownership, so one process must keep its ownerships long enough to finish the
            // attempts.
            delay += 20 * SECOND;
        }
        if !self.processes[p].shell.is_superseded() {
            self.after(delay, Event::ProcessStart(instance));
        }
        if self.stage == Stage::Leaving && self.processes.iter().all(|process| !process.alive) {
            self.check_end();
        }
    }

    fn pause(&mut self) {
        let Some(p) = self.any_process() else { return };
        self.saw(Seen::Pauses);
        self.note(p, "paused", None, -1, 0);
        self.processes[p].paused = true;
        self.processes[p].paused_at = self.now;
        self.after(self.plan.session_timeout, Event::Expire(p));
        self.supersede(p);
        let duration = self.rng.range(200 * MS, 12 * SECOND);
        self.after(duration, Event::Resume(p));
    }

    fn expel_running(&mut self) {
        let Some(p) = self.any_process() else { return };
        if self.group.members.contains(&p) {
            self.expel(p);
        }
    }

    pub(crate) fn resume(&mut self, p: usize) {
        let now = self.now;
        let process = &mut self.processes[p];
        if !process.alive || !std::mem::take(&mut process.paused) {
            return;
        }
        process.resumed_at = now;
        let deferred = std::mem::take(&mut process.deferred);
        self.note(p, "resumed", None, -1, deferred.len() as i64);
        for (at, event) in deferred.into_iter().enumerate() {
            self.after(at as u64, event);
        }
    }

    fn scale(&mut self) {
        if self.rng.percent(40) && self.start_another() {
            return;
        }
        if let Some(p) = self.any_process() {
            self.drain(p);
        }
    }

    /// Starts another process, unless there are many.
    pub(crate) fn start_another(&mut self) -> bool {
        let alive = self.processes.iter().filter(|process| process.alive).count();
        if alive < 4 {
            let instance = self.processes.len() + 100;
            self.after(0, Event::ProcessStart(instance));
        }
        alive < 4
    }

    pub(crate) fn drain(&mut self, p: usize) {
        if std::mem::replace(&mut self.processes[p].draining, true) {
            return;
        }
        self.note(p, "drain", None, -1, 0);
        self.saw_while_undecided(p, Seen::DrainsWhileUndecided);
        let member = self.group.members.contains(&p);
        self.processes[p].expects_clean = member && self.stage == Stage::Leaving;
        if self.occurs(Class::SecondSignal, 30) {
            let delay = self.rng.range(MS, 500 * MS);
            self.after(delay, Event::DrainDeadlineNow(p));
        }
        let deadline = self.uptime(p) + std::time::Duration::from_secs(10);
        self.feed(p, Input::Drain { deadline });
    }

    pub(crate) fn drain_deadline_now(&mut self, p: usize) {
        self.saw(Seen::DrainsUrgent);
        self.note(p, "drain deadline now", None, -1, 0);
        let deadline = self.uptime(p);
        self.feed(p, Input::Drain { deadline });
    }

    /// Retention deletes the head of a log.
    fn retain(&mut self) {
        let index = self.rng.index(self.logs.len());
        let log = &mut self.logs[index];
        let Some(last) = log.records.len().checked_sub(1) else { return };
        let first = log.position(log.start);
        let to = self.rng.range(first.min(last) as u64, last as u64) as usize;
        log.start = log.start.max(log.records[to].offset);
        let start = log.start;
        log.waive_outcomes(i64::MIN, start);
        self.note(0, "retention", Some(index), start, 0);
    }

    fn damage(&mut self) {
        let index = self.rng.index(self.logs.len());
        let times = self.rng.pick(&[1, 1, 2, 100]);
        let log = &mut self.logs[index];
        // Usually, this is the next record to arrive.
        let at = log.records.last().map_or(log.end, |last| last.offset);
        log.damage = Some((at, times));
        self.note(0, "damage", Some(index), at, i64::from(times));
    }

    fn write_foreign_metadata(&mut self) {
        let index = self.rng.index(self.logs.len());
        let Some(stored) = self.stored[index].clone() else { return };
        let (offset, mut metadata) = (stored.offset, stored.metadata);
        let end = self.logs[index].end;
        let encode = |at: i64, runs: &[(u64, u64)], world: &World| {
            let mut text = String::new();
            let identity = world.identity(index, at);
            Encoder::default().encode(&identity, runs.iter().copied(), 200, &mut text);
            text.into_bytes()
        };
        match self.rng.below(5) {
            0 => metadata = b"\xff\xfe not ours".to_vec(),
            1 => metadata = b"kl2:AQAAAQ".to_vec(),
            2 => match metadata.len() {
                0 => metadata = b"kl1:".to_vec(),
                length => {
                    let at = self.rng.index(length);
                    metadata[at] ^= 1 << self.rng.below(7);
                }
            },
            // A tool has moved the offset but kept the completed set, or vice versa.
            3 => metadata = encode(offset - 1, &[(1, 2)], self),
            // The set is valid, but belongs to a much longer log.
            _ => metadata = encode(offset, &[((end - offset).max(0) as u64 + 100_000, 3)], self),
        }
        self.note(0, "foreign metadata", Some(index), offset, metadata.len() as i64);
        if let Some(stored) = &mut self.stored[index] {
            stored.metadata = metadata;
        }
    }

    /// No more faults are injected. Everything must be committed.
    pub(crate) fn heal(&mut self) {
        self.note(0, "heal", None, -1, 0);
        self.stage = Stage::Healing;
        self.plan.heal();
        self.resend_values();
        self.bring_coordinator_back();
        let reset = self.logs.iter().any(|log| log.offsets_reset);
        let reset = reset || (0..self.logs.len()).any(|index| self.is_unbound(index));
        for log in &mut self.logs {
            log.damage = None;
        }
        for p in 0..self.processes.len() {
            self.processes[p].actions_until_kill = None;
            self.resume(p);
            let process = &self.processes[p];
            // An operator who has reset offsets restarts the processes: they don't notice it.
            if process.alive && (reset || process.parts.iter().any(|part| part.stopped)) {
                self.after(MS, Event::Drain(p));
            }
            for index in 0..self.logs.len() {
                self.wake_reader(p, index);
            }
        }
        self.deadline_at = self.now + 60 * SECOND;
        self.after(60 * SECOND, Event::Deadline);
        self.after(100 * MS, Event::Check);
    }
}
