//! One event, as a view into the columns of its batch.

use std::iter::FusedIterator;

use serde::Deserialize;

use crate::columns::ColumnReader;
use crate::{Failure, Result};

/// One Kafka record. All borrowed data lives as long as the call.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
    pub(crate) attempt: u32,
    pub(crate) last_attempt: bool,
}

impl<'a> Event<'a> {
    /// Returns the key, if the record has one. An empty key is present, not absent.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Returns the value, or `None` for a tombstone. An empty value is present, not absent.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// Returns the key as text.
    ///
    /// # Errors
    /// Rejects the event if it has no key or a key that is not UTF-8.
    pub fn key_text(&self) -> Result<&'a str> {
        let key = self.key.ok_or_else(|| Failure::reject("the event has no key"))?;
        str::from_utf8(key).map_err(|error| Failure::reject(format!("the key is not UTF-8: {error}")))
    }

    /// Returns the value as text.
    ///
    /// # Errors
    /// Rejects the event if it has no value or a value that is not UTF-8.
    pub fn text(&self) -> Result<&'a str> {
        str::from_utf8(self.present_value()?)
            .map_err(|error| Failure::reject(format!("the value is not UTF-8: {error}")))
    }

    /// Returns the value, decoded from JSON. The type may borrow from the event.
    ///
    /// # Errors
    /// Rejects the event if it has no value or a value that does not decode to `T`.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T> {
        serde_json::from_slice(self.present_value()?)
            .map_err(|error| Failure::reject(format!("the value is not the expected JSON: {error}")))
    }

    /// Returns the headers, in the order of the record. A name may occur more than once.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// Returns the value of the last header with this name, as in Kafka's own clients. The result is `None` if there is
    /// no such header or if its value is absent; [`headers`](Self::headers) distinguishes the two.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.raw().filter(|&(raw, _)| raw == name.as_bytes()).last().and_then(|(_, value)| value)
    }

    /// Returns the topic that the event was read from.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Returns the partition that the event was read from.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Returns the offset of the event in its partition.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the timestamp in milliseconds since the Unix epoch, if the record has one.
    pub fn timestamp_ms(&self) -> Option<i64> {
        (self.timestamp != NO_TIMESTAMP).then_some(self.timestamp)
    }

    /// Returns the number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns whether this is the last attempt, so that a retry is not possible. (A configured `max_record_age` may
    /// end the event earlier.)
    pub fn last_attempt(&self) -> bool {
        self.last_attempt
    }

    fn present_value(&self) -> Result<&'a [u8]> {
        self.value.ok_or_else(|| Failure::reject("the event has no value (it is a tombstone)"))
    }
}

/// The value that stands for "no timestamp" in the contract.
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// One header of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name. The host replaces invalid UTF-8 in names.
    pub name: &'a str,
    /// The value. Absent and empty differ, as in Kafka.
    pub value: Option<&'a [u8]>,
}

/// An iterator over the headers of an event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    names: ColumnReader<'a>,
    values: ColumnReader<'a>,
}

impl<'a> Headers<'a> {
    pub(crate) fn new(names: ColumnReader<'a>, values: ColumnReader<'a>) -> Self {
        Self { names, values }
    }

    /// Returns names and values as bytes: a search by name needs no UTF-8 check.
    fn raw(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        self.names.map(Option::unwrap_or_default).zip(self.values)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let name = self.names.next()?.unwrap_or_default();
        let name = str::from_utf8(name).expect("the host sends header names as UTF-8");
        Some(Header { name, value: self.values.read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.names.len(), Some(self.names.len()))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}
