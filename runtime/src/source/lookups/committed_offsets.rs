//! The group's committed offsets. A [`GroupReader`] blocks on the coordinator, so it runs on its own thread.
use std::ffi::CString;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use super::LookupKey;
use crate::librdkafka::{Deadline, ErrorCode, GroupReader, PartitionList, Properties, WakeHandle};
use crate::source::delivery_suffix::without_transactions;

/// Capacity of the queue of requests. Lookups that begin together share one request.
const REQUESTS_MAX: usize = 16;
/// The reader is dropped after this time without a request.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The members of a group are not checked again for this time after one of them did not have transactional delivery.
const CHECK_PAUSE: Duration = Duration::from_secs(5);

/// Reads the group's committed offsets on a thread of its own.
pub(in crate::source) struct CommittedOffsetsReader {
    properties: Properties,
    wake: WakeHandle,
    /// The thread that sends the requests; the first request starts it.
    thread: Option<Thread>,
}

struct Thread {
    requests: SyncSender<CommittedOffsetsRequest>,
    responses: Receiver<CommittedOffsetsResponse>,
}

/// A request for the committed offsets of these partitions.
pub(super) struct CommittedOffsetsRequest {
    pub(super) group: CString,
    pub(super) partitions: PartitionList,
    pub(super) timeout: Duration,
    /// Transactional delivery: what the members of the group have to be like.
    pub(super) check: Option<MemberCheck>,
    /// The lookups that wait for the response.
    pub(super) lookups: Vec<LookupKey>,
}

/// The response to a [`CommittedOffsetsRequest`].
pub(super) struct CommittedOffsetsResponse {
    pub(super) lookups: Vec<LookupKey>,
    pub(super) found: Result<PartitionList, NoOffsets>,
}

/// Why committed offsets are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) enum NoOffsets {
    /// The request failed.
    Failed(ErrorCode),
    /// This member of the group does not have transactional delivery: the offsets may change without the records of
    /// transactions.
    OtherDelivery(String),
}

/// The check that every member of the group has transactional delivery.
#[derive(Clone, Debug)]
pub(in crate::source) struct MemberCheck {
    /// The `group.instance.id` of this process.
    pub(in crate::source) instance_id: Option<String>,
}

impl CommittedOffsetsReader {
    /// Creates the reader; it has no thread yet. `properties` are those of the consumer. Every response wakes `wake`.
    pub(in crate::source) fn new(properties: Properties, wake: &WakeHandle) -> CommittedOffsetsReader {
        CommittedOffsetsReader { properties, wake: Arc::clone(wake), thread: None }
    }

    /// Sends a request; the response arrives later. If no thread can be started or the queue is full, returns a response
    /// with an error.
    pub(super) fn send(&mut self, request: CommittedOffsetsRequest) -> Option<CommittedOffsetsResponse> {
        let thread = match self.thread.take().map_or_else(|| self.start_thread(), Ok) {
            Ok(thread) => self.thread.insert(thread),
            Err(error) => {
                tracing::warn!(%error, "the thread that reads committed offsets can't be started");
                return Some(request.failed(ErrorCode::CRIT_SYS_RESOURCE));
            }
        };
        match thread.requests.try_send(request) {
            Ok(()) => None,
            Err(TrySendError::Full(request)) => Some(request.failed(ErrorCode::QUEUE_FULL)),
            Err(TrySendError::Disconnected(_)) => unreachable!("the thread ends after its last request"),
        }
    }

    pub(super) fn next_response(&self) -> Option<CommittedOffsetsResponse> {
        self.thread.as_ref()?.responses.try_recv().ok()
    }

    fn start_thread(&self) -> io::Result<Thread> {
        let (requests, received) = mpsc::sync_channel(REQUESTS_MAX);
        let (respond, responses) = mpsc::sync_channel(REQUESTS_MAX);
        let (properties, wake) = (self.properties.clone(), Arc::clone(&self.wake));
        let run = move || serve(&properties, &received, &respond, &wake);
        thread::Builder::new().name("keylane-commits".to_owned()).spawn(run)?;
        Ok(Thread { requests, responses })
    }
}

impl CommittedOffsetsRequest {
    fn failed(self, code: ErrorCode) -> CommittedOffsetsResponse {
        CommittedOffsetsResponse { lookups: self.lookups, found: Err(NoOffsets::Failed(code)) }
    }
}

/// Serves requests until the other ends of the channels are dropped.
fn serve(
    properties: &Properties,
    requests: &Receiver<CommittedOffsetsRequest>,
    responses: &SyncSender<CommittedOffsetsResponse>,
    wake: &WakeHandle,
) {
    let mut reader: Option<GroupReader> = None;
    let mut last_check = LastCheck::default();
    loop {
        let request = match requests.recv_timeout(IDLE_MAX) {
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) => {
                reader = None;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let response = match reader.take().map_or_else(|| GroupReader::new(properties), Ok) {
            Ok(known) => {
                let found;
                (reader, found) = read(known, &request, &mut last_check);
                CommittedOffsetsResponse { lookups: request.lookups, found }
            }
            Err(error) => {
                tracing::warn!(%error, "the client that reads committed offsets can't be created");
                request.failed(ErrorCode::CRIT_SYS_RESOURCE)
            }
        };
        if responses.send(response).is_err() {
            return;
        }
        wake.wake();
    }
}

/// The last check that has found a member without transactional delivery.
#[derive(Default)]
struct LastCheck(Option<(Deadline, String)>);

/// Checks the members of the group, if that is required, and reads the offsets.
fn read(
    reader: GroupReader,
    request: &CommittedOffsetsRequest,
    last_check: &mut LastCheck,
) -> (Option<GroupReader>, Result<PartitionList, NoOffsets>) {
    let CommittedOffsetsRequest { group, partitions, timeout, check, .. } = request;
    let mut reader = reader;
    if let Some(MemberCheck { instance_id }) = check {
        last_check.0.take_if(|(until, _)| until.is_over());
        if let Some((_, member)) = &last_check.0 {
            return (Some(reader), Err(NoOffsets::OtherDelivery(member.clone())));
        }
        let (left, described) = reader.describe(group, *timeout);
        let member = match described {
            Ok(described) => without_transactions(&described.members, instance_id.as_deref()),
            Err(code) => return (left, Err(NoOffsets::Failed(code))),
        };
        if let Some(member) = member {
            last_check.0 = Some((Deadline::after(CHECK_PAUSE), member.clone()));
            return (left, Err(NoOffsets::OtherDelivery(member)));
        }
        let Some(left) = left else { return (None, Err(NoOffsets::Failed(ErrorCode::TIMED_OUT))) };
        reader = left;
    }
    if partitions.is_empty() {
        return (Some(reader), Ok(PartitionList::with_capacity(0)));
    }
    let (left, found) = reader.read(group, Some(partitions), true, *timeout);
    (left, found.map_err(NoOffsets::Failed))
}
