//! Requests whose responses arrive in a queue: offsets of logs and of a group, and descriptions of topics and groups.
//! Sending one does not wait.
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::admin::{AdminBroker, Options, TopicDescription, array, description};
use super::code::{self, ErrorCode};
use super::group_description::{GroupDescription, group_description};
use super::list::{ListEntry, PartitionList, entry};
use super::metadata::MetadataRefresh;
use super::{Client, ClientEvent, END, EventKind, Queue, sys};

/// `RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS`, `RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS`,
/// `RD_KAFKA_ADMIN_OP_DESCRIBETOPICS`, `RD_KAFKA_ADMIN_OP_LISTOFFSETS`.
const GROUPS: i32 = 13;
const GROUP_OFFSETS: i32 = 14;
const TOPICS: i32 = 19;
const LOG_OFFSETS: i32 = 21;

/// The visible part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All records: `RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED`.
    Uncommitted = 0,
    /// The records before the first open transaction.
    Committed = 1,
}

/// The requests of one client. Each has a number, which [`ClientEvent::request`] returns for its response.
#[derive(Debug)]
pub struct Requests {
    client: Arc<Client>,
    responses: Queue,
    last: usize,
    refresh: MetadataRefresh,
}

impl Requests {
    /// Prepares requests of this client. `responses`: the queue for the responses.
    pub fn new(client: &Arc<Client>, responses: Queue) -> Requests {
        Requests { client: Arc::clone(client), responses, last: 0, refresh: MetadataRefresh::default() }
    }

    /// Returns the next response, without waiting.
    pub fn next_response(&self) -> Option<ClientEvent> {
        self.responses.poll_now().inspect(|response| self.check_epoch(response))
    }

    /// Returns the next response, if one arrives in time.
    pub fn wait_for_response(&self, timeout: Duration) -> Option<ClientEvent> {
        self.responses.poll(timeout).inspect(|response| self.check_epoch(response))
    }

    /// Refreshes the metadata if a leader was asked with an epoch that is not its own. The library does so for other requests;
    /// for this one, it would use the cached epoch until it expires (`rd_kafka_admin_result_err_refresh`). A leader has a new
    /// epoch after an election, also if it was the leader before.
    fn check_epoch(&self, response: &ClientEvent) {
        let wrong = [ErrorCode::FENCED_LEADER_EPOCH, ErrorCode::UNKNOWN_LEADER_EPOCH];
        if response.kind() == EventKind::Other(rdkafka_sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT)
            && response
                .log_offsets()
                .is_ok_and(|entries| entries.iter().any(|entry| wrong.contains(&entry.error)))
        {
            self.refresh.start(&self.client);
        }
    }

    /// Requests the offsets for timestamps, [`BEGINNING`](super::BEGINNING) and [`END`](super::END) in a list: see
    /// [`ClientEvent::log_offsets`]. The response needs all leaders: a request for one partition alone does not depend
    /// on others.
    pub fn log_offsets(&mut self, mut list: PartitionList, isolation: Isolation, timeout: Duration) -> usize {
        let (number, options) = self.begin(LOG_OFFSETS, timeout);
        options.set_isolation(isolation);
        // SAFETY: client, list, options and queue are live; the list is copied.
        unsafe {
            sys::rd_kafka_ListOffsets(self.client.raw(), list.raw_mut(), options.raw(), self.responses.raw());
        }
        number
    }

    /// Requests the offsets that a group has committed for these partitions, or for all: see
    /// [`ClientEvent::group_offsets`], and [`GroupReader`](super::GroupReader) for why no other client requests them.
    /// `stable`: a partition with a pending transaction has the error [`ErrorCode::UNSTABLE_OFFSET_COMMIT`].
    pub(super) fn group_offsets(
        &mut self,
        group: &CStr,
        list: Option<&PartitionList>,
        stable: bool,
        timeout: Duration,
    ) -> usize {
        let (number, options) = self.begin(GROUP_OFFSETS, timeout);
        if stable {
            options.require_stable_offsets();
        }
        let list = list.map_or(ptr::null(), PartitionList::raw);
        // SAFETY: client, options, queue and list are live; group and list are copied into the request, which the
        // library copies in turn.
        unsafe {
            let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), list);
            sys::rd_kafka_ListConsumerGroupOffsets(
                self.client.raw(),
                &raw mut request,
                1,
                options.raw(),
                self.responses.raw(),
            );
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
        number
    }

    /// Describes a group: see [`ClientEvent::group`], and [`GroupReader`](super::GroupReader) for why no other client
    /// requests it.
    pub(super) fn group(&mut self, group: &CStr, timeout: Duration) -> usize {
        let (number, options) = self.begin(GROUPS, timeout);
        let names = [group.as_ptr()];
        // SAFETY: client, options and queue are live; the name is copied.
        unsafe {
            sys::rd_kafka_DescribeConsumerGroups(
                self.client.raw(),
                names.as_ptr(),
                names.len(),
                options.raw(),
                self.responses.raw(),
            );
        }
        number
    }

    /// Describes these topics: see [`ClientEvent::topics`]. The request creates none of them.
    pub fn topics(&mut self, names: &[CString], broker: AdminBroker, timeout: Duration) -> usize {
        let (number, options) = self.begin(TOPICS, timeout);
        options.set_broker(broker);
        let pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: client, options and queue are live; the names are copied into the collection, which the library
        // copies in turn.
        unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(self.client.raw(), topics, options.raw(), self.responses.raw());
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
        number
    }

    fn begin(&mut self, operation: i32, timeout: Duration) -> (usize, Options) {
        self.last += 1;
        let options = Options::new(&self.client, operation, timeout);
        options.set_request(self.last);
        (self.last, options)
    }
}

