//! One file descriptor that wakes a thread for any cause.
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// The file descriptor that wakes the thread in [`Wake::wait`]. Waking is cheap if that thread is already awake: only
/// the first call after a wait writes to the descriptor.
#[derive(Debug)]
pub struct Wake {
    fd: OwnedFd,
    pending: AtomicBool,
}

/// A handle, shared by the thread that waits and all threads that may wake it.
pub type WakeHandle = Arc<Wake>;

impl Wake {
    /// Creates a descriptor with no wake pending.
    pub fn new() -> io::Result<WakeHandle> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Wake { fd, pending: AtomicBool::new(false) }))
    }

    /// Ends the current wait, or the next one. The data for the woken thread must be in place before this call.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // The write fails only if the counter is full, and then the thread is woken anyway.
            let _full = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Sleeps until woken or until the timeout; `None` waits without limit. Returns whether a wake ended the wait.
    /// Check every source afterwards: several wakes count as one.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let limit =
            timeout.map(|wait| Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 }));
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        // An interrupted wait is a short one: the caller checks its sources and waits again.
        let ready = poll(&mut fds, limit.as_ref()).unwrap_or(0);
        let mut counter = [0_u8; 8];
        let _empty = rustix::io::read(&self.fd, &mut counter);
        self.pending.swap(false, Ordering::AcqRel) || ready > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_wait_is_not_lost() {
        let wake = Wake::new().expect("an eventfd can be created");
        assert!(!wake.wait(Some(Duration::ZERO)));
        wake.wake();
        wake.wake();
        assert!(wake.wait(None));
        assert!(!wake.wait(Some(Duration::ZERO)));
    }

    #[test]
    fn a_wake_of_another_thread_ends_the_wait() {
        let wake = Wake::new().expect("an eventfd can be created");
        let other = Arc::clone(&wake);
        let thread = std::thread::spawn(move || other.wake());
        assert!(wake.wait(None));
        thread.join().expect("the thread only wakes");
    }
}
