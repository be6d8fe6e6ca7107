//! Requests to the brokers before a client begins its work. They wait for unavailable brokers instead of failing.
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::{
    AdminBroker, Client, CredentialsError, Deadline, ErrorCode, EventKind, NewTopic, Queue, TopicConfigs,
    TopicDescription, admin_broker, create_topics, describe_topic_configs, describe_topics,
};

/// Time after which a request without a response is reported.
const REPORT_AFTER: Duration = Duration::from_secs(3);
/// Timeout of the first try. The library may choose a broker that hangs, and the next try may reach another one. The
/// timeout of each try is twice that of the previous one, up to the client's own limit.
const FIRST_TRY_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause between two tries, in which the client's events are polled.
const PAUSE: Duration = Duration::from_millis(250);
/// Interval at which a wait for a response checks whether to stop, for example because of a signal.
const STEP: Duration = Duration::from_millis(50);
/// The reason that is reported while no broker responds.
const NO_RESPONSE: &str = "the brokers do not respond";
/// How long a newly created topic may be unknown.
const CREATED_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests for the settings of topics are repeated.
const SETTINGS_RETRY_MAX: Duration = Duration::from_secs(10);

/// The state of a request without a response. Waiting continues unless the caller breaks.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The current error, for messages; `None` if the request only takes time.
    pub reason: Option<String>,
}

/// The function by which the caller decides whether to continue to wait.
pub type KeepWaiting<'a> = &'a mut dyn FnMut(&Waiting) -> ControlFlow<()>;

/// Why a startup request failed: an error that waiting does not resolve, or a stop by the caller.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// An invalid topic name.
    #[error("`{0}` is not a valid topic name")]
    TopicName(String),
    /// An invalid group name.
    #[error("`{0}` is not a valid group name")]
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
    /// The timeout of the next try, and its maximum.
    timeouts: (Duration, Duration),
    keep_waiting: KeepWaiting<'a>,
}

impl<'a> StartupRequests<'a> {
    /// Prepares requests of this client. `events`: its main queue, which is polled while waiting. `timeout`: the maximum
    /// timeout of one response.
    pub fn new(
        client: &'a Arc<Client>,
        events: &'a Queue,
        timeout: Duration,
        keep_waiting: KeepWaiting<'a>,
    ) -> Self {
        StartupRequests { client, events, timeouts: (FIRST_TRY_TIMEOUT.min(timeout), timeout), keep_waiting }
    }

    /// Waits until a broker responds, and returns the broker for admin requests.
    pub fn broker(&mut self) -> Result<AdminBroker, StartupError> {
        loop {
            match self.run(admin_broker)? {
                Ok(broker) => return Ok(broker),
                Err(code) => self.wait(no_response(code))?,
            }
        }
    }