impl Options {
    fn set_request(&self, number: usize) {
        // SAFETY: the options are live; the number is never dereferenced.
        unsafe { sys::rd_kafka_AdminOptions_set_opaque(self.raw_mut(), ptr::without_provenance_mut(number)) }
    }

    fn set_isolation(&self, isolation: Isolation) {
        // SAFETY: the options are live, and the error is ours. There is none: the operation has this option.
        let _set = unsafe {
            code::take(sys::rd_kafka_AdminOptions_set_isolation_level(self.raw_mut(), isolation as c_int))
        };
    }

    fn require_stable_offsets(&self) {
        // SAFETY: as above.
        let _set =
            unsafe { code::take(sys::rd_kafka_AdminOptions_set_require_stable_offsets(self.raw_mut(), 1)) };
    }
}

impl ClientEvent {
    /// Returns the response to [`Requests::log_offsets`]: each partition with its offset or an error. For a timestamp
    /// after the last record the offset is [`END`]. If a leader did not respond, for whatever reason, the error is a
    /// timeout.
    pub fn log_offsets(&self) -> Result<Vec<ListEntry<'_>>, ErrorCode> {
        self.error().into_result()?;
        let mut count = 0;
        // SAFETY: the event is live; the array of pointers and its targets belong to it.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(self.raw());
            let infos = array(sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count), count);
            let of_info = |info: &*const sys::LogOffset| {
                let entry = entry(&*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info));
                // The library drops the error of a leader that did not respond: its partitions keep their initial
                // offset, which is meaningless (`rd_kafka_ListOffsets_response_merge`).
                let has_no_response = entry.error.is_none() && entry.offset < END;
                ListEntry { error: if has_no_response { ErrorCode::TIMED_OUT } else { entry.error }, ..entry }
            };
            Ok(infos.iter().map(of_info).collect())
        }
    }

    /// Returns the response to [`Requests::group_offsets`]: each partition with offset (negative: no commit), metadata
    /// and error.
    pub fn group_offsets(&self) -> Result<PartitionList, ErrorCode> {
        self.error().into_result()?;
        let mut count = 0;
        // SAFETY: the event is live; the array of pointers, the groups, their errors and lists belong to it. The list
        // is copied.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(self.raw());
            let groups =
                array(sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count), count);
            let group = *groups.first().ok_or(ErrorCode::NOENT)?;
            let error = sys::rd_kafka_group_result_error(group);
            if !error.is_null() {
                ErrorCode(sys::rd_kafka_error_code(error)).into_result()?;
            }
            Ok(PartitionList::copy_of(sys::rd_kafka_group_result_partitions(group)))
        }
    }

    /// Returns the response to [`Requests::group`].
    pub(super) fn group(&self) -> Result<GroupDescription, ErrorCode> {
        self.error().into_result()?;
        let mut count = 0;
        // SAFETY: the event is live; the array of pointers and the descriptions belong to it.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(self.raw());
            let groups =
                array(sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count), count);
            group_description(*groups.first().ok_or(ErrorCode::NOENT)?)
        }
    }

    /// Returns the response to [`Requests::topics`].
    pub fn topics(&self) -> Result<Vec<TopicDescription>, ErrorCode> {
        self.error().into_result()?;
        let mut count = 0;
        // SAFETY: the event is live; the array of pointers and its targets belong to it.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.raw());
            let topics = array(sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count), count);
            Ok(topics.iter().map(|topic| description(*topic)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Deadline, END, MockCluster, Producer, Properties};

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn cluster() -> (MockCluster, Producer) {
        let mock = MockCluster::start(1).expect("the mock cluster starts");
        mock.create_topic(c"orders", 1).expect("the mock cluster accepts topics");
        let mut properties = Properties::default();
        properties.set("bootstrap.servers", mock.bootstrap_servers());
        let producer = Producer::new(&properties).expect("the properties are valid");
        (mock, producer)
    }

    fn end(requests: &mut Requests, timeout: Duration) -> Result<i64, ErrorCode> {
        let mut list = PartitionList::with_capacity(1);
        list.push(c"orders", 0, END);
        requests.log_offsets(list, Isolation::Uncommitted, timeout);
        let response = requests.wait_for_response(TIMEOUT).expect("every request has a response");
        response.log_offsets().and_then(|entries| {
            let entry = entries.first().expect("one partition was requested");
            entry.error.into_result().map(|()| entry.offset)
        })
    }

    /// Without a response of the leader, the library's response has neither an offset nor an error.
    #[test]
    fn an_offset_that_its_leader_did_not_return_is_an_error() {
        let (mock, producer) = cluster();
        let mut requests = Requests::new(producer.client(), Queue::new(producer.client()));
        assert_eq!(end(&mut requests, TIMEOUT), Ok(0));
        mock.set_round_trip_time(1, TIMEOUT).expect("the delay can be set");
        assert_eq!(end(&mut requests, Duration::from_millis(500)), Err(ErrorCode::TIMED_OUT));
    }

    /// The library's cache would keep the former epoch for `metadata.max.age.ms`, 15 minutes.
    #[test]
    fn a_new_epoch_of_a_leader_is_learned() {
        let (mock, producer) = cluster();
        let mut requests = Requests::new(producer.client(), Queue::new(producer.client()));
        assert_eq!(end(&mut requests, TIMEOUT), Ok(0));
        mock.set_leader(c"orders", 0, 1).expect("the same leader, elected again");
        let deadline = Deadline::after(TIMEOUT);
        let mut before = 0;
        while let Err(code) = end(&mut requests, TIMEOUT) {
            assert_eq!(code, ErrorCode::FENCED_LEADER_EPOCH);
            assert!(!deadline.is_over(), "the new epoch is not learned");
            before += 1;
        }
        assert!(before > 0, "the mock cluster checks the epoch");
    }
}
