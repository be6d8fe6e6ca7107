//! Requests to the brokers before a client begins its work. They wait for unavailable brokers instead of failing.
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

/// Time after which an unanswered request is reported.
const REPORT_AFTER: Duration = Duration::from_secs(3);
/// Timeout of the first attempt. The library may choose a broker that hangs, and the next attempt may reach another
/// one. Each attempt after a failed one may take twice as long, up to the client's own limit.
const FIRST_TRY: Duration = Duration::from_secs(3);
/// The pause between two attempts, in which the client's events are served.
const PAUSE: Duration = Duration::from_millis(250);
/// Interval at which a wait for a response checks whether to stop, for example because of a signal.
const STEP: Duration = Duration::from_millis(50);
/// How long a newly created topic may be unknown.
const CREATED_TIMEOUT: Duration = Duration::from_secs(15);

/// A request without a response yet; waiting continues unless the caller breaks.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// The current error, for messages; `None` if the request only takes time.
    pub reason: Option<String>,
}

/// The function by which the caller decides whether to continue to wait.
pub type StartupRetry<'a> = &'a mut dyn FnMut(&Unanswered) -> ControlFlow<()>;

/// Why waiting can't help.
#[derive(Debug, thiserror::Error)]
pub enum PermanentStartupError {
    /// An invalid topic name.
    #[error("topic `{0}`: not a topic name")]
    TopicName(String),
    /// An invalid group name.
    #[error("group `{0}`: not a group name")]
    GroupName(String),
    /// Topics are missing.
    #[error("{}", missing(.topics, .role))]
    TopicsMissing {
        /// The names; at least one.
        topics: Vec<String>,
        /// The use of the topics: [`TopicRole::name`].
        role: &'static str,
    },
    /// A topic could not be created.
    #[error("{0}")]
    TopicNotCreated(String),
    /// Access to a topic is denied.
    #[error("{role} `{topic}` can't be used: {code}; grant this user {rights} on it")]
    TopicDenied {
        /// The topic.
        topic: String,
        /// The use of the topic: [`TopicRole::name`].
        role: &'static str,
        /// The broker's error.
        code: ErrorCode,
        /// The missing rights.
        rights: &'static str,
    },
    /// The brokers reject our credentials.
    #[error("authentication failed: {0}; check `sasl.*` and `security.protocol` under [kafka.client]")]
    Authentication(String),
    /// The secret of a file can't be used any more.
    #[error("authentication failed: {0}")]
    Credentials(CredentialsError),
    /// The brokers' certificate is not trusted.
    #[error(
        "the brokers' certificate is not trusted: {0}; check `ssl.ca.location` under [kafka.client] and the host names \
         in `bootstrap_servers`"
    )]
    Certificate(String),
    /// A thread could not be started.
    #[error("can't start a thread for requests to the brokers: {0}")]
    System(#[from] std::io::Error),
    /// The caller stopped waiting.
    #[error("stopped while waiting for the brokers")]
    Stopped,
}

/// The use of topics, for messages.
#[derive(Clone, Copy, Debug)]
pub struct TopicRole {
    /// A noun for the topics.
    pub name: &'static str,
    /// The rights that a user needs on them.
    pub rights: &'static str,
}

/// The function that returns the number of partitions of a new topic; `None`: the brokers' default.
pub type NewPartitions<'a> = &'a dyn Fn(&CStr) -> Option<i32>;

/// The startup requests of one client.
pub struct StartupRequests<'a> {
    client: &'a Arc<Client>,
    events: &'a Queue,
    /// The timeout of the next attempt, and its maximum.
    timeouts: (Duration, Duration),
    retry: StartupRetry<'a>,
}

impl<'a> StartupRequests<'a> {
    /// Prepares requests of this client. `events`: its main queue, which is served while waiting. `timeout`: the maximum
    /// timeout of one response.
    pub fn new(
        client: &'a Arc<Client>,
        events: &'a Queue,
        timeout: Duration,
        retry: StartupRetry<'a>,
    ) -> Self {
        StartupRequests { client, events, timeouts: (FIRST_TRY.min(timeout), timeout), retry }
    }

    /// Waits until a broker responds, and returns the broker for admin requests.
    pub fn broker(&mut self) -> Result<AdminBroker, PermanentStartupError> {
        loop {
            match self.run(admin_broker)? {
                Ok(broker) => return Ok(broker),
                Err(code) => self.wait(unanswered(code))?,
            }
        }
    }

