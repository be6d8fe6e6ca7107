//! Gates.

use std::time::Duration;

use super::Core;
use crate::{KeyMemory, LookUpId, Partition};

impl Core {
    pub(super) fn log_end_seen(&mut self, _id: Partition, _end: i64, _sent_at: Duration) {}

    pub(super) fn key_known(&mut self, _request: LookUpId, _memory: &KeyMemory) {}
}
