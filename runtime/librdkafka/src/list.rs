//! Lists of partitions, with offsets, metadata and error codes.
use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};
use std::slice;

use super::code::ErrorCode;
use super::sys;

/// An owned list.
#[derive(Debug)]
pub struct PartitionList(NonNull<sys::RawList>);

// SAFETY: a list is plain memory that is not bound to a thread; changing it needs `&mut`.
unsafe impl Send for PartitionList {}

/// One element of a list.
#[derive(Clone, Copy, Debug)]
pub struct ListEntry<'a> {
    /// The topic name.
    pub topic: &'a CStr,
    /// The partition number.
    pub partition: i32,
    /// An offset, a timestamp or one of the library's markers, depending on the function that filled the list.
    pub offset: i64,
    /// The metadata of a commit, untrusted bytes.
    pub metadata: &'a [u8],
    /// The error of this partition.
    pub error: ErrorCode,
}

impl PartitionList {
    /// Creates an empty list with this capacity.
    pub fn with_capacity(capacity: usize) -> PartitionList {
        let size = c_int::try_from(capacity).unwrap_or(c_int::MAX);
        // SAFETY: the argument is a number; the library aborts the process rather than return null.
        let raw = unsafe { sys::rd_kafka_topic_partition_list_new(size) };
        PartitionList(NonNull::new(raw).expect("the library does not return null here"))
    }

    /// Adds a partition.
    pub fn push(&mut self, topic: &CStr, partition: i32, offset: i64) {
        // SAFETY: the list is ours and live; the name is copied.
        unsafe {
            let entry = sys::rd_kafka_topic_partition_list_add(self.0.as_ptr(), topic.as_ptr(), partition);
            (*entry).offset = offset;
        }
    }

    /// Adds a partition with the offset and metadata to commit, and the code that remains if there is no response.
    pub fn push_commit(
        &mut self,
        topic: &CStr,
        partition: i32,
        offset: i64,
        metadata: &[u8],
        code: ErrorCode,
    ) {
        // SAFETY: the list is ours and live. The library frees `metadata` with the list, so it must come from
        // the library's allocator; it does, and exactly its size is written. The library aborts the process
        // rather than return null for a size that is not zero.
        unsafe {
            let entry = sys::rd_kafka_topic_partition_list_add(self.0.as_ptr(), topic.as_ptr(), partition);
            (*entry).offset = offset;
            (*entry).err = code.0;
            if !metadata.is_empty() {
                let copy = sys::rd_kafka_mem_malloc(ptr::null_mut(), metadata.len());
                ptr::copy_nonoverlapping(metadata.as_ptr(), copy.cast::<u8>(), metadata.len());
                (*entry).metadata = copy;
                (*entry).metadata_size = metadata.len();
            }
        }
    }

    /// Iterates over the elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = ListEntry<'_>> {
        // SAFETY: the list is ours and live as long as the borrow of `self`, which also keeps it unchanged.
        unsafe { entries(self.0.as_ptr()) }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        // SAFETY: the list is ours and live.
        usize::try_from(unsafe { (*self.0.as_ptr()).cnt }).unwrap_or(0)
    }

    /// Returns whether the list has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies a list that belongs to the library, such as an event's. A null pointer becomes an empty list.
    ///
    /// # Safety
    /// The pointer is null or a list that lives during the call.
    pub(super) unsafe fn copy_of(raw: *const sys::RawList) -> PartitionList {
        if raw.is_null() {
            return PartitionList::with_capacity(0);
        }
        // SAFETY: not null, so the caller's guarantee holds; the copy is ours.
        let copy = unsafe { sys::rd_kafka_topic_partition_list_copy(raw) };
        PartitionList(NonNull::new(copy).expect("the library does not return null here"))
    }

    pub(super) fn raw(&self) -> *const sys::RawList {
        self.0.as_ptr()
    }

    pub(super) fn raw_mut(&mut self) -> *mut sys::RawList {
        self.0.as_ptr()
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: the list is ours and nothing else points to it.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) }
    }
}

/// Iterates over the elements of a list with any owner.
///
/// # Safety
/// The list lives and does not change during `'a`.
unsafe fn entries<'a>(raw: *const sys::RawList) -> impl Iterator<Item = ListEntry<'a>> {
    // SAFETY: the caller guarantees that the list lives; `elems` points to `cnt` elements, or is null if there are
    // none.
    let elements: &'a [sys::RawEntry] = unsafe {
        let count = usize::try_from((*raw).cnt).unwrap_or(0);
        if count == 0 { &[] } else { slice::from_raw_parts((*raw).elems, count) }
    };
    // SAFETY: the elements belong to the list.
    elements.iter().map(|element| unsafe { entry(element) })
}

/// Borrows an element of a list with any owner.
///
/// # Safety
/// Name and metadata belong to the element, and live and do not change as long as it is borrowed.
pub(super) unsafe fn entry(raw: &sys::RawEntry) -> ListEntry<'_> {
    ListEntry {
        // SAFETY: every element has a name that ends with a NUL.
        topic: unsafe { CStr::from_ptr(raw.topic) },
        partition: raw.partition,
        offset: raw.offset,
        metadata: if raw.metadata.is_null() {
            &[]
        } else {
            // SAFETY: not null, so it points to `metadata_size` bytes.
            unsafe { slice::from_raw_parts(raw.metadata.cast::<u8>(), raw.metadata_size) }
        },
        error: ErrorCode(raw.err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_bytes_and_survives_copies() {
        let mut list = PartitionList::with_capacity(2);
        list.push(c"t", 3, 7);
        list.push_commit(c"t", 4, 8, b"\xff\xfe\0x", ErrorCode(-9_999));
        // SAFETY: the list lives during the call.
        let copy = unsafe { PartitionList::copy_of(list.raw()) };
        let found: Vec<_> =
            copy.iter().map(|e| (e.partition, e.offset, e.metadata.to_vec(), e.error.0)).collect();
        assert_eq!(found, [(3, 7, vec![], 0), (4, 8, b"\xff\xfe\0x".to_vec(), -9_999)]);
        assert_eq!(copy.len(), 2);
    }
}
