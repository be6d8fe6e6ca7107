//! Topics to create.
use std::ffi::{c_char, c_int};

use super::TopicToCreate;

unsafe extern "C" {
    pub(in super::super) fn rd_kafka_NewTopic_new(
        topic: *const c_char,
        partitions: c_int,
        replication_factor: c_int,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> *mut TopicToCreate;
    pub(in super::super) fn rd_kafka_NewTopic_set_config(
        topic: *mut TopicToCreate,
        name: *const c_char,
        value: *const c_char,
    ) -> c_int;
    pub(in super::super) fn rd_kafka_NewTopic_destroy(topic: *mut TopicToCreate);
}
