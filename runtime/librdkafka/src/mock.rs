//! The library's mock cluster: brokers in this process, to which clients connect over loopback.
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::code::{self, ErrorCode};
use super::deadline::millis;
use super::{Client, ClientError, Properties, sys};

/// A mock cluster. It keeps 5 MiB (and 100,000 batches) per partition and silently drops older records.
#[derive(Debug)]
pub struct MockCluster {
    raw: NonNull<sys::Mock>,
    /// The client in which the cluster runs; dropped after the cluster.
    _client: Arc<Client>,
}

// SAFETY: every function of the mock cluster that is used here passes its work to the cluster's own thread.
unsafe impl Send for MockCluster {}
// SAFETY: as above.
unsafe impl Sync for MockCluster {}

impl MockCluster {
    /// Starts this number of brokers, on free ports of the loopback interface.
    pub fn start(brokers: u16) -> Result<MockCluster, ClientError> {
        let client = Properties::default().create(sys::TYPE_PRODUCER, 0)?;
        // SAFETY: the client is live.
        let raw = unsafe { sys::rd_kafka_mock_cluster_new(client.raw(), brokers.into()) };
        let raw = NonNull::new(raw)
            .ok_or_else(|| ClientError::NotCreated("the embedded broker can't open its ports".to_owned()))?;
        Ok(MockCluster { raw, _client: client })
    }

    /// Returns the cluster's bootstrap servers.
    pub fn bootstrap_servers(&self) -> String {
        // SAFETY: the cluster is live; the string lives as long as it and is copied.
        unsafe { code::text(sys::rd_kafka_mock_cluster_bootstraps(self.raw.as_ptr())) }
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &CStr, partitions: i32) -> Result<(), ErrorCode> {
        // SAFETY: the cluster is live; the name is copied.
        let code =
            unsafe { sys::rd_kafka_mock_topic_create(self.raw.as_ptr(), name.as_ptr(), partitions, 1) };
        ErrorCode(code).into_result()
    }

    /// Sets how long a new group waits for more members (default 3 s).
    pub fn set_initial_rebalance_delay(&self, delay: Duration) {
        // SAFETY: the cluster is live.
        unsafe { sys::rd_kafka_mock_group_initial_rebalance_delay_ms(self.raw.as_ptr(), millis(delay)) }
    }

    /// Sets the errors in the responses to the next requests of this kind (Kafka's API key).
    pub fn push_errors(&self, api_key: i16, errors: &[ErrorCode]) {
        let codes: Vec<i32> = errors.iter().map(|error| error.0).collect();
        // SAFETY: the cluster is live; the codes are copied, and their number is passed.
        unsafe {
            let mock = self.raw.as_ptr();
            sys::rd_kafka_mock_push_request_errors_array(mock, api_key, codes.len(), codes.as_ptr());
        }
    }

    /// Stops or starts a broker. Broker ids begin at 1.
    pub fn set_broker_up(&self, broker: i32, up: bool) -> Result<(), ErrorCode> {
        // SAFETY: the cluster is live.
        let code = unsafe {
            if up {
                sys::rd_kafka_mock_broker_set_up(self.raw.as_ptr(), broker)
            } else {
                sys::rd_kafka_mock_broker_set_down(self.raw.as_ptr(), broker)
            }
        };
        ErrorCode(code).into_result()
    }

    /// Makes a broker the coordinator of a group.
    pub fn set_coordinator(&self, group: &CStr, broker: i32) -> Result<(), ErrorCode> {
        let kind = c"group".as_ptr();
        // SAFETY: the cluster is live; both strings are copied.
        let code =
            unsafe { sys::rd_kafka_mock_coordinator_set(self.raw.as_ptr(), kind, group.as_ptr(), broker) };
        ErrorCode(code).into_result()
    }

    /// Makes a broker the leader of a partition.
    pub fn set_leader(&self, topic: &CStr, partition: i32, broker: i32) -> Result<(), ErrorCode> {
        // SAFETY: the cluster is live; the name is copied.
        let code = unsafe {
            sys::rd_kafka_mock_partition_set_leader(self.raw.as_ptr(), topic.as_ptr(), partition, broker)
        };
        ErrorCode(code).into_result()
    }

    /// Delays every response of a broker.
    pub fn set_round_trip_time(&self, broker: i32, delay: Duration) -> Result<(), ErrorCode> {
        // SAFETY: the cluster is live.
        let code = unsafe { sys::rd_kafka_mock_broker_set_rtt(self.raw.as_ptr(), broker, millis(delay)) };
        ErrorCode(code).into_result()
    }
}

impl Drop for MockCluster {
    fn drop(&mut self) {
        // SAFETY: owned by `self` only, and its client is live.
        unsafe { sys::rd_kafka_mock_cluster_destroy(self.raw.as_ptr()) }
    }
}
