//! SIGTERM, SIGINT, SIGQUIT and SIGHUP: the first asks for a drain, a second one ends the process at once.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Handle;

/// What asks for a drain.
const SIGNALS: [(c_int, &str); 4] =
    [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGQUIT, "SIGQUIT"), (SIGHUP, "SIGHUP")];

/// A thread that hears signals.
pub(super) struct Signals {
    handle: Handle,
}

impl Signals {
    /// Calls `heard` with the name of each signal, until it returns false.
    pub(super) fn listen(heard: impl Fn(&'static str) -> bool + Send + 'static) -> io::Result<Signals> {
        let again = Arc::new(AtomicBool::new(false));
        // `nohup` means it: a terminal that goes away is nothing to it.
        let wanted = || SIGNALS.into_iter().filter(|&(signal, _)| signal != SIGHUP || !is_ignored(SIGHUP));
        for (signal, _) in wanted() {
            // In this order: the flag is still down when the first signal comes.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&again))?;
            signal_hook::flag::register(signal, Arc::clone(&again))?;
        }
        let numbers: Vec<c_int> = wanted().map(|(signal, _)| signal).collect();
        let mut signals = signal_hook::iterator::Signals::new(numbers)?;
        let handle = signals.handle();
        thread::Builder::new().name("keylane-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let name =
                    SIGNALS.into_iter().find(|(known, _)| *known == signal).map_or("?", |(_, name)| name);
                if !heard(name) {
                    return;
                }
            }
        })?;
        Ok(Signals { handle })
    }

    /// Ends the thread. A signal that comes later still ends the process if it is the second one.
    pub(super) fn stop(self) {
        self.handle.close();
    }
}

/// Whether whoever started this process had the signal ignored.
fn is_ignored(signal: c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
