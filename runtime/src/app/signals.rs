//! SIGTERM, SIGINT, SIGQUIT and SIGHUP: the first signal requests a drain, and a second one ends the process at once.
//! SIGUSR1 requests a report.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Handle;

/// The signals that request a drain.
const DRAIN_SIGNALS: [(c_int, &str); 4] =
    [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGQUIT, "SIGQUIT"), (SIGHUP, "SIGHUP")];

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A drain, by the signal of this name.
    Drain(&'static str),
    /// A report of each handler in the log.
    Report,
}

/// A thread that receives signals.
pub(super) struct Signals {
    handle: Handle,
}

impl Signals {
    /// Calls `receive` with each request, until it returns false.
    pub(super) fn listen(receive: impl Fn(Request) -> bool + Send + 'static) -> io::Result<Signals> {
        let second = Arc::new(AtomicBool::new(false));
        // `nohup` makes the process ignore SIGHUP, so that it survives the end of its terminal.
        let drain_signals =
            || DRAIN_SIGNALS.into_iter().filter(|&(signal, _)| signal != SIGHUP || !is_ignored(SIGHUP));
        for (signal, _) in drain_signals() {
            // The order matters: at the first signal, the shutdown is skipped because the flag is not set yet.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&second))?;
            signal_hook::flag::register(signal, Arc::clone(&second))?;
        }
        let numbers: Vec<c_int> =
            drain_signals().map(|(signal, _)| signal).chain(std::iter::once(SIGUSR1)).collect();
        let mut signals = signal_hook::iterator::Signals::new(numbers)?;
        let handle = signals.handle();
        thread::Builder::new().name("keylane-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let drain = DRAIN_SIGNALS.into_iter().find(|(known, _)| *known == signal);
                if !receive(drain.map_or(Request::Report, |(_, name)| Request::Drain(name))) {
                    return;
                }
            }
        })?;
        Ok(Signals { handle })
    }

    /// Ends the thread. A later signal still ends the process if it is the second one.
    pub(super) fn stop(self) {
        self.handle.close();
    }
}

/// Returns whether the parent process made this process ignore the signal.
fn is_ignored(signal: c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
