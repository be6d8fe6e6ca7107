//! Injected I/O errors, for tests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A switch: while it is on, each access to the storage fails as on a full disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<AtomicBool>);

impl Faults {
    pub(super) fn set(&self, failing: bool) {
        self.0.store(failing, Ordering::Release);
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
