//! Reads the committed offsets and the descriptions of groups with a short-lived client that is used for nothing else.
//!
//! The library caches the coordinator of such requests in the client (`rdkafka_coord.c`), so a long-lived client
//! can't be used for them:
//! - The cache holds the handle of a broker. When that broker disappears from the cluster's metadata, the handle is
//!   decommissioned (`rd_kafka_broker_decommission`), and the broker gets another handle when it returns. Requests wait
//!   for the old handle: only the connect or disconnect of some broker makes the library look for the coordinator
//!   again. While the cache holds the handle, its thread can't end and wakes a thousand times a second.
//! - A response that another broker is the coordinator does not change the cache.
//! - A request that times out while it waits for the coordinator is freed, and freed again when the coordinator is
//!   found: `rd_kafka_admin_coord_request` drops its reference, then `rd_kafka_coord_req_fail` does. At best, the
//!   process aborts. So no request times out here: the client is dropped before.
use std::ffi::CStr;
use std::time::Duration;

use super::{ClientError, Consumer, ErrorCode, GroupDescription, PartitionList, Properties, Queue, Requests};

/// The longest timeout that the library accepts: longer than any read waits.
const REQUEST_LIMIT: Duration = Duration::from_hours(1);

/// A reader of the committed offsets and the descriptions of groups. It waits for brokers, so it must run on a helper
/// thread.
#[derive(Debug)]
pub struct GroupReader(Requests);

impl GroupReader {
    /// Creates a reader that is not connected yet. The properties are those of a consumer, but the reader joins no
    /// group.
    pub fn new(properties: &Properties) -> Result<GroupReader, ClientError> {
        let consumer = Consumer::new(properties)?;
        Ok(GroupReader(Requests::new(consumer.client(), Queue::new(consumer.client()))))
    }

    /// Reads the offsets that a group has committed for these partitions, or for all. `stable`: a partition with a
    /// pending transaction has the error [`ErrorCode::UNSTABLE_OFFSET_COMMIT`]. Returns the reader if the coordinator
    /// responded; otherwise its cached coordinator can't be used any more.
    pub fn read(
        mut self,
        group: &CStr,
        partitions: Option<&PartitionList>,
        stable: bool,
        timeout: Duration,
    ) -> (Option<GroupReader>, Result<PartitionList, ErrorCode>) {
        self.0.group_offsets(group, partitions, stable, REQUEST_LIMIT);
        let response = self.0.wait_for_response(timeout);
        self.ended(response.map_or(Err(ErrorCode::TIMED_OUT), |response| response.group_offsets()))
    }

    /// Describes a group. Returns the reader as [`GroupReader::read`] does.
    pub fn describe(
        mut self,
        group: &CStr,
        timeout: Duration,
    ) -> (Option<GroupReader>, Result<GroupDescription, ErrorCode>) {
        self.0.group(group, REQUEST_LIMIT);
        let response = self.0.wait_for_response(timeout);
        self.ended(response.map_or(Err(ErrorCode::TIMED_OUT), |response| response.group()))
    }

    fn ended<T>(self, found: Result<T, ErrorCode>) -> (Option<GroupReader>, Result<T, ErrorCode>) {
        let is_usable = match &found {
            Ok(_) => true,
            Err(code) => sent_by_coordinator(*code),
        };
        (is_usable.then_some(self), found)
    }
}

/// Returns whether the group's coordinator sent this response.
fn sent_by_coordinator(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::GROUP_AUTHORIZATION_FAILED
            | ErrorCode::TOPIC_AUTHORIZATION_FAILED
            | ErrorCode::UNSTABLE_OFFSET_COMMIT
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MockCluster;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// The coordinator returns after the read has timed out: no request must remain to which it could respond.
    #[test]
    fn a_read_without_a_response_ends_its_client() {
        let mock = MockCluster::start(2).expect("the mock cluster starts");
        mock.set_coordinator(c"group", 2).expect("the mock cluster accepts a coordinator");
        mock.set_broker_up(2, false).expect("the broker can be stopped");
        let mut properties = Properties::default();
        properties.set("bootstrap.servers", mock.bootstrap_servers());
        properties.set("group.id", "group");
        let reader = || GroupReader::new(&properties).expect("the properties are valid");
        let (left, found) = reader().read(c"group", None, true, Duration::from_millis(500));
        assert_eq!((left.is_some(), found.err()), (false, Some(ErrorCode::TIMED_OUT)));
        mock.set_broker_up(2, true).expect("the broker can be started");
        let (left, found) = reader().read(c"group", None, true, TIMEOUT);
        assert_eq!((left.is_some(), found.err()), (true, None));
    }

    /// The mock cluster supports neither of the two requests for a description.
    #[test]
    fn a_description_that_the_broker_does_not_support_is_an_error() {
        let mock = MockCluster::start(1).expect("the mock cluster starts");
        let mut properties = Properties::default();
        properties.set("bootstrap.servers", mock.bootstrap_servers());
        properties.set("group.id", "group");
        let reader = GroupReader::new(&properties).expect("the properties are valid");
        let (left, found) = reader.describe(c"group", TIMEOUT);
        assert_eq!((left.is_some(), found), (false, Err(ErrorCode::UNSUPPORTED_FEATURE)));
    }
}
