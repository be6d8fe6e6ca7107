//! The ticker, a thread that advances the epoch, and the clock for deadlines.
//!
//! Deadlines don't count real time. The clock advances only when the ticker ticks and by at most
//! `ADVANCE_MAX` per tick, so that the time in which the process was stopped, throttled or suspended with its
//! machine is not charged to guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a guest computes before it yields to other guests of its thread. The shortest wait of the system's timers
/// is about as long, and 1,000 ticks a second cost under 1 % of a core.
const TICK: Duration = Duration::from_millis(1);

/// The tick while no call is in progress: no guest has to yield, and only callers read the clock.
const IDLE_TICK: Duration = Duration::from_millis(10);

/// The most that one tick adds to the clock.
const ADVANCE_MAX: Duration = Duration::from_millis(100);

/// Returns the real time, to measure how long a guest worked. Deadlines never use it.
#[expect(clippy::disallowed_methods, reason = "the duration of a poll is measured where it is polled")]
pub(super) fn real_now() -> Instant {
    Instant::now()
}

/// Returns the CPU time used by this thread.
pub(super) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

/// Time as counted by the ticker, since the engine was created.
#[derive(Debug, Default)]
pub struct TickClock {
    micros: AtomicU64,
    calls_in_progress: AtomicU32,
}

impl TickClock {
    /// Returns the time since the engine was created.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.micros())
    }

    fn micros(&self) -> u64 {
        self.micros.load(Ordering::Acquire)
    }

    /// Advances the clock by one tick. `elapsed`: the real time since the last one.
    fn advance(&self, elapsed: Duration) {
        self.micros.fetch_add(micros(elapsed.min(ADVANCE_MAX)), Ordering::AcqRel);
    }

    pub(super) fn calls_submitted(&self, calls: usize) {
        self.calls_in_progress.fetch_add(u32::try_from(calls).unwrap_or(u32::MAX), Ordering::AcqRel);
    }

    pub(super) fn calls_ended(&self, calls: usize) {
        self.calls_in_progress.fetch_sub(u32::try_from(calls).unwrap_or(u32::MAX), Ordering::AcqRel);
    }

    fn tick_interval(&self) -> Duration {
        if self.calls_in_progress.load(Ordering::Acquire) > 0 { TICK } else { IDLE_TICK }
    }
}

/// The ticker thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Ticks until dropped: advances `clock`, then calls `on_tick`.
    pub(super) fn start(
        clock: Arc<TickClock>,
        on_tick: impl Fn() + Send + 'static,
    ) -> std::io::Result<Ticker> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("keylane-ticker".to_owned()).spawn(move || {
            let mut last = real_now();
            while !stopped.load(Ordering::Acquire) {
                std::thread::sleep(clock.tick_interval());
                let now = real_now();
                clock.advance(now.saturating_duration_since(last));
                last = now;
                on_tick();
            }
        })?;
        Ok(Ticker { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A ticker that panicked has nothing left to clean up.
            drop(thread.join());
        }
    }
}

/// Why a call must end before the guest returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The deadline has passed.
    Deadline,
    /// The budget of CPU time is used up.
    OutOfCpu,
    /// The call was cancelled.
    Cancelled,
}

/// No interval is open: the call is ready, but other calls run.
const CLOSED: u64 = u64::MAX;

const NOT_STOPPED: u8 = 0;
const CANCELLED: u8 = 1;
const OUT_OF_CPU: u8 = 2;

/// The meter of one call's time: the intervals in which the call runs or is suspended, but not those in which it is
/// ready while other calls run. Shared by the worker, the call's waker and the instance's epoch callback.
#[derive(Debug)]
pub(super) struct Meter {
    clock: Arc<TickClock>,
    limit: AtomicU64,
    spent: AtomicU64,
    since: AtomicU64,
    /// When the call last got the thread.
    resumed: AtomicU64,
    stop: AtomicU8,
    yielded: AtomicBool,
}

impl Meter {
    pub(super) fn new(clock: Arc<TickClock>) -> Meter {
        Meter {
            clock,
            limit: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            since: AtomicU64::new(CLOSED),
            resumed: AtomicU64::new(0),
            stop: AtomicU8::new(NOT_STOPPED),
            yielded: AtomicBool::new(false),
        }
    }

