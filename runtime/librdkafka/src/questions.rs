//! What is asked of the brokers before a client begins its work. They may be away: that is waited for, not an error.
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::{
    AdminBroker, Client, CredentialsError, Deadline, ErrorCode, EventKind, NewTopic, Queue, TopicDescription,
    admin_broker, create_topics, describe_topics,
};

/// After so long it is said that the brokers do not answer.
const QUIET: Duration = Duration::from_secs(3);
/// How long the first try may take. Any broker may be asked, and one that hangs must not hold up what another would answer;
/// each try after one that failed may take twice as long, up to the client's own limit.
const FIRST_TRY: Duration = Duration::from_secs(3);
/// The pause between two tries; it serves the client's events.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a signal waits until it is heard.
const STEP: Duration = Duration::from_millis(50);
/// How long a topic that was just created may be unknown.
const CREATED_LIMIT: Duration = Duration::from_secs(15);

/// A question that has no answer, or not yet; the waiting goes on unless the caller breaks.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// What does not work yet, for people; `None`: it only takes its time.
    pub reason: Option<String>,
}

/// Asks the caller whether to go on waiting.
pub type StartupRetry<'a> = &'a mut dyn FnMut(&Unanswered) -> ControlFlow<()>;

/// Why waiting is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PermanentStartupError {
    /// A topic name that can't be one.
    #[error("topic `{0}`: not a topic name")]
    TopicName(String),
    /// A group name that can't be one.
    #[error("group `{0}`: not a group name")]
    GroupName(String),
    /// Topics are missing.
    #[error("{}", missing(.topics, .purpose))]
    TopicsMissing {
        /// Which; one at least.
        topics: Vec<String>,
        /// What they are for.
        purpose: &'static str,
    },
    /// A topic could not be created.
    #[error("{0}")]
    TopicNotCreated(String),
    /// A topic may not be used.
    #[error("{purpose} `{topic}` can't be used: {code}; grant this user {rights} on it")]
    TopicDenied {
        /// Which.
        topic: String,
        /// What it is for.
        purpose: &'static str,
        /// What the broker says.
        code: ErrorCode,
        /// What is missing.
        rights: &'static str,
    },
    /// The brokers refuse who we are.
    #[error("authentication failed: {0}; check `sasl.*` and `security.protocol` under [kafka.client]")]
    Authentication(String),
    /// The secret of a file can't be used any more.
    #[error("authentication failed: {0}")]
    Credentials(CredentialsError),
    /// We do not trust who they say they are.
    #[error(
        "the brokers' certificate is not trusted: {0}; check `ssl.ca.location` under [kafka.client] and the host names \
         in `bootstrap_servers`"
    )]
    Certificate(String),
    /// No thread could be had.
    #[error("no thread to ask the brokers: {0}")]
    System(#[from] std::io::Error),
    /// The caller did not want to wait longer.
    #[error("stopped while waiting for the brokers")]
    Stopped,
}

/// What topics are for, in messages.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// What they are.
    pub name: &'static str,
    /// What a user needs on them.
    pub rights: &'static str,
}

/// How many partitions a topic is created with; `None`: as many as the brokers are configured for.
pub type NewPartitions<'a> = &'a dyn Fn(&CStr) -> Option<i32>;

/// The questions of one client.
pub struct Questions<'a> {
    client: &'a Arc<Client>,
    events: &'a Queue,
    /// How long the next try may take, and any.
    limits: (Duration, Duration),
    retry: StartupRetry<'a>,
}

impl<'a> Questions<'a> {
    /// `events`: the client's main queue, which is served meanwhile. `limit`: how long one answer may take.
    pub fn new(client: &'a Arc<Client>, events: &'a Queue, limit: Duration, retry: StartupRetry<'a>) -> Self {
        Questions { client, events, limits: (FIRST_TRY.min(limit), limit), retry }
    }

    /// A broker that answers.
    pub fn broker(&mut self) -> Result<AdminBroker, PermanentStartupError> {
        loop {
            match self.ask(admin_broker)? {
                Ok(broker) => return Ok(broker),
                Err(code) => self.wait(unanswered(code))?,
            }
        }
    }

