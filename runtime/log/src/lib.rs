//! Keylane's log: lines on standard error.

#![forbid(unsafe_code)]

mod log_queue;
mod logging;
mod panic;
mod report;
mod throttle;

pub use log_queue::flush;
pub use logging::{Format, LoggingError, start_logging};
pub use panic::end_on_panic;
pub use report::{report, report_and_wait};
pub use throttle::{ClockedLineThrottle, LinePermit, LineThrottle};