    /// Runs a request that waits for a broker, with the current timeout, and serves the client's events meanwhile. The
    /// request has its own thread, so a signal or an authentication failure ends the wait without a response.
    pub fn run<T: Send + 'static>(
        &mut self,
        request: impl FnOnce(&Arc<Client>, Duration) -> T + Send + 'static,
    ) -> Result<T, PermanentStartupError> {
        let (client, (timeout, _)) = (Arc::clone(self.client), self.timeouts);
        let (response, received) = mpsc::sync_channel(1);
        let run = move || {
            // The receiver is dropped if the wait was stopped.
            let _dropped = response.send(request(&client, timeout));
        };
        thread::Builder::new().name("keylane-request".to_owned()).spawn(run)?;
        let report = Deadline::after(REPORT_AFTER);
        loop {
            match received.recv_timeout(STEP) {
                Ok(response) => return Ok(response),
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("a request that panics ends the process")
                }
                Err(RecvTimeoutError::Timeout) => {
                    let reason = self.serve(Duration::ZERO)?;
                    let reason =
                        reason.or_else(|| report.is_over().then(|| "the brokers do not answer".to_owned()));
                    self.retry_or_stop(reason)?;
                }
            }
        }
    }

    /// Waits until the brokers have described every topic, in the order of `names`. Missing topics are created if
    /// `partitions` is set.
    pub fn topics(
        &mut self,
        names: &[CString],
        role: TopicRole,
        partitions: Option<NewPartitions<'_>>,
    ) -> Result<Vec<TopicDescription>, PermanentStartupError> {
        let mut created: Option<Deadline> = None;
        loop {
            let requested = names.to_vec();
            let found = self.run(move |client, timeout| {
                admin_broker(client, timeout)
                    .and_then(|broker| describe_topics(client, &requested, broker, timeout))
            })?;
            let reason = match found.map(|found| classify(names, &found)) {
                Err(code) => unanswered(code),
                Ok(Found::All(topics)) => return Ok(topics),
                Ok(Found::NotYet(reason)) => reason,
                Ok(Found::Wrong(topic, code)) => return Err(role.error(topic, code)),
                Ok(Found::Missing(missing)) => match (created, partitions) {
                    (None, Some(partitions)) => {
                        let new = |name: CString| NewTopic { partitions: partitions(&name), name };
                        let new: Vec<NewTopic> = missing.into_iter().map(new).collect();
                        self.run(move |client, timeout| create_topics(client, &new, timeout))?
                            .map_err(PermanentStartupError::TopicNotCreated)?;
                        created = Some(Deadline::after(CREATED_TIMEOUT));
                        continue;
                    }
                    (Some(deadline), _) if !deadline.is_over() => "topics are being created".to_owned(),
                    _ => {
                        let topics = missing.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                        return Err(PermanentStartupError::TopicsMissing { topics, role: role.name });
                    }
                },
            };
            self.wait(reason)?;
        }
    }

    /// Pauses before the next attempt, whose timeout is twice as long. Serves the client's events meanwhile; an
    /// authentication failure among them is an error.
    pub fn wait(&mut self, reason: String) -> Result<(), PermanentStartupError> {
        let (timeout, max) = self.timeouts;
        self.timeouts.0 = (2 * timeout).min(max);
        let error = self.serve(PAUSE)?;
        self.retry_or_stop(Some(error.unwrap_or(reason)))
    }

    /// Serves the client's events for this time. Returns the last temporary error among them.
    fn serve(&mut self, timeout: Duration) -> Result<Option<String>, PermanentStartupError> {
        let (deadline, mut last_error) = (Deadline::after(timeout), None);
        loop {
            match self.events.poll(deadline.remaining()) {
                Some(event) if event.kind() == EventKind::Error => {
                    let text = event.text();
                    match event.error() {
                        ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED => {
                            return Err(PermanentStartupError::Authentication(text));
                        }
                        ErrorCode::SSL if is_about_certificate(&text) => {
                            return Err(PermanentStartupError::Certificate(text));
                        }
                        _ => last_error = Some(text),
                    }
                }
                Some(_) => {}
                None if deadline.is_over() => return Ok(last_error),
                None => {}
            }
        }
    }

    /// Lets the caller decide whether to continue. Without a reason there is nothing to report yet.
    fn retry_or_stop(&mut self, reason: Option<String>) -> Result<(), PermanentStartupError> {
        match (self.retry)(&Unanswered { reason }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(PermanentStartupError::Stopped),
        }
    }
}

impl TopicRole {
    fn error(self, topic: String, code: ErrorCode) -> PermanentStartupError {
        let TopicRole { name, rights } = self;
        match code {
            ErrorCode::TOPIC_EXCEPTION => PermanentStartupError::TopicName(topic),
            code => PermanentStartupError::TopicDenied { topic, role: name, code, rights },
        }
    }
}

fn missing(topics: &[String], role: &str) -> String {
    match topics {
        [topic] => {
            format!("{role} `{topic}` does not exist: create it, or set `create_topics = true` under [kafka]")
        }
        topics => {
            let names = topics.iter().map(|topic| format!("`{topic}`")).collect::<Vec<_>>().join(", ");
            format!(
                "the topics {names} do not exist: create them, or set `create_topics = true` under [kafka]"
            )
        }
    }
}

/// Returns whether OpenSSL rejects the brokers' certificate. Only the text shows it: the error code is that of any
/// failed handshake, which may be temporary.
fn is_about_certificate(text: &str) -> bool {
    text.contains("certificate verify failed")
}

fn unanswered(code: ErrorCode) -> String {
    format!("the brokers do not answer: {code}")
}

/// The result of describing topics.
enum Found {
    All(Vec<TopicDescription>),
    Missing(Vec<CString>),
    /// A permanent error of this topic.
    Wrong(String, ErrorCode),
    NotYet(String),
}

fn classify(names: &[CString], found: &[TopicDescription]) -> Found {
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
