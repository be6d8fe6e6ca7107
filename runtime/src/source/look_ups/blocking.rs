//! What waits for brokers, on threads of its own.
use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use keylane_core::Partition;

use crate::librdkafka::{
    Client, ErrorCode, GroupReader, PartitionList, Properties, WakeHandle, refresh_leaders,
};

/// Questions that wait for the one before: starts that come together are one.
const QUESTIONS_MAX: usize = 16;
/// After so long without a question the reader goes.
const IDLE_MAX: Duration = Duration::from_secs(30);

pub(in crate::source) struct Blocking {
    /// Of the consumer.
    properties: Properties,
    client: Arc<Client>,
    wake: WakeHandle,
    /// The thread that reads commits, from the first question on.
    commits: Option<Commits>,
    /// Held by the thread that asks for leaders, if there is one.
    refreshing: Arc<()>,
}

struct Commits {
    questions: SyncSender<CommitsQuestion>,
    answers: Receiver<CommitsAnswer>,
}

/// What a group committed for these partitions.
pub(super) struct CommitsQuestion {
    pub(super) group: CString,
    pub(super) partitions: PartitionList,
    pub(super) limit: Duration,
    /// The look-ups that wait for it.
    pub(super) asked: Vec<(Partition, u64)>,
}

pub(super) struct CommitsAnswer {
    pub(super) asked: Vec<(Partition, u64)>,
    pub(super) found: Result<PartitionList, ErrorCode>,
}

impl Blocking {
    /// `properties`: those of the consumer, whose client this is. `wake`: woken by answers.
    pub(in crate::source) fn new(
        properties: Properties,
        client: &Arc<Client>,
        wake: &WakeHandle,
    ) -> Blocking {
        let (client, wake) = (Arc::clone(client), Arc::clone(wake));
        Blocking { properties, client, wake, commits: None, refreshing: Arc::new(()) }
    }

    /// The answer comes later, unless it is given here: there is no thread for the question, or too many wait for it.
    pub(super) fn ask_commits(&mut self, question: CommitsQuestion) -> Option<CommitsAnswer> {
        let commits = match self.commits.take().map_or_else(|| self.start_thread(), Ok) {
            Ok(commits) => self.commits.insert(commits),
            Err(error) => {
                tracing::warn!(%error, "no thread to read the group's offsets");
                return Some(question.failed(ErrorCode::CRIT_SYS_RESOURCE));
            }
        };
        match commits.questions.try_send(question) {
            Ok(()) => None,
            Err(TrySendError::Full(question)) => Some(question.failed(ErrorCode::QUEUE_FULL)),
            Err(TrySendError::Disconnected(_)) => unreachable!("the thread ends after its last question"),
        }
    }

    pub(super) fn next_commits(&self) -> Option<CommitsAnswer> {
        self.commits.as_ref()?.answers.try_recv().ok()
    }

    /// The consumer's client knows the leaders of this topic soon, if a broker answers. One topic at a time.
    pub(super) fn refresh_leaders(&self, topic: &CStr, limit: Duration) {
        if Arc::strong_count(&self.refreshing) > 1 {
            return;
        }
        let (refreshing, client) = (Arc::clone(&self.refreshing), Arc::clone(&self.client));
        let topic = topic.to_owned();
        let refresh = move || {
            if let Err(code) = refresh_leaders(&client, &topic, limit) {
                tracing::debug!(?topic, %code, "leaders not refreshed");
            }
            drop(refreshing);
        };
        if let Err(error) = thread::Builder::new().name("keylane-leaders".to_owned()).spawn(refresh) {
            tracing::warn!(%error, "no thread to ask for the leaders of partitions");
        }
    }

    fn start_thread(&self) -> io::Result<Commits> {
        let (questions, asked) = mpsc::sync_channel(QUESTIONS_MAX);
        let (answer, answers) = mpsc::sync_channel(QUESTIONS_MAX);
        let (properties, wake) = (self.properties.clone(), Arc::clone(&self.wake));
        let run = move || answer_all(&properties, &asked, &answer, &wake);
        thread::Builder::new().name("keylane-commits".to_owned()).spawn(run)?;
        Ok(Commits { questions, answers })
    }
}

impl CommitsQuestion {
    fn failed(self, code: ErrorCode) -> CommitsAnswer {
        CommitsAnswer { asked: self.asked, found: Err(code) }
    }
}

/// Until nobody asks any more.
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
                tracing::warn!(%error, "no client to read the group's offsets");
                question.failed(ErrorCode::CRIT_SYS_RESOURCE)
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
        wake.wake();
    }
}