    /// Begins a new call; its first interval opens with the first `resume`.
    pub(super) fn arm(&self, limit: Duration) {
        self.limit.store(micros(limit), Ordering::Release);
        self.spent.store(0, Ordering::Release);
        self.since.store(CLOSED, Ordering::Release);
        self.stop.store(NOT_STOPPED, Ordering::Release);
        self.yielded.store(false, Ordering::Release);
    }

    /// Opens an interval because the call runs, or continues the one in which the call was suspended.
    pub(super) fn resume(&self) {
        let now = self.clock.micros();
        self.resumed.store(now, Ordering::Release);
        // An open interval stays open.
        self.since.compare_exchange(CLOSED, now, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    /// Closes the interval because the call is ready while others run: the time from now on is not charged to it.
    pub(super) fn pause(&self) {
        let since = self.since.swap(CLOSED, Ordering::AcqRel);
        if since != CLOSED {
            let interval = self.clock.micros().saturating_sub(since);
            self.spent.fetch_add(interval, Ordering::AcqRel);
        }
    }

    pub(super) fn cancel(&self) {
        self.stop.store(CANCELLED, Ordering::Release);
    }

    /// Stops the call because its budget of CPU time is used up. An earlier cancel takes precedence.
    pub(super) fn stop_out_of_cpu(&self) {
        self.stop.compare_exchange(NOT_STOPPED, OUT_OF_CPU, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    /// Returns why the call must end now; `None`: it may continue.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        match self.stop.load(Ordering::Acquire) {
            CANCELLED => return Some(StopReason::Cancelled),
            OUT_OF_CPU => return Some(StopReason::OutOfCpu),
            _ => {}
        }
        self.left().is_zero().then_some(StopReason::Deadline)
    }

    /// Returns the time until the deadline. The call may end later, if it is ready while others run.
    pub(super) fn left(&self) -> Duration {
        let since = self.since.load(Ordering::Acquire);
        let open = if since == CLOSED { 0 } else { self.clock.micros().saturating_sub(since) };
        let spent = self.spent.load(Ordering::Acquire).saturating_add(open);
        Duration::from_micros(self.limit.load(Ordering::Acquire).saturating_sub(spent))
    }

    /// Returns whether the guest must yield to others of its thread, because there was a tick since it got the thread.
    /// Ticks while the call was suspended do not count: a call that resumes has used none of its time slice.
    pub(super) fn yield_if_ticked(&self) -> bool {
        let ticked = self.clock.micros() != self.resumed.load(Ordering::Acquire);
        if ticked {
            self.yielded.store(true, Ordering::Release);
        }
        ticked
    }

    /// Returns whether the guest yielded since the last call of this function.
    pub(super) fn take_yield(&self) -> bool {
        self.yielded.swap(false, Ordering::AcqRel)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(limit_ms: u64) -> (Arc<TickClock>, Meter) {
        let clock = Arc::new(TickClock::default());
        let meter = Meter::new(clock.clone());
        meter.arm(Duration::from_millis(limit_ms));
        (clock, meter)
    }

    #[test]
    fn a_tick_adds_at_most_100_ms_however_long_the_process_was_stopped() {
        let clock = TickClock::default();
        clock.advance(Duration::from_millis(1));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(clock.now(), Duration::from_millis(101));
    }

    #[test]
    fn running_and_being_suspended_count_and_being_ready_does_not() {
        let (clock, meter) = armed(100);
        meter.resume();
        clock.advance(Duration::from_millis(40)); // running or suspended
        meter.pause();
        clock.advance(Duration::from_millis(90)); // ready, others run
        assert_eq!(meter.stop_reason(), None);
        meter.resume();
        clock.advance(Duration::from_millis(59));
        assert_eq!(meter.stop_reason(), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(meter.stop_reason(), Some(StopReason::Deadline));
    }

    #[test]
    fn a_suspended_call_that_resumes_has_used_none_of_its_time_slice() {
        let (clock, meter) = armed(100);
        meter.resume();
        clock.advance(Duration::from_millis(10)); // suspended
        meter.resume();
        assert!(!meter.yield_if_ticked() && !meter.take_yield());
        clock.advance(Duration::from_millis(1)); // computing
        assert!(meter.yield_if_ticked() && meter.take_yield());
    }

    #[test]
    fn a_cancel_stops_the_call_and_arming_resets_it() {
        let (_, meter) = armed(100);
        meter.cancel();
        assert_eq!(meter.stop_reason(), Some(StopReason::Cancelled));
        meter.arm(Duration::from_millis(100));
        assert_eq!(meter.stop_reason(), None);
    }
}