    /// Asks something that waits for a broker, for as long as a try may take, and serves the client's events meanwhile. The
    /// question has a thread of its own: a signal, or a refusal of who we are, does not wait for an answer.
    pub fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&Arc<Client>, Duration) -> T + Send + 'static,
    ) -> Result<T, PermanentStartupError> {
        let (client, (limit, _)) = (Arc::clone(self.client), self.limits);
        let (answer, answered) = mpsc::sync_channel(1);
        let ask = move || {
            // Nobody hears it if the waiting was broken off.
            let _unheard = answer.send(question(&client, limit));
        };
        thread::Builder::new().name("keylane-question".to_owned()).spawn(ask)?;
        let quiet = Deadline::after(QUIET);
        loop {
            match answered.recv_timeout(STEP) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("a question that panics ends the process")
                }
                Err(RecvTimeoutError::Timeout) => {
                    let reason = self.serve(Duration::ZERO)?;
                    let reason =
                        reason.or_else(|| quiet.is_over().then(|| "the brokers do not answer".to_owned()));
                    self.go_on(reason)?;
                }
            }
        }
    }

    /// Waits until the brokers have described every topic, in the order of their names. What is missing is created if
    /// there are `partitions` to create it with.
    pub fn topics(
        &mut self,
        names: &[CString],
        purpose: Purpose,
        partitions: Option<NewPartitions<'_>>,
    ) -> Result<Vec<TopicDescription>, PermanentStartupError> {
        let mut created: Option<Deadline> = None;
        loop {
            let asked = names.to_vec();
            let found = self.ask(move |client, limit| {
                admin_broker(client, limit).and_then(|broker| describe_topics(client, &asked, broker, limit))
            })?;
            let reason = match found.map(|found| sort(names, &found)) {
                Err(code) => unanswered(code),
                Ok(Found::All(topics)) => return Ok(topics),
                Ok(Found::NotYet(reason)) => reason,
                Ok(Found::Wrong(topic, code)) => return Err(purpose.refuses(topic, code)),
                Ok(Found::Missing(missing)) => match (created, partitions) {
                    (None, Some(partitions)) => {
                        let new = |name: CString| NewTopic { partitions: partitions(&name), name };
                        let new: Vec<NewTopic> = missing.into_iter().map(new).collect();
                        self.ask(move |client, limit| create_topics(client, &new, limit))?
                            .map_err(PermanentStartupError::TopicNotCreated)?;
                        created = Some(Deadline::after(CREATED_LIMIT));
                        continue;
                    }
                    (Some(limit), _) if !limit.is_over() => "topics are being created".to_owned(),
                    _ => {
                        let topics = missing.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                        return Err(PermanentStartupError::TopicsMissing { topics, purpose: purpose.name });
                    }
                },
            };
            self.wait(reason)?;
        }
    }

    /// Serves the client's events for a while; some of them end the waiting.
    pub fn wait(&mut self, reason: String) -> Result<(), PermanentStartupError> {
        let (limit, most) = self.limits;
        self.limits.0 = (2 * limit).min(most);
        let heard = self.serve(PAUSE)?;
        self.go_on(Some(heard.unwrap_or(reason)))
    }

    /// Takes the client's events for so long. Gives the last error among them.
    fn serve(&mut self, limit: Duration) -> Result<Option<String>, PermanentStartupError> {
        let (limit, mut heard) = (Deadline::after(limit), None);
        loop {
            match self.events.poll(limit.remaining()) {
                Some(event) if event.kind() == EventKind::Error => {
                    let text = event.text();
                    match event.error() {
                        ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED => {
                            return Err(PermanentStartupError::Authentication(text));
                        }
                        ErrorCode::SSL if is_about_certificate(&text) => {
                            return Err(PermanentStartupError::Certificate(text));
                        }
                        _ => heard = Some(text),
                    }
                }
                Some(_) => {}
                None if limit.is_over() => return Ok(heard),
                None => {}
            }
        }
    }

    /// Asks the caller. Without a reason there is nothing to say yet.
    fn go_on(&mut self, reason: Option<String>) -> Result<(), PermanentStartupError> {
        match (self.retry)(&Unanswered { reason }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(PermanentStartupError::Stopped),
        }
    }
}

impl Purpose {
    fn refuses(self, topic: String, code: ErrorCode) -> PermanentStartupError {
        let Purpose { name: purpose, rights } = self;
        match code {
            ErrorCode::TOPIC_EXCEPTION => PermanentStartupError::TopicName(topic),
            code => PermanentStartupError::TopicDenied { topic, purpose, code, rights },
        }
    }
}

fn missing(topics: &[String], purpose: &str) -> String {
    match topics {
        [topic] => {
            format!(
                "{purpose} `{topic}` does not exist: create it, or set `create_topics = true` under [kafka]"
            )
        }
        topics => {
            let names = topics.iter().map(|topic| format!("`{topic}`")).collect::<Vec<_>>().join(", ");
            format!(
                "the topics {names} do not exist: create them, or set `create_topics = true` under [kafka]"
            )
        }
    }
}

/// Whether OpenSSL refuses the brokers' certificate. The code is that of any failed handshake, which may pass.
fn is_about_certificate(text: &str) -> bool {
    text.contains("certificate verify failed")
}

fn unanswered(code: ErrorCode) -> String {
    format!("the brokers do not answer: {code}")
}

/// What an answer comes to.
enum Found {
    All(Vec<TopicDescription>),
    Missing(Vec<CString>),
    /// This one will not do, however often it is asked for.
    Wrong(String, ErrorCode),
    NotYet(String),
}

fn sort(names: &[CString], found: &[TopicDescription]) -> Found {
    let mut all = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for name in names {
        let text = || name.to_string_lossy().into_owned();
        let Some(topic) = found.iter().find(|topic| topic.name == *name) else {
            return Found::NotYet(format!("topic `{}` is not described", text()));
        };
        match topic.error {
            ErrorCode::NONE if topic.partitions > 0 => all.push(topic.clone()),
            ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC => missing.push(name.clone()),
            code @ (ErrorCode::TOPIC_EXCEPTION | ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
                return Found::Wrong(text(), code);
            }
            code => return Found::NotYet(format!("topic `{}`: {code}", text())),
        }
    }
    if missing.is_empty() { Found::All(all) } else { Found::Missing(missing) }
}
