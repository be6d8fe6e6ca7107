//! Checks, when this crate is compiled, that the hand-declared structs of [`sys`](super::sys) have the layout that
//! `rdkafka-sys` generated from `rdkafka.h`. So no other version of the library can change a layout unnoticed.

use std::mem::{offset_of, size_of};

use rdkafka_sys::bindings as c;

use super::sys::{RawBroker, RawEntry, RawList, RawMessage, RawMetadata};

/// Fails to compile if a field has another offset than in the C struct.
macro_rules! same_layout {
    ($ours:ty, $theirs:ty: $($field:ident = $their_field:ident),* $(,)?) => {
        const _: () = {
            $(assert!(offset_of!($ours, $field) == offset_of!($theirs, $their_field));)*
        };
    };
}

same_layout!(
    RawMessage, c::rd_kafka_message_s:
    err = err, rkt = rkt, partition = partition, payload = payload, len = len,
    key = key, key_len = key_len, offset = offset, private = _private,
);
same_layout!(
    RawEntry, c::rd_kafka_topic_partition_s:
    topic = topic, partition = partition, offset = offset, metadata = metadata,
    metadata_size = metadata_size, opaque = opaque, err = err, private = _private,
);
same_layout!(RawList, c::rd_kafka_topic_partition_list_s: cnt = cnt, size = size, elems = elems);
same_layout!(RawMetadata, c::rd_kafka_metadata: broker_cnt = broker_cnt, brokers = brokers);
same_layout!(RawBroker, c::rd_kafka_metadata_broker: id = id, host = host, port = port);

// The sizes must be equal, too, for structs in arrays. `RawMetadata` declares only the beginning of its struct.
const _: () = assert!(size_of::<RawMessage>() == size_of::<c::rd_kafka_message_s>());
const _: () = assert!(size_of::<RawEntry>() == size_of::<c::rd_kafka_topic_partition_s>());
const _: () = assert!(size_of::<RawList>() == size_of::<c::rd_kafka_topic_partition_list_s>());
const _: () = assert!(size_of::<RawBroker>() == size_of::<c::rd_kafka_metadata_broker>());
