//! Keylane's log: lines on standard error.

#![forbid(unsafe_code)]

mod logging;
mod throttle;
mod writer;

pub use logging::{Format, LoggingError, start_logging};
pub use throttle::{Allowed, LineLimit, Throttle};
pub use writer::{end_on_panic, flush, report, report_and_wait};
