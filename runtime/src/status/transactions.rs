//! The status of transactional delivery.

use serde::{Deserialize, Serialize};

/// The setting `delivery`, as far as it is in force: the embedded broker has no transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryMode {
    /// Outputs are published at once, and offsets are committed when they are acknowledged.
    AtLeastOnce,
    /// Outputs, dead letters and offsets are published together, in transactions.
    Transactional,
}

/// The transactions of a handler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransactionsStatus {
    /// Committed transactions.
    pub committed: u64,
    /// Aborted transactions. Their content is repeated.
    pub aborted: u64,
    /// Outputs and dead letters of committed transactions.
    pub records: u64,
    /// Committed transactions per second, over the last ten seconds; `None`: it has just started.
    pub rate: Option<f64>,
    /// Records per transaction, over the last ten seconds; `None`: there was none.
    pub records_per_transaction: Option<f64>,
    /// The time from the snapshot of a transaction to its commit, over the last ten seconds: the median, in microseconds, as the
    /// upper bound of its bucket; `None`: there was none, or it has no upper bound.
    pub p50_us: Option<u64>,
    /// The 99th percentile of that time.
    pub p99_us: Option<u64>,
    /// Bytes of outputs and dead letters that no committed transaction contains yet.
    pub kept_bytes: u64,
    /// The last aborted transaction; `None`: there was none.
    pub last_abort: Option<AbortStatus>,
    /// Why the brokers can't keep transactions at the moment; `None`: they can.
    pub unavailable: Option<String>,
}

impl TransactionsStatus {
    /// Removes what describes the last ten seconds.
    pub fn forget_recent(&mut self) {
        (self.rate, self.records_per_transaction) = (None, None);
        (self.p50_us, self.p99_us) = (None, None);
    }
}

/// An aborted transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortStatus {
    /// When it was aborted, in milliseconds since 1970.
    pub time_ms: i64,
    /// Why it was aborted.
    pub reason: String,
}

/// Why transactions leave a partition out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutStatus {
    /// The topic that can't be written, or that rejects a record.
    pub topic: String,
    /// The error.
    pub error: String,
}
