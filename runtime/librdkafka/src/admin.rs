//! Admin requests about topics. All of them wait for a broker: use them on a helper thread, or at startup.
use std::ffi::{CStr, CString};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use super::code::{self, ErrorCode};
use super::deadline::millis;
use super::properties::ErrorText;
use super::{Client, ClientEvent, Queue, Requests, sys};

/// `RD_KAFKA_ADMIN_OP_CREATETOPICS`.
const CREATE_TOPICS: i32 = 1;
/// How much longer than the timeout of the request to wait for its response.
const GRACE: Duration = Duration::from_millis(500);

/// A topic as described by the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The name.
    pub name: CString,
    /// The number of partitions.
    pub partitions: i32,
    /// The topic id; zeros if the broker has none.
    pub id: [u8; 16],
    /// The error of the topic; [`ErrorCode::UNKNOWN_TOPIC_OR_PART`] if it does not exist.
    pub error: ErrorCode,
}

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// The name.
    pub name: CString,
    /// The number of partitions; `None`: the broker's default.
    pub partitions: Option<i32>,
    /// Names and values of its configuration; the others have the brokers' defaults.
    pub configs: &'static [(&'static CStr, &'static CStr)],
}

/// The broker that receives admin requests about topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminBroker(Option<i32>);

/// Finds the broker for admin requests: the controller, which is the library's default, unless the cluster reports a
/// controller that is not among its brokers, as the mock cluster does. Call it before the client has cached a topic,
/// because the request names the cached topics.
pub fn admin_broker(client: &Arc<Client>, timeout: Duration) -> Result<AdminBroker, ErrorCode> {
    let mut metadata: *const sys::RawMetadata = ptr::null();
    // SAFETY: the client is live; no topic is named, so that the request creates none. On success the metadata
    // is ours until it is destroyed below.
    let brokers: Vec<i32> = unsafe {
        let code =
            sys::rd_kafka_metadata(client.raw(), 0, ptr::null_mut(), &raw mut metadata, millis(timeout));
        ErrorCode(code).into_result()?;
        let count = usize::try_from((*metadata).broker_cnt).unwrap_or(0);
        let all: &[sys::RawBroker] =
            if count == 0 { &[] } else { slice::from_raw_parts((*metadata).brokers, count) };
        let ids = all.iter().map(|broker| broker.id).collect();
        sys::rd_kafka_metadata_destroy(metadata);
        ids
    };
    // SAFETY: the client is live.
    let controller = unsafe { sys::rd_kafka_controllerid(client.raw(), millis(timeout)) };
    let is_real = brokers.contains(&controller);
    Ok(AdminBroker(if is_real { None } else { brokers.first().copied() }))
}

/// Describes these topics. The request creates none of them.
pub fn describe_topics(
    client: &Arc<Client>,
    names: &[CString],
    broker: AdminBroker,
    timeout: Duration,
) -> Result<Vec<TopicDescription>, ErrorCode> {
    let mut requests = Requests::new(client, Queue::new(client));
    requests.topics(names, broker, timeout);
    let response = requests.wait_for_response(timeout + GRACE).ok_or(ErrorCode::TIMED_OUT)?;
    response.topics()
}

/// Creates these topics, with the brokers' replication factor. A topic that already exists is not an error.
pub fn create_topics(client: &Arc<Client>, topics: &[NewTopic], timeout: Duration) -> Result<(), String> {
    let responses = Queue::new(client);
    let options = Options::new(client, CREATE_TOPICS, timeout);
    let mut raw_topics = Vec::with_capacity(topics.len());
    for topic in topics {
        raw_topics.push(RawNewTopic::new(topic)?);
    }
    let mut pointers: Vec<_> = raw_topics.iter().map(|topic| topic.0).collect();
    // SAFETY: client, options, queue and topics are live; the topics are copied.
    unsafe {
        let count = pointers.len();
        sys::rd_kafka_CreateTopics(client.raw(), pointers.as_mut_ptr(), count, options.0, responses.raw());
    }
    let response = wait(&responses, timeout).map_err(|code| code.to_string())?;
    let mut count = 0;
    // SAFETY: the event is the response to this request and lives until the end of this function; the array of pointers
    // and its targets belong to it.
    let results = unsafe {
        let result = sys::rd_kafka_event_CreateTopics_result(response.raw());
        array(sys::rd_kafka_CreateTopics_result_topics(result, &raw mut count), count)
    };
    for result in results {
        // SAFETY: the results and their texts belong to the event, which lives.
        let (code, name, text) = unsafe {
            (
                ErrorCode(sys::rd_kafka_topic_result_error(*result)),
                code::text(sys::rd_kafka_topic_result_name(*result)),
                code::text(sys::rd_kafka_topic_result_error_string(*result)),
            )
        };
        if !code.is_none() && code != ErrorCode::TOPIC_ALREADY_EXISTS {
            return Err(format!("topic `{name}` can't be created: {text} ({})", code.name()));
        }
    }
    Ok(())
}

