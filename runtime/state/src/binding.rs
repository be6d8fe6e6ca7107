//! The binding record, which binds the states of a partition to the offset that the group has committed.
//!
//! Each transaction that commits an offset of a partition also writes this record, at the key [`crate::BINDING_KEY`].
//! A partition starts only if the record and the committed offset are of the same transaction. Otherwise the states
//! are not the result of exactly the events below the committed offset.
//!
//! ```text
//! value    := 0x01 crc:u32be offset:i64be partition_count:u32be topic_id metadata group handler topic lane_key
//! topic_id := 0x00 | 0x01 id[16]
//! metadata, group, handler, topic, lane_key := length:u32be bytes
//! ```
//!
//! The metadata says which events beyond the offset are done, so the offset can be committed again from the record alone.

use crate::record_error::{self, RecordError};

/// The only format so far.
const FORMAT: u8 = 1;

/// The offset of a binding that agrees with no commit: the states of the partition are being deleted.
pub const RESET_OFFSET: i64 = -1;

/// The offset of a binding that agrees only with no commit: the marks of the partition were written before its first start.
pub const SEEDED_OFFSET: i64 = -2;

/// What a partition is, according to the configuration and the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingIdentity {
    /// The consumer group.
    pub group: String,
    /// The name of the handler.
    pub handler: String,
    /// The input topic.
    pub topic: String,
    /// The partition of the input topic and of the changelog. It is not part of the record.
    pub partition: i32,
    /// The id of the input topic; `None`: unknown, so it is not compared.
    pub topic_id: Option<[u8; 16]>,
    /// The number of partitions of the input topic.
    pub partition_count: u32,
    /// The ordering and the lane key as text. Equal texts mean equal keys of records.
    pub lane_key: String,
}

impl BindingIdentity {
    /// Appends the value of the binding record of a transaction that commits this offset with this metadata.
    pub fn encode(&self, offset: i64, metadata: &[u8], out: &mut Vec<u8>) {
        let start = record_error::begin(FORMAT, out);
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&self.partition_count.to_be_bytes());
        out.push(u8::from(self.topic_id.is_some()));
        out.extend_from_slice(self.topic_id.as_ref().map_or(&[], <[u8; 16]>::as_slice));
        let texts = [&self.group, &self.handler, &self.topic, &self.lane_key].map(|text| text.as_bytes());
        for bytes in [metadata].into_iter().chain(texts) {
            let length = u32::try_from(bytes.len()).expect("metadata and names are shorter than 4 GiB");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        record_error::seal(start, out);
    }
}

/// A binding record as found in a changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The consumer group.
    pub group: String,
    /// The name of the handler.
    pub handler: String,
    /// The input topic.
    pub topic: String,
    /// The id of the input topic; `None`: it was unknown.
    pub topic_id: Option<[u8; 16]>,
    /// The number of partitions of the input topic.
    pub partition_count: u32,
    /// The ordering and the lane key as text.
    pub lane_key: String,
    /// The offset that the transaction committed.
    pub offset: i64,
    /// The metadata that the transaction committed.
    pub metadata: Vec<u8>,
}

impl Binding {
    /// Decodes the value of a binding record.
    ///
    /// # Errors
    /// The value is damaged, has a newer format, or was not written by Keylane.
    pub fn decode(value: &[u8]) -> Result<Binding, RecordError> {
        let ends_early = RecordError::EndsEarly { length: value.len() };
        let mut fields = Fields { rest: record_error::content(value, FORMAT)?, ends_early };
        let offset = i64::from_be_bytes(fields.chunk()?);
        let partition_count = u32::from_be_bytes(fields.chunk()?);
        let topic_id = match fields.chunk()? {
            [0] => None,
            [1] => Some(fields.chunk()?),
            [_] => return Err(RecordError::InvalidField { field: "topic id" }),
        };
        let metadata = fields.bytes()?.to_vec();
        let group = fields.text("group")?;
        let handler = fields.text("handler")?;
        let topic = fields.text("topic")?;
        let lane_key = fields.text("lane key")?;
        if !fields.rest.is_empty() {
            return Err(RecordError::InvalidField { field: "length" });
        }
        Ok(Binding { group, handler, topic, topic_id, partition_count, lane_key, offset, metadata })
    }
}

