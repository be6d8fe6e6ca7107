//! Refreshing the metadata that a client has cached.
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::deadline::millis;
use super::{Client, sys};

/// Time limit of a refresh. If it fails, the next response shows it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Refreshes the metadata of a client on a thread of its own, because the library's request waits for its response.
#[derive(Debug, Default)]
pub(super) struct MetadataRefresh {
    runs: Arc<AtomicBool>,
}

impl MetadataRefresh {
    /// Starts a refresh, unless one runs.
    pub(super) fn start(&self, client: &Arc<Client>) {
        if self.runs.swap(true, Ordering::AcqRel) {
            return;
        }
        let (client, runs) = (Arc::clone(client), Arc::clone(&self.runs));
        let refresh = move || {
            refresh(&client);
            runs.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("keylane-metadata".to_owned()).spawn(refresh).is_err() {
            self.runs.store(false, Ordering::Release);
        }
    }
}

/// Requests the metadata of all topics that the client knows or has cached.
fn refresh(client: &Client) {
    let mut metadata: *const sys::RawMetadata = ptr::null();
    // SAFETY: the client is live. On success the metadata is ours, and is destroyed.
    unsafe {
        let code =
            sys::rd_kafka_metadata(client.raw(), 0, ptr::null_mut(), &raw mut metadata, millis(TIMEOUT));
        if code == 0 {
            sys::rd_kafka_metadata_destroy(metadata);
        }
    }
}
