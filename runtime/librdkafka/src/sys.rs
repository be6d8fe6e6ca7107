//! Declarations of the C interface of librdkafka as far as it is used, with error codes as plain integers.
//!
//! `rdkafka-sys` builds and links the library and provides the constants. Its own declarations return a Rust enum for
//! error codes, which must never be created from an unknown code. Layouts follow `rdkafka.h` (checked in `layouts`),
//! whose public structs are part of the library's stable interface.
use std::ffi::{c_char, c_int, c_void};

use rdkafka_sys as _;

mod new_topics;
mod transactions;
pub(super) use new_topics::*;
pub(super) use transactions::*;

/// A type of the library that is used only behind pointers.
macro_rules! opaque {
    ($($name:ident),* $(,)?) => { $(
        #[repr(C)]
        pub(super) struct $name { _private: [u8; 0] }
    )* };
}

opaque!(
    Kafka,
    Conf,
    Topic,
    KafkaQueue,
    KafkaEvent,
    KafkaError,
    KafkaHeaders,
    AdminOptions,
    TopicCollection,
    DescribedTopic,
    Uuid,
    GroupOffsetsRequest,
    GroupResult,
    DescribedGroup,
    DescribedMember,
    MemberAssignment,
    Node,
    LogOffset,
    TopicToCreate,
    TopicResult,
    ConfigResource,
    ConfigEntry,
    Mock
);

/// `rd_kafka_message_t`.
#[repr(C)]
pub(super) struct RawMessage {
    pub(super) err: c_int,
    pub(super) rkt: *mut Topic,
    pub(super) partition: i32,
    pub(super) payload: *mut c_void,
    pub(super) len: usize,
    pub(super) key: *mut c_void,
    pub(super) key_len: usize,
    pub(super) offset: i64,
    pub(super) private: *mut c_void,
}

/// `rd_kafka_topic_partition_t`.
#[repr(C)]
pub(super) struct RawEntry {
    pub(super) topic: *mut c_char,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) metadata: *mut c_void,
    pub(super) metadata_size: usize,
    pub(super) opaque: *mut c_void,
    pub(super) err: c_int,
    pub(super) private: *mut c_void,
}

/// `rd_kafka_topic_partition_list_t`.
#[repr(C)]
pub(super) struct RawList {
    pub(super) cnt: c_int,
    pub(super) size: c_int,
    pub(super) elems: *mut RawEntry,
}

/// The beginning of `rd_kafka_metadata_t`, which is used only behind pointers.
#[repr(C)]
pub(super) struct RawMetadata {
    pub(super) broker_cnt: c_int,
    pub(super) brokers: *mut RawBroker,
}

/// `rd_kafka_metadata_broker_t`.
#[repr(C)]
pub(super) struct RawBroker {
    pub(super) id: i32,
    pub(super) host: *mut c_char,
    pub(super) port: c_int,
}

pub(super) const TYPE_PRODUCER: c_int = 0;
pub(super) const TYPE_CONSUMER: c_int = 1;
pub(super) const CONF_OK: c_int = 0;
pub(super) const CONF_UNKNOWN: c_int = -2;

/// Tags of the arguments of `rd_kafka_producev`.
pub(super) mod vtype {
    use std::ffi::c_int;
    pub(in super::super) const END: c_int = 0;
    pub(in super::super) const TOPIC: c_int = 2;
    pub(in super::super) const PARTITION: c_int = 3;
    pub(in super::super) const VALUE: c_int = 4;
    pub(in super::super) const KEY: c_int = 5;
    pub(in super::super) const OPAQUE: c_int = 6;
    pub(in super::super) const FLAGS: c_int = 7;
    pub(in super::super) const TIMESTAMP: c_int = 8;
    pub(in super::super) const HEADERS: c_int = 10;
}

pub(super) type LogCallback =
    unsafe extern "C" fn(rk: *const Kafka, level: c_int, facility: *const c_char, text: *const c_char);
pub(super) type ConsumeCallback = unsafe extern "C" fn(message: *mut RawMessage, opaque: *mut c_void);
pub(super) type QueueCallback = unsafe extern "C" fn(rk: *mut Kafka, opaque: *mut c_void);
pub(super) type CommitCallback =
    unsafe extern "C" fn(rk: *mut Kafka, err: c_int, list: *mut RawList, opaque: *mut c_void);

