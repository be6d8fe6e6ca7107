//! What Keylane says while it runs: log lines on standard error.

mod logging;

pub use logging::{Format, LoggingError, start_logging};
