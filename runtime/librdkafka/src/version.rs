//! The version of the library.
use super::{code, sys};

/// Returns the version of librdkafka that this program is linked with.
pub fn version() -> String {
    // SAFETY: the function has no arguments and returns a string that ends with a NUL and is never freed.
    unsafe { code::text(sys::rd_kafka_version_str()) }
}
