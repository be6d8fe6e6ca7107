//! Keylane's log: lines on standard error.

#![forbid(unsafe_code)]

mod log_queue;
mod logging;
mod panic;
mod progress;
mod recent_lines;
mod report;
mod throttle;

pub use log_queue::{flush, lines_dropped};
pub use logging::{
    Format, GUEST_TARGET, LoggingError, REPORT_TARGET, check_filter, set_filter, start_logging,
};
pub use panic::end_on_panic;
pub use progress::ProgressLine;
pub use recent_lines::{RecentLine, recent_lines};
pub use report::{report, report_and_wait};
pub use throttle::{ClockedLineThrottle, LinePermit, LineThrottle};