/// The fields of a binding record that are not decoded yet.
struct Fields<'a> {
    rest: &'a [u8],
    ends_early: RecordError,
}

impl<'a> Fields<'a> {
    fn chunk<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], RecordError> {
        let (chunk, rest) = self.rest.split_first_chunk::<LENGTH>().ok_or(self.ends_early)?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = usize::try_from(u32::from_be_bytes(self.chunk()?)).ok();
        let split = length.and_then(|length| self.rest.split_at_checked(length));
        let (bytes, rest): (&'a [u8], _) = split.ok_or(self.ends_early)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self, field: &'static str) -> Result<String, RecordError> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| RecordError::InvalidField { field })?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn identity() -> BindingIdentity {
        BindingIdentity {
            group: "bank".to_owned(),
            handler: "balances".to_owned(),
            topic: "orders".to_owned(),
            partition: 3,
            topic_id: Some([7; 16]),
            partition_count: 12,
            lane_key: "key: record key".to_owned(),
        }
    }

    pub(crate) fn binding(offset: i64, metadata: &[u8]) -> Binding {
        Binding::decode(&encoded(&identity(), offset, metadata)).expect("an encoded binding can be decoded")
    }

    fn encoded(identity: &BindingIdentity, offset: i64, metadata: &[u8]) -> Vec<u8> {
        let mut value = Vec::new();
        identity.encode(offset, metadata, &mut value);
        value
    }

    #[test]
    fn a_binding_is_decoded_as_it_was_encoded() {
        for topic_id in [None, Some([7; 16])] {
            let identity = BindingIdentity { topic_id, ..identity() };
            let found = Binding::decode(&encoded(&identity, 1200, b"set")).expect("a binding");
            assert_eq!((found.offset, found.metadata), (1200, b"set".to_vec()));
            assert_eq!((found.topic_id, found.partition_count), (topic_id, 12));
            assert_eq!((&found.group, &found.handler), (&identity.group, &identity.handler));
            assert_eq!((&found.topic, &found.lane_key), (&identity.topic, &identity.lane_key));
        }
    }

    /// The format is a contract between versions of Keylane.
    #[test]
    fn the_bytes_of_a_binding_do_not_change() {
        let small = BindingIdentity {
            group: "g".to_owned(),
            handler: "h".to_owned(),
            topic: "t".to_owned(),
            topic_id: None,
            lane_key: "k".to_owned(),
            ..identity()
        };
        let value = encoded(&small, 0x0102, b"");
        let content = b"\0\0\0\0\0\0\x01\x02\0\0\0\x0c\0\0\0\0\0\0\0\0\x01g\0\0\0\x01h\0\0\0\x01t\0\0\0\x01k";
        assert_eq!((value[0], &value[5..]), (1, &content[..]));
    }

    #[test]
    fn every_damaged_byte_and_every_missing_end_is_detected() {
        let value = encoded(&identity(), 1200, b"set");
        for length in 0..value.len() {
            assert!(Binding::decode(&value[..length]).is_err(), "{length} bytes");
        }
        for at in 0..value.len() {
            let mut damaged = value.clone();
            damaged[at] ^= 0x10;
            assert!(Binding::decode(&damaged).is_err(), "byte {at}");
        }
    }

    /// Gives a changed content its right checksum.
    fn sealed(mut value: Vec<u8>) -> Vec<u8> {
        record_error::seal(0, &mut value);
        value
    }

    #[test]
    fn content_without_meaning_is_named() {
        let check = |value: Vec<u8>, expected| assert_eq!(Binding::decode(&sealed(value)), Err(expected));
        let value = encoded(&identity(), 1200, b"set");
        let mut longer = value.clone();
        longer.push(0);
        check(longer, RecordError::InvalidField { field: "length" });
        let mut topic_id = value.clone();
        topic_id[17] = 2;
        check(topic_id, RecordError::InvalidField { field: "topic id" });
        let mut group = value.clone();
        group[45] = 0xff;
        check(group, RecordError::InvalidField { field: "group" });
        let short = value[..value.len() - 1].to_vec();
        check(short, RecordError::EndsEarly { length: value.len() - 1 });
        let mut newer = value;
        newer[0] = 9;
        check(newer, RecordError::NewerFormat { found: 9, newest: 1 });
    }
}
