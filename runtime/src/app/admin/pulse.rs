//! The signs of life of one event loop: written by the loop, read by the admin server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters and flags with one writer. They publish no other data, so relaxed ordering suffices.
#[derive(Debug, Default)]
pub(in crate::app) struct Pulse {
    turns: AtomicU64,
    assigned: AtomicBool,
    leaving: AtomicBool,
}

impl Pulse {
    /// Counts a turn of the loop.
    pub(in crate::app) fn turned(&self) {
        // A plain load and store: the loop is the only writer, and a locked instruction would cost it more.
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    pub(in crate::app) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Notes that an assignment was answered, even an empty one.
    pub(in crate::app) fn assigned(&self) {
        self.assigned.store(true, Ordering::Relaxed);
    }

    pub(in crate::app) fn was_assigned(&self) -> bool {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Notes that the loop has ended and leaves its group, which may take seconds without a turn.
    pub(in crate::app) fn leaves(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(in crate::app) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}

/// Detects a loop that no longer turns. The clock is the number of checks: a process that was suspended as a whole is
/// not reported, because the checks were suspended, too.
#[derive(Debug, Default)]
pub(super) struct LivenessCheck {
    turns: u64,
    checks_without_turn: u32,
}

/// Number of checks, a second apart, after which a loop that has not turned counts as stuck.
const CHECKS_MAX: u32 = 10;

impl LivenessCheck {
    /// Checks once.
    pub(super) fn check(&mut self, pulse: &Pulse) {
        let turns = pulse.turns();
        let counts = turns == self.turns && !pulse.is_leaving();
        self.checks_without_turn = if counts { self.checks_without_turn.saturating_add(1) } else { 0 };
        self.turns = turns;
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.checks_without_turn > CHECKS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_without_turns_is_stuck_after_ten_checks() {
        let (pulse, mut liveness) = (Pulse::default(), LivenessCheck::default());
        pulse.turned();
        liveness.check(&pulse);
        for _ in 0..CHECKS_MAX {
            liveness.check(&pulse);
            assert!(!liveness.is_stuck());
        }
        liveness.check(&pulse);
        assert!(liveness.is_stuck());
        pulse.turned();
        liveness.check(&pulse);
        assert!(!liveness.is_stuck(), "it turns again");
    }

    #[test]
    fn a_loop_that_leaves_its_group_is_not_stuck() {
        let (pulse, mut liveness) = (Pulse::default(), LivenessCheck::default());
        pulse.leaves();
        (0..100).for_each(|_| liveness.check(&pulse));
        assert!(!liveness.is_stuck());
    }
}
