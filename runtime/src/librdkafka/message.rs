//! A record, lent by the library for the time of a callback.
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::slice;

use super::code::ErrorCode;
use super::sys;

/// One Kafka record. Everything in it is bytes of somebody else: nothing is decoded, nothing copied.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    raw: &'a sys::RawMessage,
    headers: Headers<'a>,
}

/// The headers of a record, in order.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    raw: *const sys::KafkaHeaders,
    next: usize,
    life: PhantomData<&'a sys::RawMessage>,
}

/// A header's name and value; an absent value and an empty one are different things.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

impl<'a> Message<'a> {
    /// Fails if the headers can't be parsed.
    ///
    /// # Safety
    /// The message is a record, not an error, and belongs to the library, which keeps it during `'a`.
    pub(super) unsafe fn new(raw: &'a sys::RawMessage) -> Result<Message<'a>, ErrorCode> {
        let mut headers: *mut sys::KafkaHeaders = ptr::null_mut();
        // SAFETY: the message is the library's; the headers it parses belong to the message.
        let code = ErrorCode(unsafe { sys::rd_kafka_message_headers(raw, &raw mut headers) });
        if !code.is_none() && code != ErrorCode::NOENT {
            return Err(code);
        }
        Ok(Message { raw, headers: Headers { raw: headers, next: 0, life: PhantomData } })
    }

    /// Kafka's offset.
    pub fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// Milliseconds since 1970; −1: none. Of a record that comes back to its producer with an error: always −1.
    pub fn timestamp(&self) -> i64 {
        let mut kind: c_int = 0;
        // SAFETY: the message is the library's and no error message.
        unsafe { sys::rd_kafka_message_timestamp(self.raw, &raw mut kind) }
    }

    /// The key; an empty key is a key.
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the library gives null or so many bytes, which live as long as the message.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    /// The value; `None` is a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.raw.payload, self.raw.len) }
    }

    /// The headers from the first on.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.raw.is_null() {
            return None;
        }
        let mut name: *const c_char = ptr::null();
        let mut value: *const c_void = ptr::null();
        let mut size = 0;
        // SAFETY: the headers belong to the message, which lives during `'a`; the library checks the index.
        let code = unsafe {
            sys::rd_kafka_header_get_all(self.raw, self.next, &raw mut name, &raw mut value, &raw mut size)
        };
        if code != 0 || name.is_null() {
            return None;
        }
        self.next += 1;
        // SAFETY: the name ends with a NUL, the value is null or so many bytes; both live with the headers.
        Some(unsafe { (CStr::from_ptr(name).to_bytes(), bytes(value, size)) })
    }
}

/// # Safety
/// The pointer is null or points to so many bytes that live and do not change during `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: not null, so the caller's promise holds.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer.cast::<u8>(), size) })
}
