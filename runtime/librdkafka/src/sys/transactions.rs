//! Transactions, and the group metadata that a transaction commits offsets with.
use std::ffi::{c_char, c_int};

use super::{Kafka, KafkaError, RawList};

/// `rd_kafka_consumer_group_metadata_t`, used only behind pointers.
#[repr(C)]
pub(in super::super) struct RawGroupMetadata {
    _private: [u8; 0],
}

unsafe extern "C" {
    pub(in super::super) fn rd_kafka_init_transactions(rk: *mut Kafka, timeout_ms: c_int) -> *mut KafkaError;
    pub(in super::super) fn rd_kafka_begin_transaction(rk: *mut Kafka) -> *mut KafkaError;
    pub(in super::super) fn rd_kafka_send_offsets_to_transaction(
        rk: *mut Kafka,
        offsets: *const RawList,
        group: *const RawGroupMetadata,
        timeout_ms: c_int,
    ) -> *mut KafkaError;
    pub(in super::super) fn rd_kafka_commit_transaction(rk: *mut Kafka, timeout_ms: c_int)
    -> *mut KafkaError;
    pub(in super::super) fn rd_kafka_abort_transaction(rk: *mut Kafka, timeout_ms: c_int) -> *mut KafkaError;
    pub(in super::super) fn rd_kafka_error_is_fatal(error: *const KafkaError) -> c_int;
    pub(in super::super) fn rd_kafka_error_is_retriable(error: *const KafkaError) -> c_int;
    pub(in super::super) fn rd_kafka_error_string(error: *const KafkaError) -> *const c_char;

    pub(in super::super) fn rd_kafka_consumer_group_metadata(rk: *mut Kafka) -> *mut RawGroupMetadata;
    pub(in super::super) fn rd_kafka_consumer_group_metadata_new_with_genid(
        group_id: *const c_char,
        generation_id: i32,
        member_id: *const c_char,
        group_instance_id: *const c_char,
    ) -> *mut RawGroupMetadata;
    pub(in super::super) fn rd_kafka_consumer_group_metadata_generation_id(
        group: *const RawGroupMetadata,
    ) -> i32;
    pub(in super::super) fn rd_kafka_consumer_group_metadata_member_id(
        group: *const RawGroupMetadata,
    ) -> *const c_char;
    pub(in super::super) fn rd_kafka_consumer_group_metadata_destroy(group: *mut RawGroupMetadata);
}
