//! Decides whether a start continues to wait for the brokers, and logs the reason. A signal ends the wait.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use crate::config::{Cluster, KafkaConfig};
use crate::librdkafka::Deadline;

use super::addresses;

/// Interval of log lines with the same reason.
const REPEAT: Duration = Duration::from_secs(10);
/// Minimum interval of log lines with different reasons: the reasons that a client reports alternate.
const QUIET: Duration = Duration::from_secs(2);
/// How long a log line waits for the check of the addresses.
const CHECK_MAX: Duration = Duration::from_secs(5);

/// The state of waiting for unavailable brokers.
pub(in crate::app) struct BrokerWait {
    stop: Arc<AtomicBool>,
    /// The addresses to check, and whether the client uses TLS. `None` with the embedded broker.
    servers: Option<(String, bool)>,
    check: Option<AddressCheck>,
    /// The last finding, and until when it is valid.
    found: Option<String>,
    found_valid: Deadline,
    /// The last logged reason, the end of the time without log lines, and the end of the time in which that reason is
    /// not repeated.
    logged: String,
    quiet: Deadline,
    repeat: Deadline,
}

/// A check of the addresses in progress.
struct AddressCheck {
    found: Receiver<Option<String>>,
    limit: Deadline,
}

impl BrokerWait {
    pub(in crate::app) fn new(kafka: &KafkaConfig, stop: Arc<AtomicBool>) -> BrokerWait {
        let protocol = kafka.consumer.get("security.protocol").unwrap_or_default();
        let servers = match &kafka.cluster {
            Cluster::Brokers(servers) => {
                Some((servers.clone(), protocol.to_ascii_uppercase().ends_with("SSL")))
            }
            Cluster::Embedded(_) => None,
        };
        let over = Deadline::after(Duration::ZERO);
        BrokerWait {
            stop,
            servers,
            check: None,
            found: None,
            found_valid: over,
            logged: String::new(),
            quiet: over,
            repeat: over,
        }
    }

    /// Returns whether to continue waiting. Called periodically with the reason that the client reports.
    pub(in crate::app) fn keep_waiting(&mut self, reason: Option<&str>) -> ControlFlow<()> {
        if self.stop.load(Ordering::Acquire) {
            return ControlFlow::Break(());
        }
        if let Some(reason) = reason
            && self.quiet.is_over()
            && self.poll_address_check()
        {
            let reason = self.found.clone().unwrap_or_else(|| reason.to_owned());
            self.log(&reason);
        }
        ControlFlow::Continue(())
    }

    fn log(&mut self, reason: &str) {
        self.quiet = Deadline::after(QUIET);
        if self.logged != reason || self.repeat.is_over() {
            tracing::warn!(reason, "waiting for the brokers");
            reason.clone_into(&mut self.logged);
            self.repeat = Deadline::after(REPEAT);
        }
    }

    /// Starts a check of the addresses, or polls it. Returns false while a check is in progress: the log line should
    /// wait for it.
    fn poll_address_check(&mut self) -> bool {
        let Some((servers, is_tls)) = self.servers.clone().filter(|_| self.found_valid.is_over()) else {
            return true;
        };
        let Some(check) = &self.check else {
            let (sender, found) = mpsc::sync_channel(1);
            let check = move || {
                // The receiver is gone if the wait is over.
                let _receiver_gone = sender.send(addresses::check(&servers, is_tls));
            };
            // On a thread of its own: name resolution may take long, and a signal must not wait for it.
            if thread::Builder::new().name("keylane-addresses".to_owned()).spawn(check).is_err() {
                return true;
            }
            self.check = Some(AddressCheck { found, limit: Deadline::after(CHECK_MAX) });
            return false;
        };
        let found = match check.found.try_recv() {
            Err(TryRecvError::Empty) => return check.limit.is_over(),
            Err(TryRecvError::Disconnected) => None,
            Ok(found) => found,
        };
        (self.check, self.found, self.found_valid) = (None, found, Deadline::after(REPEAT));
        true
    }
}
