//! The versions of Keylane and its engines.

use std::sync::LazyLock;

use crate::librdkafka;

/// The lock file that this binary was built with: the crate `wasmtime` exports no constant for its version.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Returns the text of `keylane --version`: the versions of Keylane and its engines.
pub(super) fn versions() -> &'static str {
    static VERSIONS: LazyLock<String> = LazyLock::new(|| {
        let librdkafka = librdkafka::version();
        let wasmtime = locked_version(LOCK, "wasmtime").unwrap_or("unknown");
        format!("{}\nwasmtime {wasmtime}\nlibrdkafka {librdkafka}", env!("CARGO_PKG_VERSION"))
    });
    &VERSIONS
}

fn locked_version<'l>(lock: &'l str, package: &str) -> Option<&'l str> {
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    after.split('"').next()
}
