//! Detects credentials that stop working while the handlers run.
//!
//! A client reports a rejected authentication, but not a later success. Existing connections are not affected. A report
//! is therefore only a reason to probe: a separate connection with the properties of that client shows whether the
//! brokers accept the credentials now. While they reject them, the probe is repeated. If they reject them for
//! `kafka.auth_timeout`, the handlers drain and the process ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::Checked;
use crate::librdkafka::{Credentials, Probed, Properties, StartupError, probe};

use super::AppEvent;
use super::clock::Clock;
use super::start::{self, Access};

/// Interval of the probes, and of the checks of the file with the secret.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Capacity of the queue of reports. A report that finds the queue full is dropped: one is enough for a probe, and the
/// client reports its next failed connection.
const REPORTS_MAX: usize = 16;

/// A kind of client. The properties of consumers and producer may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientKind {
    Consumers,
    Producer,
}

enum WatchMessage {
    Rejected(ClientKind),
    Stop,
}

/// Sends reports of rejected authentications.
#[derive(Clone, Debug)]
pub(super) struct RejectionSender(SyncSender<WatchMessage>);

/// Receives reports of rejected authentications.
pub(super) struct RejectionReceiver(Receiver<WatchMessage>);

/// The thread that probes.
pub(super) struct CredentialsWatch {
    rejection_sender: RejectionSender,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

pub(super) fn channel() -> (RejectionSender, RejectionReceiver) {
    let (sender, receiver) = mpsc::sync_channel(REPORTS_MAX);
    (RejectionSender(sender), RejectionReceiver(receiver))
}

impl RejectionSender {
    /// Reports that the brokers reject the authentication of a client of this kind. Never blocks.
    pub(super) fn report(&self, kind: ClientKind) {
        let _already_queued = self.0.try_send(WatchMessage::Rejected(kind));
    }
}

impl CredentialsWatch {
    /// Watches the clients of external brokers.
    pub(super) fn start(
        config: &Checked,
        access: &Access,
        clock: Clock,
        (rejection_sender, rejection_receiver): (RejectionSender, RejectionReceiver),
        events: SyncSender<AppEvent>,
    ) -> std::io::Result<CredentialsWatch> {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |kind, properties| ProbedClient {
            kind,
            properties: start::client_properties(properties, access.clone()),
            state: AuthenticationState::Accepted,
        };
        let mut prober = Prober {
            clients: [
                client(ClientKind::Consumers, &config.kafka.consumer),
                client(ClientKind::Producer, &config.kafka.producer),
            ],
            credentials: access.credentials.clone(),
            last_read_error: String::new(),
            timeout: config.kafka.auth_timeout,
            clock,
            rejection_receiver: rejection_receiver.0,
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new().name("keylane-auth".to_owned()).spawn(move || {
            if let Some(failure) = prober.run() {
                // The receiver is gone only if the process is ending anyway.
                let _ended = events.send(AppEvent::CredentialsRejected(failure));
            }
        })?;
        Ok(CredentialsWatch { rejection_sender, stop, thread })
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // Not `try_send`: the message must not be dropped. The thread receives it soon, or has ended.
        let _ended_before = self.rejection_sender.0.send(WatchMessage::Stop);
        if let Err(panic) = self.thread.join() {
            tracing::error!(?panic, "the thread that watches credentials panicked");
        }
    }
}

struct Prober {
    clients: [ProbedClient; 2],
    credentials: Option<Arc<Credentials>>,
    /// The error of the last attempt to read the file with the secret.
    last_read_error: String,
    timeout: Duration,
    clock: Clock,
    rejection_receiver: Receiver<WatchMessage>,
    stop: Arc<AtomicBool>,
}

struct ProbedClient {
    kind: ClientKind,
    properties: Properties,
    state: AuthenticationState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthenticationState {
    Accepted,
    /// A client reported a rejection that no probe has confirmed.
    Reported,
    Rejected {
        /// The time of the last probe, and how long the brokers have rejected the client. Time without an answer does
        /// not count.
        probed_at: Duration,
        rejected_for: Duration,
    },
}

impl Prober {
    /// Runs until [`CredentialsWatch::stop`], or until the brokers have rejected a client for too long. Returns the
    /// failure text in the second case.
    fn run(&mut self) -> Option<String> {
        loop {
            self.wait()?;
            self.reread_secret();
            for client in &mut self.clients {
                let failure = client.probe(self.timeout, &self.clock, &|| self.stop.load(Ordering::Acquire));
                if failure.is_some() {
                    return failure;
                }
            }
        }
    }

