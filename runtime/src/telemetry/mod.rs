//! What Keylane says while it runs: log lines on standard error.

mod logging;
mod throttle;

pub use logging::{Format, LoggingError, start_logging};
pub use throttle::{LineLimit, Throttle};
