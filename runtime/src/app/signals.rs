//! SIGTERM and SIGINT: the first asks for a drain, a second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Handle;

/// A thread that hears signals.
pub(super) struct Signals {
    handle: Handle,
}

impl Signals {
    /// Calls `heard` with the name of each signal, until it returns false.
    pub(super) fn listen(heard: impl Fn(&'static str) -> bool + Send + 'static) -> io::Result<Signals> {
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the flag is still down when the first signal comes.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&again))?;
            signal_hook::flag::register(signal, Arc::clone(&again))?;
        }
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        thread::Builder::new().name("keylane-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if !heard(if signal == SIGTERM { "SIGTERM" } else { "SIGINT" }) {
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