    /// Reads the file with the secret, so that the next connection uses its current content.
    fn reread_secret(&mut self) {
        let Some(credentials) = &self.credentials else { return };
        match credentials.read_again(self.clock.now().wall_ms) {
            Ok(changed) => {
                if changed {
                    tracing::info!("the credentials have changed; new connections use them");
                }
                self.last_read_error.clear();
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.last_read_error {
                    tracing::warn!(error, "credentials can't be read; the previous credentials stay in use");
                    self.last_read_error = error;
                }
            }
        }
    }

    /// Waits until a probe or a read is due. `None`: the thread must end.
    fn wait(&mut self) -> Option<()> {
        let idle = self.clients.iter().all(|client| client.state == AuthenticationState::Accepted);
        let mut until =
            (!idle || self.credentials.is_some()).then(|| self.clock.now().uptime + PROBE_INTERVAL);
        loop {
            let message = match until {
                None => self.rejection_receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => {
                    self.rejection_receiver.recv_timeout(until.saturating_sub(self.clock.now().uptime))
                }
            };
            match message {
                Ok(WatchMessage::Rejected(kind)) => {
                    let reported = self.clients.iter_mut().find(|client| client.kind == kind);
                    if let Some(client) =
                        reported.filter(|client| client.state == AuthenticationState::Accepted)
                    {
                        client.state = AuthenticationState::Reported;
                        until = Some(Duration::ZERO);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Some(()),
                Ok(WatchMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

impl ProbedClient {
    /// Probes the client unless its authentication is accepted. Returns the failure text if the brokers have rejected
    /// for too long.
    fn probe(&mut self, timeout: Duration, clock: &Clock, stop: &dyn Fn() -> bool) -> Option<String> {
        if self.state == AuthenticationState::Accepted || stop() {
            return None;
        }
        let found = probe(&self.properties, stop).unwrap_or_else(|error| {
            tracing::debug!(%error, "can't create a client for the probe");
            Probed::Unknown
        });
        let client = self.kind.name();
        match found {
            Probed::Unknown => {
                if let AuthenticationState::Rejected { probed_at, .. } = &mut self.state {
                    *probed_at = clock.now().uptime;
                }
                None
            }
            Probed::Accepted => {
                if let AuthenticationState::Rejected { .. } = self.state {
                    tracing::info!(client, "authentication restored");
                }
                self.state = AuthenticationState::Accepted;
                None
            }
            Probed::Rejected(error) => self.rejected(&error, timeout, clock.now().uptime),
        }
    }

    fn rejected(&mut self, error: &StartupError, timeout: Duration, now: Duration) -> Option<String> {
        let client = self.kind.name();
        let rejected_for = match self.state {
            AuthenticationState::Rejected { probed_at, rejected_for } => {
                rejected_for + now.saturating_sub(probed_at)
            }
            AuthenticationState::Accepted | AuthenticationState::Reported => {
                tracing::error!(client, %error, auth_timeout = ?timeout, "authentication failed");
                Duration::ZERO
            }
        };
        self.state = AuthenticationState::Rejected { probed_at: now, rejected_for };
        (rejected_for >= timeout)
            .then(|| format!("{error} ({client}: the brokers have rejected the credentials for the whole `kafka.auth_timeout`, {timeout:?})"))
    }
}

impl ClientKind {
    fn name(self) -> &'static str {
        match self {
            ClientKind::Consumers => "consumers",
            ClientKind::Producer => "producer",
        }
    }
}
