//! Reports to standard error that the log filter does not apply to.

use std::io::{self, Write as _};
use std::sync::mpsc;

use super::log_queue::FLUSH_LIMIT;

/// Writes text to standard error without the log filter. Waits only up to a limit for the reader of standard error.
pub fn report(text: &str) {
    let (done, ended) = mpsc::sync_channel(1);
    let owned = text.to_owned();
    let thread = std::thread::Builder::new().spawn(move || {
        report_and_wait(&owned);
        let _gone = done.send(());
    });
    match thread {
        Ok(_) => drop(ended.recv_timeout(FLUSH_LIMIT)),
        Err(_) => report_and_wait(text),
    }
}

/// Writes text as [`report`] does, but waits without a limit: for cases in which there may be no memory for a thread.
pub fn report_and_wait(text: &str) {
    let _unread = io::stderr().lock().write_all(text.as_bytes());
}
