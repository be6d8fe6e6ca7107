//! The embedded broker.
use std::ffi::CString;
use std::time::Duration;

use crate::librdkafka::{ClientError, MockCluster};

/// A broker in this process, stopped when dropped.
#[derive(Debug)]
pub struct EmbeddedBroker {
    mock: MockCluster,
    partitions: i32,
}

impl EmbeddedBroker {
    /// Starts the broker. Every topic gets this number of partitions.
    pub fn start(partitions: i32) -> Result<EmbeddedBroker, ClientError> {
        let mock = MockCluster::start(1)?;
        // By default the coordinator waits 3 s for more members of a new group, which usually has only one here.
        mock.set_initial_rebalance_delay(Duration::ZERO);
        Ok(EmbeddedBroker { mock, partitions })
    }

    /// Returns the value of `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        self.mock.bootstrap_servers()
    }

    /// Returns the number of partitions of every topic.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Creates a topic unless it exists.
    pub fn create_topic(&self, name: &str) -> Result<(), String> {
        let c_name = CString::new(name).map_err(|_| format!("invalid topic name: `{name}`"))?;
        match self.mock.create_topic(&c_name, self.partitions) {
            Ok(()) | Err(crate::librdkafka::ErrorCode::TOPIC_ALREADY_EXISTS) => Ok(()),
            Err(code) => Err(format!("topic `{name}` can't be created in the embedded broker: {code}")),
        }
    }

    /// Returns the mock cluster, for error injection.
    #[cfg(test)]
    pub(in crate::source) fn mock(&self) -> &MockCluster {
        &self.mock
    }
}