unsafe extern "C" {
    pub(super) fn rd_kafka_version_str() -> *const c_char;
    pub(super) fn rd_kafka_err2str(err: c_int) -> *const c_char;
    pub(super) fn rd_kafka_err2name(err: c_int) -> *const c_char;
    pub(super) fn rd_kafka_error_code(error: *const KafkaError) -> c_int;
    pub(super) fn rd_kafka_error_destroy(error: *mut KafkaError);

    pub(super) fn rd_kafka_conf_new() -> *mut Conf;
    pub(super) fn rd_kafka_conf_destroy(conf: *mut Conf);
    pub(super) fn rd_kafka_conf_set(
        conf: *mut Conf,
        name: *const c_char,
        value: *const c_char,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> c_int;
    pub(super) fn rd_kafka_conf_get(
        conf: *const Conf,
        name: *const c_char,
        dest: *mut c_char,
        dest_size: *mut usize,
    ) -> c_int;
    pub(super) fn rd_kafka_conf_dump(conf: *mut Conf, count: *mut usize) -> *mut *const c_char;
    pub(super) fn rd_kafka_conf_dump_free(dump: *mut *const c_char, count: usize);
    pub(super) fn rd_kafka_conf_set_events(conf: *mut Conf, events: c_int);
    pub(super) fn rd_kafka_conf_set_log_cb(conf: *mut Conf, log_cb: LogCallback);
    pub(super) fn rd_kafka_new(
        kind: c_int,
        conf: *mut Conf,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> *mut Kafka;
    pub(super) fn rd_kafka_destroy_flags(rk: *mut Kafka, flags: c_int);
    pub(super) fn rd_kafka_fatal_error(rk: *mut Kafka, errstr: *mut c_char, errstr_size: usize) -> c_int;
    pub(super) fn rd_kafka_test_fatal_error(rk: *mut Kafka, err: c_int, reason: *const c_char) -> c_int;
    pub(super) fn rd_kafka_sasl_set_credentials(
        rk: *mut Kafka,
        username: *const c_char,
        password: *const c_char,
    ) -> *mut KafkaError;
    pub(super) fn rd_kafka_oauthbearer_set_token(
        rk: *mut Kafka,
        token_value: *const c_char,
        md_lifetime_ms: i64,
        md_principal_name: *const c_char,
        extensions: *const *const c_char,
        extension_size: usize,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> c_int;
    pub(super) fn rd_kafka_yield(rk: *mut Kafka);
    pub(super) fn rd_kafka_mem_malloc(rk: *mut Kafka, size: usize) -> *mut c_void;

    pub(super) fn rd_kafka_topic_partition_list_new(size: c_int) -> *mut RawList;
    pub(super) fn rd_kafka_topic_partition_list_destroy(list: *mut RawList);
    pub(super) fn rd_kafka_topic_partition_list_add(
        list: *mut RawList,
        topic: *const c_char,
        partition: i32,
    ) -> *mut RawEntry;
    pub(super) fn rd_kafka_topic_partition_list_copy(list: *const RawList) -> *mut RawList;

    pub(super) fn rd_kafka_queue_new(rk: *mut Kafka) -> *mut KafkaQueue;
    pub(super) fn rd_kafka_queue_destroy(queue: *mut KafkaQueue);
    pub(super) fn rd_kafka_queue_get_main(rk: *mut Kafka) -> *mut KafkaQueue;
    pub(super) fn rd_kafka_queue_get_consumer(rk: *mut Kafka) -> *mut KafkaQueue;
    pub(super) fn rd_kafka_queue_get_partition(
        rk: *mut Kafka,
        topic: *const c_char,
        partition: i32,
    ) -> *mut KafkaQueue;
    pub(super) fn rd_kafka_queue_forward(source: *mut KafkaQueue, destination: *mut KafkaQueue);
    pub(super) fn rd_kafka_queue_cb_event_enable(
        queue: *mut KafkaQueue,
        callback: Option<QueueCallback>,
        opaque: *mut c_void,
    );
    pub(super) fn rd_kafka_queue_poll(queue: *mut KafkaQueue, timeout_ms: c_int) -> *mut KafkaEvent;
    pub(super) fn rd_kafka_consume_callback_queue(
        queue: *mut KafkaQueue,
        timeout_ms: c_int,
        consume_cb: ConsumeCallback,
        opaque: *mut c_void,
    ) -> c_int;

    pub(super) fn rd_kafka_event_type(event: *const KafkaEvent) -> c_int;
    pub(super) fn rd_kafka_event_error(event: *mut KafkaEvent) -> c_int;
    pub(super) fn rd_kafka_event_error_string(event: *mut KafkaEvent) -> *const c_char;
    pub(super) fn rd_kafka_event_error_is_fatal(event: *mut KafkaEvent) -> c_int;
    pub(super) fn rd_kafka_event_opaque(event: *mut KafkaEvent) -> *mut c_void;
    pub(super) fn rd_kafka_event_stats(event: *mut KafkaEvent) -> *const c_char;
    pub(super) fn rd_kafka_event_topic_partition_list(event: *mut KafkaEvent) -> *mut RawList;
    pub(super) fn rd_kafka_event_message_next(event: *mut KafkaEvent) -> *const RawMessage;
    pub(super) fn rd_kafka_event_destroy(event: *mut KafkaEvent);

    pub(super) fn rd_kafka_poll_set_consumer(rk: *mut Kafka) -> c_int;
    pub(super) fn rd_kafka_subscribe(rk: *mut Kafka, topics: *const RawList) -> c_int;
    pub(super) fn rd_kafka_assign(rk: *mut Kafka, list: *const RawList) -> c_int;
    pub(super) fn rd_kafka_incremental_assign(rk: *mut Kafka, list: *const RawList) -> *mut KafkaError;
    pub(super) fn rd_kafka_incremental_unassign(rk: *mut Kafka, list: *const RawList) -> *mut KafkaError;
    pub(super) fn rd_kafka_assignment_lost(rk: *mut Kafka) -> c_int;
    pub(super) fn rd_kafka_seek_partitions(
        rk: *mut Kafka,
        list: *mut RawList,
        timeout_ms: c_int,
    ) -> *mut KafkaError;
    pub(super) fn rd_kafka_commit_queue(
        rk: *mut Kafka,
        list: *const RawList,
        queue: *mut KafkaQueue,
        callback: Option<CommitCallback>,
        opaque: *mut c_void,
    ) -> c_int;
    pub(super) fn rd_kafka_get_watermark_offsets(
        rk: *mut Kafka,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
    ) -> c_int;
    pub(super) fn rd_kafka_unsubscribe(rk: *mut Kafka) -> i32;
    pub(super) fn rd_kafka_memberid(rk: *const Kafka) -> *mut c_char;
    pub(super) fn rd_kafka_mem_free(rk: *mut Kafka, memory: *mut c_void);
    pub(super) fn rd_kafka_consumer_close_queue(rk: *mut Kafka, queue: *mut KafkaQueue) -> *mut KafkaError;
    pub(super) fn rd_kafka_consumer_closed(rk: *mut Kafka) -> c_int;

    pub(super) fn rd_kafka_message_timestamp(message: *const RawMessage, kind: *mut c_int) -> i64;
    pub(super) fn rd_kafka_message_headers(
        message: *const RawMessage,
        headers: *mut *mut KafkaHeaders,
    ) -> c_int;
    pub(super) fn rd_kafka_header_get_all(
        headers: *const KafkaHeaders,
        index: usize,
        name: *mut *const c_char,
        value: *mut *const c_void,
        size: *mut usize,
    ) -> c_int;
    pub(super) fn rd_kafka_headers_new(initial: usize) -> *mut KafkaHeaders;
    pub(super) fn rd_kafka_headers_destroy(headers: *mut KafkaHeaders);
    pub(super) fn rd_kafka_header_add(
        headers: *mut KafkaHeaders,
        name: *const c_char,
        name_size: isize,
        value: *const c_void,
        value_size: isize,
    ) -> c_int;

    pub(super) fn rd_kafka_topic_new(rk: *mut Kafka, topic: *const c_char, conf: *mut c_void) -> *mut Topic;
    pub(super) fn rd_kafka_topic_destroy(topic: *mut Topic);
    pub(super) fn rd_kafka_msg_partitioner_murmur2(
        topic: *const Topic,
        key: *const c_void,
        length: usize,
        partitions: i32,
        topic_opaque: *mut c_void,
        message_opaque: *mut c_void,
    ) -> i32;
    pub(super) fn rd_kafka_producev(rk: *mut Kafka, ...) -> c_int;
    pub(super) fn rd_kafka_flush(rk: *mut Kafka, timeout_ms: c_int) -> c_int;
    pub(super) fn rd_kafka_purge(rk: *mut Kafka, flags: c_int) -> c_int;
    pub(super) fn rd_kafka_outq_len(rk: *mut Kafka) -> c_int;

    pub(super) fn rd_kafka_metadata(
        rk: *mut Kafka,
        all_topics: c_int,
        only_topic: *mut Topic,
        metadata: *mut *const RawMetadata,
        timeout_ms: c_int,
    ) -> c_int;
    pub(super) fn rd_kafka_metadata_destroy(metadata: *const RawMetadata);
    pub(super) fn rd_kafka_controllerid(rk: *mut Kafka, timeout_ms: c_int) -> i32;
    pub(super) fn rd_kafka_AdminOptions_new(rk: *mut Kafka, operation: c_int) -> *mut AdminOptions;
    pub(super) fn rd_kafka_AdminOptions_destroy(options: *mut AdminOptions);
    pub(super) fn rd_kafka_AdminOptions_set_request_timeout(
        options: *mut AdminOptions,
        timeout_ms: c_int,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> c_int;
    pub(super) fn rd_kafka_AdminOptions_set_broker(
        options: *mut AdminOptions,
        broker_id: i32,
        errstr: *mut c_char,
        errstr_size: usize,
    ) -> c_int;
    pub(super) fn rd_kafka_AdminOptions_set_opaque(options: *mut AdminOptions, opaque: *mut c_void);
    pub(super) fn rd_kafka_AdminOptions_set_require_stable_offsets(
        options: *mut AdminOptions,
        value: c_int,
    ) -> *mut KafkaError;
    pub(super) fn rd_kafka_AdminOptions_set_isolation_level(
        options: *mut AdminOptions,
        value: c_int,
    ) -> *mut KafkaError;
    pub(super) fn rd_kafka_ListOffsets(
        rk: *mut Kafka,
        list: *mut RawList,
        options: *const AdminOptions,
        queue: *mut KafkaQueue,
    );
    pub(super) fn rd_kafka_event_ListOffsets_result(event: *mut KafkaEvent) -> *const KafkaEvent;
    pub(super) fn rd_kafka_ListOffsets_result_infos(
        result: *const KafkaEvent,
        count: *mut usize,
    ) -> *mut *const LogOffset;
    pub(super) fn rd_kafka_ListOffsetsResultInfo_topic_partition(info: *const LogOffset) -> *const RawEntry;
    pub(super) fn rd_kafka_ListConsumerGroupOffsets_new(
        group: *const c_char,
        list: *const RawList,
    ) -> *mut GroupOffsetsRequest;
    pub(super) fn rd_kafka_ListConsumerGroupOffsets_destroy(group: *mut GroupOffsetsRequest);
    pub(super) fn rd_kafka_ListConsumerGroupOffsets(
        rk: *mut Kafka,
        groups: *mut *mut GroupOffsetsRequest,
        count: usize,
        options: *const AdminOptions,
        queue: *mut KafkaQueue,
    );
    pub(super) fn rd_kafka_event_ListConsumerGroupOffsets_result(event: *mut KafkaEvent)
    -> *const KafkaEvent;
    pub(super) fn rd_kafka_ListConsumerGroupOffsets_result_groups(
        result: *const KafkaEvent,
        count: *mut usize,
    ) -> *mut *const GroupResult;
    pub(super) fn rd_kafka_group_result_error(group: *const GroupResult) -> *const KafkaError;
    pub(super) fn rd_kafka_group_result_partitions(group: *const GroupResult) -> *const RawList;
    pub(super) fn rd_kafka_DescribeConsumerGroups(
        rk: *mut Kafka,
        groups: *const *const c_char,
        count: usize,
        options: *const AdminOptions,
        queue: *mut KafkaQueue,
    );
    pub(super) fn rd_kafka_event_DescribeConsumerGroups_result(event: *mut KafkaEvent) -> *const KafkaEvent;
    pub(super) fn rd_kafka_DescribeConsumerGroups_result_groups(
        result: *const KafkaEvent,
        count: *mut usize,
    ) -> *mut *const DescribedGroup;
    pub(super) fn rd_kafka_ConsumerGroupDescription_error(group: *const DescribedGroup) -> *const KafkaError;
    pub(super) fn rd_kafka_ConsumerGroupDescription_state(group: *const DescribedGroup) -> c_int;
    pub(super) fn rd_kafka_ConsumerGroupDescription_type(group: *const DescribedGroup) -> c_int;
    pub(super) fn rd_kafka_ConsumerGroupDescription_partition_assignor(
        group: *const DescribedGroup,
    ) -> *const c_char;
    pub(super) fn rd_kafka_ConsumerGroupDescription_coordinator(group: *const DescribedGroup) -> *const Node;
    pub(super) fn rd_kafka_ConsumerGroupDescription_member_count(group: *const DescribedGroup) -> usize;
    pub(super) fn rd_kafka_ConsumerGroupDescription_member(
        group: *const DescribedGroup,
        index: usize,
    ) -> *const DescribedMember;
    pub(super) fn rd_kafka_consumer_group_state_name(state: c_int) -> *const c_char;
    pub(super) fn rd_kafka_consumer_group_type_name(kind: c_int) -> *const c_char;
    pub(super) fn rd_kafka_MemberDescription_client_id(member: *const DescribedMember) -> *const c_char;
    pub(super) fn rd_kafka_MemberDescription_group_instance_id(
        member: *const DescribedMember,
    ) -> *const c_char;
    pub(super) fn rd_kafka_MemberDescription_consumer_id(member: *const DescribedMember) -> *const c_char;
    pub(super) fn rd_kafka_MemberDescription_host(member: *const DescribedMember) -> *const c_char;
    pub(super) fn rd_kafka_MemberDescription_assignment(
        member: *const DescribedMember,
    ) -> *const MemberAssignment;
    pub(super) fn rd_kafka_MemberAssignment_partitions(assignment: *const MemberAssignment)
    -> *const RawList;
    pub(super) fn rd_kafka_Node_host(node: *const Node) -> *const c_char;
    pub(super) fn rd_kafka_Node_port(node: *const Node) -> u16;
    pub(super) fn rd_kafka_TopicCollection_of_topic_names(
        names: *const *const c_char,
        count: usize,
    ) -> *mut TopicCollection;
    pub(super) fn rd_kafka_TopicCollection_destroy(topics: *mut TopicCollection);
    pub(super) fn rd_kafka_DescribeTopics(
        rk: *mut Kafka,
        topics: *const TopicCollection,
        options: *const AdminOptions,
        queue: *mut KafkaQueue,
    );
    pub(super) fn rd_kafka_event_DescribeTopics_result(event: *mut KafkaEvent) -> *const KafkaEvent;
    pub(super) fn rd_kafka_DescribeTopics_result_topics(
        result: *const KafkaEvent,
        count: *mut usize,
    ) -> *mut *const DescribedTopic;
    pub(super) fn rd_kafka_TopicDescription_name(topic: *const DescribedTopic) -> *const c_char;
    pub(super) fn rd_kafka_TopicDescription_error(topic: *const DescribedTopic) -> *const KafkaError;
    pub(super) fn rd_kafka_TopicDescription_topic_id(topic: *const DescribedTopic) -> *const Uuid;
    pub(super) fn rd_kafka_TopicDescription_partitions(
        topic: *const DescribedTopic,
        count: *mut usize,
    ) -> *mut *const c_void;
    pub(super) fn rd_kafka_Uuid_most_significant_bits(id: *const Uuid) -> i64;
    pub(super) fn rd_kafka_Uuid_least_significant_bits(id: *const Uuid) -> i64;
    pub(super) fn rd_kafka_CreateTopics(
        rk: *mut Kafka,
        topics: *mut *mut TopicToCreate,
        count: usize,
        options: *const AdminOptions,
        queue: *mut KafkaQueue,
    );
    pub(super) fn rd_kafka_event_CreateTopics_result(event: *mut KafkaEvent) -> *const KafkaEvent;
    pub(super) fn rd_kafka_CreateTopics_result_topics(
        result: *const KafkaEvent,
        count: *mut usize,
    ) -> *mut *const TopicResult;
    pub(super) fn rd_kafka_topic_result_error(result: *const TopicResult) -> c_int;
    pub(super) fn rd_kafka_topic_result_error_string(result: *const TopicResult) -> *const c_char;
    pub(super) fn rd_kafka_topic_result_name(result: *const TopicResult) -> *const c_char;

    pub(super) fn rd_kafka_ConfigResource_new(kind: c_int, name: *const c_char) -> *mut ConfigResource;
    pub(super) fn rd_kafka_ConfigResource_destroy(resource: *mut ConfigResource);
    pub(super) fn rd_kafka_ConfigResource_set_config(
        resource: *mut ConfigResource,
        name: *const c_char,
        value: *const c_char,
    ) -> c_int;
    pub(super) fn rd_kafka_ConfigResource_name(resource: *const ConfigResource) -> *const c_char;
    pub(super) fn rd_kafka_ConfigResource_error(resource: *const ConfigResource) -> c_int;
    pub(super) fn rd_kafka_ConfigResource_configs(
        resource: *const ConfigResource,
        count: *mut usize,
    ) -> *mut *const ConfigEntry;
    pub(super) fn rd_kafka_ConfigEntry_name(entry: *const ConfigEntry) -> *const c_char;
    pub(super) fn rd_kafka_ConfigEntry_value(entry: *const ConfigEntry) -> *const c_char;
    pub(super) fn rd_kafka_DescribeConfigs(
        rk: *mut Kafka,
        resources: *mut *mut ConfigResource,
        count: usize,
        options: *const AdminOptions,
        queue: *mut KafkaQueue,
    );
    pub(super) fn rd_kafka_event_DescribeConfigs_result(event: *mut KafkaEvent) -> *const KafkaEvent;
    pub(super) fn rd_kafka_DescribeConfigs_result_resources(
        result: *const KafkaEvent,
        count: *mut usize,
    ) -> *mut *const ConfigResource;

    pub(super) fn rd_kafka_mock_cluster_new(rk: *mut Kafka, brokers: c_int) -> *mut Mock;
    pub(super) fn rd_kafka_mock_cluster_destroy(mock: *mut Mock);
    pub(super) fn rd_kafka_mock_cluster_bootstraps(mock: *const Mock) -> *const c_char;
    pub(super) fn rd_kafka_mock_topic_create(
        mock: *mut Mock,
        topic: *const c_char,
        partitions: c_int,
        replication_factor: c_int,
    ) -> c_int;
    pub(super) fn rd_kafka_mock_group_initial_rebalance_delay_ms(mock: *mut Mock, delay_ms: i32);
    pub(super) fn rd_kafka_mock_push_request_errors_array(
        mock: *mut Mock,
        api_key: i16,
        count: usize,
        errors: *const c_int,
    );
    pub(super) fn rd_kafka_mock_broker_set_down(mock: *mut Mock, broker_id: i32) -> c_int;
    pub(super) fn rd_kafka_mock_broker_set_up(mock: *mut Mock, broker_id: i32) -> c_int;
    pub(super) fn rd_kafka_mock_coordinator_set(
        mock: *mut Mock,
        key_type: *const c_char,
        key: *const c_char,
        broker_id: i32,
    ) -> c_int;
    pub(super) fn rd_kafka_mock_partition_set_leader(
        mock: *mut Mock,
        topic: *const c_char,
        partition: i32,
        broker_id: i32,
    ) -> c_int;
    pub(super) fn rd_kafka_mock_broker_set_rtt(mock: *mut Mock, broker_id: i32, rtt_ms: c_int) -> c_int;
}
