//! A record, borrowed from the library during a callback or from an event.
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::slice;
use std::sync::LazyLock;

use super::code::ErrorCode;
use super::sys;

/// `RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME`.
const LOG_APPEND_TIME: c_int = 2;

/// One Kafka record. All its parts are foreign bytes: nothing is decoded or copied.
#[derive(Clone, Copy)]
pub struct Record<'a> {
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

/// A header's name and value; an absent value differs from an empty one.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

impl<'a> Record<'a> {
    /// Borrows a record. Fails if its headers can't be parsed.
    ///
    /// # Safety
    /// The message is a record, not an error, and belongs to the library, which keeps it during `'a`.
    pub(super) unsafe fn new(raw: &'a sys::RawMessage) -> Result<Record<'a>, ErrorCode> {
        let mut headers: *mut sys::KafkaHeaders = ptr::null_mut();
        // SAFETY: the message belongs to the library; the headers that it parses belong to the message.
        let code = ErrorCode(unsafe { sys::rd_kafka_message_headers(raw, &raw mut headers) });
        if !code.is_none() && code != ErrorCode::NOENT {
            return Err(code);
        }
        Ok(Record { raw, headers: Headers { raw: headers, next: 0, life: PhantomData } })
    }

    /// Returns the offset in the partition.
    pub fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// Returns the timestamp in milliseconds since 1970, or −1 for none, and whether the broker set it when it stored
    /// the record (`message.timestamp.type=LogAppendTime`). In a delivery report with an error the timestamp is always
    /// −1.
    pub fn timestamp(&self) -> (i64, bool) {
        let mut kind: c_int = 0;
        // SAFETY: the message belongs to the library and is not an error.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.raw, &raw mut kind) };
        (timestamp, kind == LOG_APPEND_TIME)
    }

    /// Returns the key; an empty key differs from none.
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the library returns null or `key_len` bytes, which live as long as the message.
        unsafe { bytes(self.raw.key, self.raw.key_len) }
    }

    /// Returns the value; `None` is a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.raw.payload, self.raw.len) }
    }

    /// Returns all headers.
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
        // SAFETY: the library returned the name; the value is null or `size` bytes; both live with the headers.
        Some(unsafe { (whole_name(name), bytes(value, size)) })
    }
}

/// The fields before the name of a header in the library's memory (`rd_kafka_header_t`).
#[repr(C)]
struct BeforeName {
    serialized_size: usize,
    value_size: usize,
    name_size: usize,
    value: *const c_void,
}

/// Whether headers have this layout, verified once. The library's interface returns names as C strings, but a name may
/// contain NUL bytes, and its length is in a structure that is not part of the interface.
static LAYOUT_IS_KNOWN: LazyLock<bool> = LazyLock::new(|| {
    let (name, value) = (b"a\0b", b"v");
    // SAFETY: the headers are ours and live until they are destroyed; name and value are copied with the sizes passed.
    // In every version of the library that has headers, at least four words precede the name in the same allocation.
    unsafe {
        let headers = sys::rd_kafka_headers_new(1);
        sys::rd_kafka_header_add(headers, name.as_ptr().cast(), 3, value.as_ptr().cast(), 1);
        let (mut found, mut found_value, mut size) = (ptr::null(), ptr::null(), 0);
        sys::rd_kafka_header_get_all(headers, 0, &raw mut found, &raw mut found_value, &raw mut size);
        let known = !found.is_null() && {
            let before = before(found).read_unaligned();
            (before.value_size, before.name_size, before.value) == (1, 3, found_value)
        };
        sys::rd_kafka_headers_destroy(headers);
        known
    }
});

fn before(name: *const c_char) -> *const BeforeName {
    name.wrapping_byte_sub(size_of::<BeforeName>()).cast()
}

/// Returns the name of a header, with all its bytes.
///
/// # Safety
/// The library returned this name, and it lives during `'a`.
unsafe fn whole_name<'a>(name: *const c_char) -> &'a [u8] {
    if *LAYOUT_IS_KNOWN {
        // SAFETY: the layout was verified: this is the header of the name.
        let size = unsafe { before(name).read_unaligned() }.name_size;
        // SAFETY: the library stores `size` bytes of the name, followed by a NUL.
        return unsafe { slice::from_raw_parts(name.cast(), size) };
    }
    // SAFETY: the name ends with a NUL.
    unsafe { CStr::from_ptr(name) }.to_bytes()
}

/// # Safety
/// The pointer is null or points to `size` bytes that live and do not change during `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: not null, so the caller's guarantee holds.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer.cast::<u8>(), size) })
}
