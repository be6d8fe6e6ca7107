//! The local store of one changelog, with the size of its queue: whoever restores a partition must not fill it without
//! limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keylane_state::{Entry, FileIdentity, KeyBytes, SessionId, StateStore, StoreEvent, StoreSpec};

/// A store, and the bytes in its queue.
pub struct LocalStore {
    store: StateStore,
    queued: Arc<AtomicUsize>,
}

impl LocalStore {
    /// Starts the store. `on_event` is called on its thread, for every event but [`StoreEvent::Applied`].
    ///
    /// # Errors
    /// The thread can't be created.
    pub fn start(
        spec: StoreSpec,
        on_event: impl Fn(StoreEvent) + Send + 'static,
    ) -> std::io::Result<LocalStore> {
        let queued = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&queued);
        let store = StateStore::start(
            spec,
            Box::new(move |event| {
                if let StoreEvent::Applied { bytes, .. } = event {
                    counted.fetch_sub(bytes, Ordering::AcqRel);
                } else {
                    on_event(event);
                }
            }),
        )?;
        Ok(LocalStore { store, queued })
    }

    /// Returns the bytes of the entries that are not applied yet.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// See [`StateStore::open`].
    pub fn open(&self, partition: i32, session: SessionId, identity: FileIdentity, now_ms: i64) {
        self.store.open(partition, session, identity, now_ms);
    }

    /// See [`StateStore::apply`].
    pub fn apply(&self, partition: i32, session: SessionId, entries: Vec<Entry>, through: Option<i64>) {
        let bytes: usize = entries.iter().map(Entry::bytes).sum();
        self.queued.fetch_add(bytes, Ordering::AcqRel);
        self.store.apply(partition, session, entries, through);
    }

    /// See [`StateStore::load`].
    pub fn load(&self, partition: i32, session: SessionId, token: u64, keys: Vec<KeyBytes>) {
        self.store.load(partition, session, token, keys);
    }

    /// See [`StateStore::scan`].
    pub fn scan(&self, partition: i32, session: SessionId, after: Option<KeyBytes>, changed_before_ms: i64) {
        self.store.scan(partition, session, after, changed_before_ms);
    }

    /// See [`StateStore::at_log_end`].
    pub fn at_log_end(&self, partition: i32, session: SessionId, now_ms: i64) {
        self.store.at_log_end(partition, session, now_ms);
    }

    /// See [`StateStore::close`].
    pub fn close(&self, partition: i32, session: SessionId) {
        self.store.close(partition, session);
    }
}
