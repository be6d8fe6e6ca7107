//! The group's committed offsets. A [`GroupReader`] blocks on the coordinator, so it runs on its own thread.
use std::ffi::CString;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use keylane_core::Partition;

use crate::librdkafka::{ErrorCode, GroupReader, PartitionList, Properties, WakeHandle};

/// Capacity of the queue of requests. Look-ups that begin together share one request.
const QUESTIONS_MAX: usize = 16;
/// The reader is dropped after this time without a request.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The sender of requests for the group's committed offsets.
pub(in crate::source) struct GroupCommits {
    properties: Properties,
    wake: WakeHandle,
    /// The thread that sends the requests; the first request starts it.
    thread: Option<Thread>,
}

struct Thread {
    questions: SyncSender<CommitsQuestion>,
    answers: Receiver<CommitsAnswer>,
}

/// A request for the committed offsets of these partitions.
pub(super) struct CommitsQuestion {
    pub(super) group: CString,
    pub(super) partitions: PartitionList,
    pub(super) limit: Duration,
    /// The look-ups that wait for the answer.
    pub(super) asked: Vec<(Partition, u64)>,
}

pub(super) struct CommitsAnswer {
    pub(super) asked: Vec<(Partition, u64)>,
    pub(super) found: Result<PartitionList, ErrorCode>,
}

impl GroupCommits {
    /// Creates the sender; it has no thread yet. `properties` are those of the consumer. Every answer wakes `wake`.
    pub(in crate::source) fn new(properties: Properties, wake: &WakeHandle) -> GroupCommits {
        GroupCommits { properties, wake: Arc::clone(wake), thread: None }
    }

    /// Sends a request; the answer arrives later. If no thread can be started or the queue is full, returns an answer
    /// with an error.
    pub(super) fn ask(&mut self, question: CommitsQuestion) -> Option<CommitsAnswer> {
        let thread = match self.thread.take().map_or_else(|| self.start_thread(), Ok) {
            Ok(thread) => self.thread.insert(thread),
            Err(error) => {
                tracing::warn!(%error, "the thread that reads committed offsets can't be started");
                return Some(question.failed(ErrorCode::CRIT_SYS_RESOURCE));
            }
        };
        match thread.questions.try_send(question) {
            Ok(()) => None,
            Err(TrySendError::Full(question)) => Some(question.failed(ErrorCode::QUEUE_FULL)),
            Err(TrySendError::Disconnected(_)) => unreachable!("the thread ends after its last request"),
        }
    }

    pub(super) fn next_answer(&self) -> Option<CommitsAnswer> {
        self.thread.as_ref()?.answers.try_recv().ok()
    }

    fn start_thread(&self) -> io::Result<Thread> {
        let (questions, asked) = mpsc::sync_channel(QUESTIONS_MAX);
        let (answer, answers) = mpsc::sync_channel(QUESTIONS_MAX);
        let (properties, wake) = (self.properties.clone(), Arc::clone(&self.wake));
        let run = move || answer_all(&properties, &asked, &answer, &wake);
        thread::Builder::new().name("keylane-commits".to_owned()).spawn(run)?;
        Ok(Thread { questions, answers })
    }
}

impl CommitsQuestion {
    fn failed(self, code: ErrorCode) -> CommitsAnswer {
        CommitsAnswer { asked: self.asked, found: Err(code) }
    }
}

/// Answers requests until the other ends of the channels are dropped.
fn answer_all(
    properties: &Properties,
    questions: &Receiver<CommitsQuestion>,
    answers: &SyncSender<CommitsAnswer>,
    wake: &WakeHandle,
) {
    let mut reader: Option<GroupReader> = None;
    loop {
        let question = match questions.recv_timeout(IDLE_MAX) {
            Ok(question) => question,
            Err(RecvTimeoutError::Timeout) => {
                reader = None;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let answer = match reader.take().map_or_else(|| GroupReader::new(properties), Ok) {
            Ok(known) => {
                let CommitsQuestion { group, partitions, limit, asked } = question;
                let found;
                (reader, found) = known.read(&group, Some(&partitions), true, limit);
                CommitsAnswer { asked, found }
            }
            Err(error) => {
                tracing::warn!(%error, "the client that reads committed offsets can't be created");
                question.failed(ErrorCode::CRIT_SYS_RESOURCE)
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
        wake.wake();
    }
}
