//! The transactions of a producer.
//!
//! Each function waits for brokers: a producer with transactions needs a thread of its own.
use std::ffi::CStr;
use std::fmt;
use std::ptr::{self, NonNull};
use std::time::Duration;

use super::code::{self, ErrorCode};
use super::deadline::millis;
use super::{Consumer, PartitionList, Producer, sys};

/// Why a step of a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionError {
    /// The code.
    pub code: ErrorCode,
    /// Whether the producer can't be used any more.
    pub fatal: bool,
    /// Whether the same call may succeed later. It resumes where it was.
    pub retriable: bool,
    /// The description.
    pub text: String,
}

/// A member of a group in one generation. The coordinator accepts offsets only from its current members and for the
/// current generation, except if the generation is −1: see [`GroupMetadata::of_no_member`].
#[derive(Debug)]
pub struct GroupMetadata(NonNull<sys::RawGroupMetadata>);

// SAFETY: the object is plain data that nothing else refers to.
unsafe impl Send for GroupMetadata {}
// SAFETY: as above; nothing is changed through a reference.
unsafe impl Sync for GroupMetadata {}

impl Producer {
    /// Obtains the producer's id and epoch. Producers with the same `transactional.id` are fenced, and their open
    /// transaction is aborted.
    pub fn init_transactions(&self, timeout: Duration) -> Result<(), TransactionError> {
        // SAFETY: the client is live; the error object is ours.
        unsafe { take(sys::rd_kafka_init_transactions(self.client().raw(), millis(timeout))) }
    }

    /// Begins a transaction, without a request.
    pub fn begin_transaction(&self) -> Result<(), TransactionError> {
        // SAFETY: as above.
        unsafe { take(sys::rd_kafka_begin_transaction(self.client().raw())) }
    }

    /// Adds offsets to the transaction. An error does not fail the transaction: a commit could succeed without them. The
    /// client may wait for longer than the timeout, up to its `socket.timeout.ms`.
    pub fn send_offsets(
        &self,
        offsets: &PartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), TransactionError> {
        // SAFETY: client, list and metadata are live and are copied; the error object is ours.
        unsafe {
            take(sys::rd_kafka_send_offsets_to_transaction(
                self.client().raw(),
                offsets.raw(),
                group.0.as_ptr(),
                millis(timeout),
            ))
        }
    }

    /// Commits the transaction. After a retriable error, only the same call may follow.
    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), TransactionError> {
        // SAFETY: the client is live; the error object is ours.
        unsafe { take(sys::rd_kafka_commit_transaction(self.client().raw(), millis(timeout))) }
    }

    /// Aborts the transaction. After a retriable error, only the same call may follow.
    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), TransactionError> {
        // SAFETY: as above.
        unsafe { take(sys::rd_kafka_abort_transaction(self.client().raw(), millis(timeout))) }
    }
}

impl Consumer {
    /// Returns the current membership; `None`: the client is no member of its group, as far as it knows.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        // SAFETY: the client is live; the object is ours.
        let raw = unsafe { sys::rd_kafka_consumer_group_metadata(self.client().raw()) };
        let metadata = GroupMetadata(NonNull::new(raw)?);
        metadata.is_member().then_some(metadata)
    }
}

impl GroupMetadata {
    /// Creates the metadata of a member that does not exist, to test whether a broker rejects it.
    pub fn of_stranger(group: &CStr) -> Option<GroupMetadata> {
        let member = c"keylane-fencing-test";
        // SAFETY: the strings end with a NUL and are copied; a null instance id means none; the object is ours.
        let raw = unsafe {
            sys::rd_kafka_consumer_group_metadata_new_with_genid(
                group.as_ptr(),
                i32::MAX,
                member.as_ptr(),
                ptr::null(),
            )
        };
        NonNull::new(raw).map(GroupMetadata)
    }

    /// Creates the metadata of a client that is no member of the group. Whether the group has members is not checked by the
    /// coordinator, so the caller does.
    pub fn of_no_member(group: &CStr) -> Option<GroupMetadata> {
        // SAFETY: as above.
        let raw = unsafe {
            sys::rd_kafka_consumer_group_metadata_new_with_genid(
                group.as_ptr(),
                -1,
                c"".as_ptr(),
                ptr::null(),
            )
        };
        NonNull::new(raw).map(GroupMetadata)
    }

    /// Returns whether a coordinator checks this metadata.
    fn is_member(&self) -> bool {
        // SAFETY: the object is live; the member id is a NUL-terminated string that belongs to it.
        unsafe {
            let member = sys::rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr());
            let generation = sys::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr());
            generation >= 0 && !member.is_null() && *member != 0
        }
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: the object is ours and is not used any more.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code.name())
    }
}

impl std::error::Error for TransactionError {}

/// Converts and destroys an error object; null is success.
///
/// # Safety
/// The pointer is null or an error object that has no other user.
unsafe fn take(error: *mut sys::KafkaError) -> Result<(), TransactionError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller guarantees that it is not null and owned by us; it is not used after the last call.
    unsafe {
        let (fatal, retriable) =
            (sys::rd_kafka_error_is_fatal(error) != 0, sys::rd_kafka_error_is_retriable(error) != 0);
        let text = code::text(sys::rd_kafka_error_string(error));
        let code = code::take(error).err().unwrap_or(ErrorCode::NONE);
        Err(TransactionError { code, fatal, retriable, text })
    }
}
