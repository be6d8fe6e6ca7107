//! A panic ends the process.

use super::log_queue::{FLUSH_LIMIT, flush};

/// Makes every panic, on any thread, end the process: a panic is a broken invariant of ours. Without this, the
/// partitions of the panicked thread would stall. Kafka has the committed offset, so nothing is lost. The wait for the
/// reader of the report is limited.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // If there is no memory for this thread, the report is written without a limit.
        let _watchdog = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(FLUSH_LIMIT);
            std::process::abort();
        });
        report(panic); // before the flush: the report contains the reason, and the time is limited
        flush();
        std::process::abort();
    }));
}