pub(super) fn wait(responses: &Queue, timeout: Duration) -> Result<ClientEvent, ErrorCode> {
    let response = responses.poll(timeout + GRACE).ok_or(ErrorCode::TIMED_OUT)?;
    response.error().into_result()?;
    Ok(response)
}

/// # Safety
/// The description is live.
pub(super) unsafe fn description(topic: *const sys::DescribedTopic) -> TopicDescription {
    let mut partitions = 0;
    // SAFETY: the caller guarantees that it is live; name, error and id belong to it and are copied.
    unsafe {
        sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let error = sys::rd_kafka_TopicDescription_error(topic);
        TopicDescription {
            name: CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic)).to_owned(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            id: topic_id(sys::rd_kafka_TopicDescription_topic_id(topic)),
            error: if error.is_null() { ErrorCode::NONE } else { ErrorCode(sys::rd_kafka_error_code(error)) },
        }
    }
}

/// # Safety
/// The id is null or live.
unsafe fn topic_id(id: *const sys::Uuid) -> [u8; 16] {
    let mut bytes = [0; 16];
    if !id.is_null() {
        // SAFETY: not null, so live.
        let (most, least) = unsafe {
            (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id))
        };
        let (left, right) = bytes.split_at_mut(8);
        left.copy_from_slice(&most.to_be_bytes());
        right.copy_from_slice(&least.to_be_bytes());
    }
    bytes
}

/// # Safety
/// The pointer is null or points to `count` elements that live during `'a`.
pub(super) unsafe fn array<'a, T>(pointer: *mut *const T, count: usize) -> &'a [*const T] {
    if pointer.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: not null, so the caller's guarantee holds.
    unsafe { slice::from_raw_parts(pointer, count) }
}

/// Options of an admin request.
pub(super) struct Options(*mut sys::AdminOptions);

impl Options {
    pub(super) fn new(client: &Arc<Client>, operation: i32, timeout: Duration) -> Options {
        let mut error = ErrorText::new();
        // SAFETY: the client is live and the operation is one of the library's; the buffer outlives the call. The
        // library rejects only limits that are out of its range, and then its default stays in force.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client.raw(), operation);
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                millis(timeout),
                error.pointer(),
                ErrorText::SIZE,
            );
            Options(options)
        }
    }

    pub(super) fn set_broker(&self, broker: AdminBroker) {
        let Some(id) = broker.0 else { return };
        let mut error = ErrorText::new();
        // SAFETY: the options are live; the buffer outlives the call. The library accepts any id.
        unsafe { sys::rd_kafka_AdminOptions_set_broker(self.0, id, error.pointer(), ErrorText::SIZE) };
    }
}

impl Options {
    /// Returns the pointer, which is live as long as `self`.
    pub(super) fn raw(&self) -> *const sys::AdminOptions {
        self.0
    }

    pub(super) fn raw_mut(&self) -> *mut sys::AdminOptions {
        self.0
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: owned by `self` only.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

struct RawNewTopic(*mut sys::TopicToCreate);

impl RawNewTopic {
    fn new(topic: &NewTopic) -> Result<RawNewTopic, String> {
        let mut error = ErrorText::new();
        // SAFETY: the name is copied; the buffer outlives the call and its size is passed.
        let raw = unsafe {
            sys::rd_kafka_NewTopic_new(
                topic.name.as_ptr(),
                topic.partitions.unwrap_or(-1),
                -1,
                error.pointer(),
                ErrorText::SIZE,
            )
        };
        if ptr::eq(raw, ptr::null_mut()) {
            return Err(error.text());
        }
        let raw = RawNewTopic(raw);
        for (name, value) in topic.configs {
            // SAFETY: the topic is live; name and value are copied.
            let code = unsafe { sys::rd_kafka_NewTopic_set_config(raw.0, name.as_ptr(), value.as_ptr()) };
            ErrorCode(code).into_result().map_err(|code| code.to_string())?;
        }
        Ok(raw)
    }
}

impl Drop for RawNewTopic {
    fn drop(&mut self) {
        // SAFETY: owned by `self` only; the request uses a copy.
        unsafe { sys::rd_kafka_NewTopic_destroy(self.0) }
    }
}
