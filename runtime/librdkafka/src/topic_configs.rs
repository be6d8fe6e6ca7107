//! Describes the configuration of topics. Waits for a broker, like [`super::admin`].
use std::ffi::{CStr, CString, c_int};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::admin::{AdminBroker, Options, array, wait};
use super::code::{self, ErrorCode};
use super::{Client, Queue, sys};

/// `RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS`.
const DESCRIBE_CONFIGS: i32 = 5;
/// `RD_KAFKA_RESOURCE_TOPIC`.
const TOPIC: c_int = 2;

/// The requested configuration of a topic, as far as the broker returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfigs {
    /// The topic.
    pub topic: CString,
    /// Names and values; or why they are not returned, for example to a user without DESCRIBE_CONFIGS.
    pub values: Result<Vec<(String, String)>, ErrorCode>,
}

/// Requests the configuration of these topics, each named once. [`ErrorCode::UNSUPPORTED_FEATURE`]: the broker, for
/// example the embedded one, does not support the request.
pub fn describe_topic_configs(
    client: &Arc<Client>,
    topics: &[CString],
    configs: &[&CStr],
    broker: AdminBroker,
    timeout: Duration,
) -> Result<Vec<TopicConfigs>, ErrorCode> {
    let responses = Queue::new(client);
    let options = Options::new(client, DESCRIBE_CONFIGS, timeout);
    options.set_broker(broker);
    let resources: Vec<Resource> =
        topics.iter().map(|topic| Resource::new(topic, configs)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = resources.iter().map(|resource| resource.0.as_ptr()).collect();
    // SAFETY: client, options, queue and resources are live; the resources are copied.
    unsafe {
        let count = pointers.len();
        sys::rd_kafka_DescribeConfigs(
            client.raw(),
            pointers.as_mut_ptr(),
            count,
            options.raw(),
            responses.raw(),
        );
    }
    let response = wait(&responses, timeout)?;
    let mut count = 0;
    // SAFETY: the event is the response to this request and lives until the end of this function; the array of pointers
    // and its targets belong to it.
    let described = unsafe {
        let result = sys::rd_kafka_event_DescribeConfigs_result(response.raw());
        array(sys::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count), count)
    };
    // SAFETY: the resources belong to the event, which is live.
    Ok(described.iter().map(|resource| unsafe { configs_of(*resource) }).collect())
}

/// # Safety
/// The resource is live.
unsafe fn configs_of(resource: *const sys::ConfigResource) -> TopicConfigs {
    let mut count = 0;
    // SAFETY: the caller guarantees that it is live; its name, its array of entries and their targets belong to it.
    let (topic, error, entries) = unsafe {
        (
            CStr::from_ptr(sys::rd_kafka_ConfigResource_name(resource)).to_owned(),
            ErrorCode(sys::rd_kafka_ConfigResource_error(resource)),
            array(sys::rd_kafka_ConfigResource_configs(resource, &raw mut count), count),
        )
    };
    let pair = |entry: &*const sys::ConfigEntry| {
        // SAFETY: the entry belongs to the live resource; both texts belong to it, are null or end with a NUL, and are
        // copied.
        unsafe {
            (
                code::text(sys::rd_kafka_ConfigEntry_name(*entry)),
                code::text(sys::rd_kafka_ConfigEntry_value(*entry)),
            )
        }
    };
    TopicConfigs { topic, values: error.into_result().map(|()| entries.iter().map(pair).collect()) }
}

/// A topic in the request.
struct Resource(NonNull<sys::ConfigResource>);

impl Resource {
    fn new(topic: &CStr, configs: &[&CStr]) -> Result<Resource, ErrorCode> {
        // SAFETY: the name is copied.
        let raw = unsafe { sys::rd_kafka_ConfigResource_new(TOPIC, topic.as_ptr()) };
        let resource = Resource(NonNull::new(raw).ok_or(ErrorCode::TOPIC_EXCEPTION)?); // an empty name
        for config in configs {
            // SAFETY: the resource is live; name and value are copied. Only names are sent in this request, but the
            // library requires a value.
            let code = unsafe { sys::rd_kafka_ConfigResource_set_config(raw, config.as_ptr(), c"".as_ptr()) };
            ErrorCode(code).into_result()?;
        }
        Ok(resource)
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        // SAFETY: owned by `self` only; the request uses a copy.
        unsafe { sys::rd_kafka_ConfigResource_destroy(self.0.as_ptr()) }
    }
}
