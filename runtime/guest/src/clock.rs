//! The ticker: a thread that moves the epoch, and the clock that deadlines are made of.
//!
//! Deadlines don't count real time. The clock moves only when the ticker turns and by at most
//! [`TURN_MAX`] per turn, so that a process that was stopped, throttled or suspended with its machine
//! charges no guest for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a guest computes before it lets others of its thread run. The shortest wait of the system's
/// timers is about as long, and 1,000 turns a second cost under 1 % of a core.
const TICK: Duration = Duration::from_millis(1);

/// The tick while no call is out: nothing has to yield, only callers look at the clock.
const IDLE_TICK: Duration = Duration::from_millis(10);

/// The most that one turn of the ticker adds to the clock.
pub const TURN_MAX: Duration = Duration::from_millis(100);

/// Real time, for measuring how long the guest worked. Deadlines never use it.
#[expect(clippy::disallowed_methods, reason = "how long a poll took is measured where the poll is made")]
pub(super) fn stopwatch() -> Instant {
    Instant::now()
}

/// Processor time that this thread has used.
pub(super) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

/// Time as the ticker counts it, since the engine was made.
#[derive(Debug, Default)]
pub struct Clock {
    micros: AtomicU64,
    calls_out: AtomicU32,
}

impl Clock {
    /// How far it is.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.micros())
    }

    fn micros(&self) -> u64 {
        self.micros.load(Ordering::Acquire)
    }

    /// One turn: `elapsed` of real time went by since the last one.
    fn advance(&self, elapsed: Duration) {
        self.micros.fetch_add(micros(elapsed.min(TURN_MAX)), Ordering::AcqRel);
    }

    pub(super) fn calls_started(&self, calls: usize) {
        self.calls_out.fetch_add(u32::try_from(calls).unwrap_or(u32::MAX), Ordering::AcqRel);
    }

    pub(super) fn calls_ended(&self, calls: usize) {
        self.calls_out.fetch_sub(u32::try_from(calls).unwrap_or(u32::MAX), Ordering::AcqRel);
    }

    fn tick(&self) -> Duration {
        if self.calls_out.load(Ordering::Acquire) > 0 { TICK } else { IDLE_TICK }
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Turns until dropped: moves `clock`, then calls `turned`.
    pub(super) fn start(clock: Arc<Clock>, turned: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("keylane-ticker".to_owned()).spawn(move || {
            let mut last = stopwatch();
            while !stopped.load(Ordering::Acquire) {
                std::thread::sleep(clock.tick());
                let now = stopwatch();
                clock.advance(now.saturating_duration_since(last));
                last = now;
                turned();
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

/// Why a call is to end before the guest is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its deadline is over.
    Deadline,
    /// It has used as much processor time as it may.
    OutOfCpu,
    /// The shell does not want it any more.
    Cancelled,
}

/// No stretch is open: the call stands ready behind others.
const CLOSED: u64 = u64::MAX;

const RUNNING_ON: u8 = 0;
const CANCELLED: u8 = 1;
const OUT_OF_CPU: u8 = 2;

/// Counts one call's time at a time: the stretches in which it runs or waits, not those in which it stands
/// ready behind others. Shared by the worker, the call's waker and the instance's epoch callback.
#[derive(Debug)]
pub(super) struct Meter {
    clock: Arc<Clock>,
    limit: AtomicU64,
    spent: AtomicU64,
    since: AtomicU64,
    /// When it was last given the thread.
    resumed: AtomicU64,
    told: AtomicU8,
    yielded: AtomicBool,
}

impl Meter {
    pub(super) fn new(clock: Arc<Clock>) -> Meter {
        Meter {
            clock,
            limit: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            since: AtomicU64::new(CLOSED),
            resumed: AtomicU64::new(0),
            told: AtomicU8::new(RUNNING_ON),
            yielded: AtomicBool::new(false),
        }
    }

    /// A new call begins; its first stretch opens with the first `resume`.
    pub(super) fn arm(&self, limit: Duration) {
        self.limit.store(micros(limit), Ordering::Release);
        self.spent.store(0, Ordering::Release);
        self.since.store(CLOSED, Ordering::Release);
        self.told.store(RUNNING_ON, Ordering::Release);
        self.yielded.store(false, Ordering::Release);
    }

    /// The call runs: opens a stretch, or goes on in the one that its waiting opened.
    pub(super) fn resume(&self) {
        let now = self.clock.micros();
        self.resumed.store(now, Ordering::Release);
        // An open stretch stays as it is.
        self.since.compare_exchange(CLOSED, now, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    /// The call stands ready: what follows is not its own time.
    pub(super) fn pause(&self) {
        let since = self.since.swap(CLOSED, Ordering::AcqRel);
        if since != CLOSED {
            let stretch = self.clock.micros().saturating_sub(since);
            self.spent.fetch_add(stretch, Ordering::AcqRel);
        }
    }

    pub(super) fn cancel(&self) {
        self.told.store(CANCELLED, Ordering::Release);
    }

    /// It has used too much; a cancel that came before stays.
    pub(super) fn out_of_cpu(&self) {
        self.told.compare_exchange(RUNNING_ON, OUT_OF_CPU, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    /// Whether the call must end now.
    pub(super) fn stop(&self) -> Option<Stop> {
        match self.told.load(Ordering::Acquire) {
            CANCELLED => return Some(Stop::Cancelled),
            OUT_OF_CPU => return Some(Stop::OutOfCpu),
            _ => {}
        }
        self.left().is_zero().then_some(Stop::Deadline)
    }

    /// What is left until the deadline: it comes no earlier than that, and later if the call stands ready meanwhile.
    pub(super) fn left(&self) -> Duration {
        let since = self.since.load(Ordering::Acquire);
        let open = if since == CLOSED { 0 } else { self.clock.micros().saturating_sub(since) };
        let spent = self.spent.load(Ordering::Acquire).saturating_add(open);
        Duration::from_micros(self.limit.load(Ordering::Acquire).saturating_sub(spent))
    }

    /// Whether the guest is to give way to others of its thread: there was a tick since it got the thread. One that
    /// comes back from waiting has missed many, and has used none of its turn.
    pub(super) fn gives_way(&self) -> bool {
        let ticked = self.clock.micros() != self.resumed.load(Ordering::Acquire);
        if ticked {
            self.yielded.store(true, Ordering::Release);
        }
        ticked
    }

    /// Whether it gave way since the last look.
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

    fn armed(limit_ms: u64) -> (Arc<Clock>, Meter) {
        let clock = Arc::new(Clock::default());
        let meter = Meter::new(clock.clone());
        meter.arm(Duration::from_millis(limit_ms));
        (clock, meter)
    }

    #[test]
    fn a_turn_adds_at_most_100_ms_however_long_the_process_stood_still() {
        let clock = Clock::default();
        clock.advance(Duration::from_millis(1));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(clock.now(), Duration::from_millis(101));
    }

    #[test]
    fn running_and_waiting_count_and_standing_ready_does_not() {
        let (clock, meter) = armed(100);
        meter.resume();
        clock.advance(Duration::from_millis(40)); // running or waiting
        meter.pause();
        clock.advance(Duration::from_millis(90)); // ready behind others
        assert_eq!(meter.stop(), None);
        meter.resume();
        clock.advance(Duration::from_millis(59));
        assert_eq!(meter.stop(), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(meter.stop(), Some(Stop::Deadline));
    }

    #[test]
    fn who_comes_back_from_waiting_has_used_none_of_its_turn() {
        let (clock, meter) = armed(100);
        meter.resume();
        clock.advance(Duration::from_millis(10)); // waiting
        meter.resume();
        assert!(!meter.gives_way() && !meter.take_yield());
        clock.advance(Duration::from_millis(1)); // computing
        assert!(meter.gives_way() && meter.take_yield());
    }

    #[test]
    fn a_cancel_wins_and_arming_forgets_it() {
        let (_, meter) = armed(100);
        meter.cancel();
        assert_eq!(meter.stop(), Some(Stop::Cancelled));
        meter.arm(Duration::from_millis(100));
        assert_eq!(meter.stop(), None);
    }
}