    /// Runs a request that waits for a broker, with the current timeout, and polls the client's events meanwhile. The
    /// request has its own thread, so a signal or an authentication failure ends the wait without a response.
    pub fn run<T: Send + 'static>(
        &mut self,
        request: impl FnOnce(&Arc<Client>, Duration) -> T + Send + 'static,
    ) -> Result<T, StartupError> {
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
                    let reason = self.poll_events(Duration::ZERO)?;
                    let reason = reason.or_else(|| report.is_over().then(|| NO_RESPONSE.to_owned()));
                    self.continue_or_stop(reason)?;
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
    ) -> Result<Vec<TopicDescription>, StartupError> {
        self.described(names, role, partitions, None)
    }

    /// The same for topics that were just created: brokers may not know them yet.
    pub fn new_topics(
        &mut self,
        names: &[CString],
        role: TopicRole,
    ) -> Result<Vec<TopicDescription>, StartupError> {
        self.described(names, role, None, Some(Deadline::after(CREATED_TIMEOUT)))
    }

    /// `created`: how long missing topics are waited for, if they have been created.
    fn described(
        &mut self,
        names: &[CString],
        role: TopicRole,
        partitions: Option<NewPartitions<'_>>,
        mut created: Option<Deadline>,
    ) -> Result<Vec<TopicDescription>, StartupError> {
        loop {
            let requested = names.to_vec();
            let found = self.run(move |client, timeout| {
                admin_broker(client, timeout)
                    .and_then(|broker| describe_topics(client, &requested, broker, timeout))
            })?;
            let reason = match found.map(|found| classify(names, &found)) {
                Err(code) => no_response(code),
                Ok(TopicsState::All(topics)) => return Ok(topics),
                Ok(TopicsState::Unknown(reason)) => reason,
                Ok(TopicsState::Failed(topic, code)) => return Err(role.error(topic, code)),
                Ok(TopicsState::Missing(missing)) => match (created, partitions) {
                    (None, Some(partitions)) => {
                        let new =
                            |name: CString| NewTopic { partitions: partitions(&name), name, configs: &[] };
                        let new: Vec<NewTopic> = missing.into_iter().map(new).collect();
                        self.run(move |client, timeout| create_topics(client, &new, timeout))?
                            .map_err(StartupError::TopicNotCreated)?;
                        created = Some(Deadline::after(CREATED_TIMEOUT));
                        continue;
                    }
                    (Some(deadline), _) if !deadline.is_over() => "topics are being created".to_owned(),
                    _ => {
                        let topics = missing.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                        return Err(StartupError::TopicsMissing { topics, role: role.name });
                    }
                },
            };
            self.wait(reason)?;
        }
    }

    /// Requests these settings of the topics, each named once. The result has their order. Requests that another try may
    /// cure are repeated for 10 s; what is unknown then has its error.
    pub fn topic_settings(
        &mut self,
        topics: &[CString],
        settings: &'static [&'static CStr],
    ) -> Result<Vec<TopicConfigs>, StartupError> {
        let deadline = Deadline::after(SETTINGS_RETRY_MAX);
        loop {
            let names = topics.to_vec();
            let described = self.run(move |client, timeout| {
                let timeout = timeout.min(SETTINGS_RETRY_MAX);
                admin_broker(client, timeout)
                    .and_then(|broker| describe_topic_configs(client, &names, settings, broker, timeout))
            })?;
            let values = |name: &CString| match &described {
                Err(code) => Err(*code),
                Ok(found) => found
                    .iter()
                    .find(|found| found.topic == *name)
                    .map_or(Err(ErrorCode::UNKNOWN_TOPIC), |found| found.values.clone()),
            };
            let found: Vec<TopicConfigs> = topics
                .iter()
                .map(|name| TopicConfigs { topic: name.clone(), values: values(name) })
                .collect();
            let mut failed = found.iter().filter_map(|topic| topic.values.as_ref().err().copied());
            match failed.find(|code| may_be_cured(*code)) {
                Some(code) if !deadline.is_over() => {
                    self.wait(format!("settings of topics can't be read: {code}"))?;
                }
                Some(_) | None => return Ok(found),
            }
        }
    }

    /// Pauses before the next try, whose timeout is twice as long. Polls the client's events meanwhile; an
    /// authentication failure among them is an error.
    pub fn wait(&mut self, reason: String) -> Result<(), StartupError> {
        let (timeout, max) = self.timeouts;
        self.timeouts.0 = (2 * timeout).min(max);
        let error = self.poll_events(PAUSE)?;
        self.continue_or_stop(Some(error.unwrap_or(reason)))
    }

    /// Polls the client's events for this time. Returns the last temporary error among them.
    fn poll_events(&mut self, timeout: Duration) -> Result<Option<String>, StartupError> {
        let (deadline, mut last_error) = (Deadline::after(timeout), None);
        loop {
            match self.events.poll(deadline.remaining()) {
                Some(event) if event.kind() == EventKind::Error => {
                    let text = event.text();
                    match event.error() {
                        ErrorCode::AUTHENTICATION | ErrorCode::SASL_AUTHENTICATION_FAILED => {
                            return Err(StartupError::Authentication(text));
                        }
                        ErrorCode::SSL if is_about_certificate(&text) => {
                            return Err(StartupError::Certificate(text));
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
    fn continue_or_stop(&mut self, reason: Option<String>) -> Result<(), StartupError> {
        match (self.keep_waiting)(&Waiting { reason }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(StartupError::Stopped),
        }
    }
}

impl TopicRole {
    fn error(self, topic: String, code: ErrorCode) -> StartupError {
        let TopicRole { name, rights } = self;
        match code {
            ErrorCode::TOPIC_EXCEPTION => StartupError::TopicName(topic),
            code => StartupError::TopicDenied { topic, role: name, code, rights },
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

/// Returns whether another try may succeed, for example because the topic was just created or a broker is briefly
/// unavailable.
fn may_be_cured(code: ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
            | ErrorCode::UNSUPPORTED_FEATURE
    )
}

fn no_response(code: ErrorCode) -> String {
    format!("{NO_RESPONSE}: {code}")
}

/// The state of topics, as the brokers describe it.
enum TopicsState {
    /// All topics exist.
    All(Vec<TopicDescription>),
    Missing(Vec<CString>),
    /// A permanent error of this topic.
    Failed(String, ErrorCode),
    /// The state of a topic is not known yet, for this reason.
    Unknown(String),
}

fn classify(names: &[CString], found: &[TopicDescription]) -> TopicsState {
    let mut all = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for name in names {
        let text = || name.to_string_lossy().into_owned();
        let Some(topic) = found.iter().find(|topic| topic.name == *name) else {
            return TopicsState::Unknown(format!("topic `{}` is not described", text()));
        };
        match topic.error {
            ErrorCode::NONE if topic.partitions > 0 => all.push(topic.clone()),
            ErrorCode::UNKNOWN_TOPIC_OR_PART | ErrorCode::UNKNOWN_TOPIC => missing.push(name.clone()),
            code @ (ErrorCode::TOPIC_EXCEPTION | ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
                return TopicsState::Failed(text(), code);
            }
            code => return TopicsState::Unknown(format!("topic `{}`: {code}", text())),
        }
    }
    if missing.is_empty() { TopicsState::All(all) } else { TopicsState::Missing(missing) }
}
