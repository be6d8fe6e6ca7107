//! What a group committed, read by a client that is used for nothing else, and not for long.
//!
//! The library keeps the coordinator of such requests in a cache of the client (`rdkafka_coord.c`), which makes them unfit for a
//! client that lives long:
//! - The cache holds the handle of a broker. When that broker is missing from the cluster's metadata, the handle ends for
//!   good (`rd_kafka_broker_decommission`), and the broker gets another one when it is back. Requests wait for the old one:
//!   only a connection of some broker that comes or goes meanwhile makes the library look for the coordinator again. And as
//!   long as the cache holds the handle its thread cannot end: it wakes a thousand times a second.
//! - An answer that another broker is the coordinator does not change the cache.
//! - A request that runs out of time while it waits for the coordinator is freed, and freed again when the coordinator is
//!   found: `rd_kafka_admin_coord_request` gives up its reference, then `rd_kafka_coord_req_fail` does. The process aborts,
//!   at best. So no request runs out of time here: its client ends before.
use std::ffi::CStr;
use std::time::Duration;

use super::{ConfigError, Consumer, ErrorCode, PartitionList, Properties, Queue, Requests};

/// The longest limit that the library takes: longer than any client of this kind lives.
const REQUEST_LIMIT: Duration = Duration::from_hours(1);

/// Reads what groups committed. It waits for brokers: it is for a helper thread.
#[derive(Debug)]
pub struct GroupReader(Requests);

impl GroupReader {
    /// One that is not connected yet. The properties are those of a consumer, which joins no group.
    pub fn new(properties: &Properties) -> Result<GroupReader, ConfigError> {
        let consumer = Consumer::new(properties)?;
        Ok(GroupReader(Requests::new(consumer.client(), Queue::new(consumer.client()))))
    }

    /// What a group committed for these partitions, or for all. `stable`: a partition with an undecided transaction has the
    /// error [`ErrorCode::UNSTABLE_OFFSET_COMMIT`]. Gives itself back if the coordinator answered; otherwise what it knows
    /// of the coordinator is of no more use.
    pub fn read(
        mut self,
        group: &CStr,
        partitions: Option<&PartitionList>,
        stable: bool,
        limit: Duration,
    ) -> (Option<GroupReader>, Result<PartitionList, ErrorCode>) {
        self.0.group_offsets(group, partitions, stable, REQUEST_LIMIT);
        let answer = self.0.wait_for_answer(limit);
        let found = answer.map_or(Err(ErrorCode::TIMED_OUT), |answer| answer.group_offsets());
        let is_usable = match &found {
            Ok(_) => true,
            Err(code) => is_of_coordinator(*code),
        };
        (is_usable.then_some(self), found)
    }
}

/// Whether it is the group's coordinator that answers so.
fn is_of_coordinator(code: ErrorCode) -> bool {
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

    const PATIENCE: Duration = Duration::from_secs(60);

    /// The coordinator comes back after the read has run out of time: nothing is left that it could answer.
    #[test]
    fn a_read_without_an_answer_ends_its_client() {
        let mock = MockCluster::start(2).expect("the mock cluster starts");
        mock.set_coordinator(c"group", 2).expect("it takes coordinators");
        mock.set_broker_up(2, false).expect("it can be taken away");
        let mut properties = Properties::default();
        properties.set("bootstrap.servers", mock.bootstrap_servers());
        properties.set("group.id", "group");
        let reader = || GroupReader::new(&properties).expect("the properties are right");
        let (left, found) = reader().read(c"group", None, true, Duration::from_millis(500));
        assert_eq!((left.is_some(), found.err()), (false, Some(ErrorCode::TIMED_OUT)));
        mock.set_broker_up(2, true).expect("it can come back");
        let (left, found) = reader().read(c"group", None, true, PATIENCE);
        assert_eq!((left.is_some(), found.err()), (true, None));
    }
}
