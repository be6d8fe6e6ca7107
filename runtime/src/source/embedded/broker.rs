//! The broker itself.
use std::ffi::CString;
use std::time::Duration;

use crate::librdkafka::{ConfigError, MockCluster};

/// A broker in this process, gone with this value.
#[derive(Debug)]
pub struct EmbeddedBroker {
    mock: MockCluster,
    partitions: i32,
}

impl EmbeddedBroker {
    /// Starts it; every topic will have so many partitions.
    pub fn start(partitions: i32) -> Result<EmbeddedBroker, ConfigError> {
        let mock = MockCluster::start(1)?;
        // A real coordinator waits 3 s for the other members of a new group; here there is one.
        mock.set_initial_rebalance_delay(Duration::ZERO);
        Ok(EmbeddedBroker { mock, partitions })
    }

    /// For `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        self.mock.bootstrap_servers()
    }

    /// How many partitions every topic has.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Creates a topic. One that exists already is left as it is.
    pub fn create_topic(&self, name: &str) -> Result<(), String> {
        let c_name = CString::new(name).map_err(|_| format!("topic `{name}`: not a topic name"))?;
        match self.mock.create_topic(&c_name, self.partitions) {
            Ok(()) | Err(crate::librdkafka::ErrorCode::TOPIC_ALREADY_EXISTS) => Ok(()),
            Err(code) => Err(format!("topic `{name}` can't be created in the embedded broker: {code}")),
        }
    }

    /// The cluster behind it: tests make it fail.
    pub fn mock(&self) -> &MockCluster {
        &self.mock
    }
}
