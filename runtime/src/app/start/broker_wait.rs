//! Waiting for brokers before anything is begun: until a signal says otherwise, and not in silence.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use crate::config::{Cluster, KafkaConfig};
use crate::librdkafka::Deadline;

use super::addresses;

/// How often the same reason to wait for the brokers is repeated.
const REPEAT: Duration = Duration::from_secs(10);
/// After a line about the waiting there is none for so long, whatever the reason: a client's reasons alternate.
const QUIET: Duration = Duration::from_secs(2);
/// How long a line waits for a look at the addresses.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Brokers that are away are waited for.
pub(in crate::app) struct BrokerWait {
    stop: Arc<AtomicBool>,
    /// What is looked at: the addresses, and whether the client speaks TLS. Not with the embedded broker.
    servers: Option<(String, bool)>,
    check: Option<AddressCheck>,
    /// What was found at them last, and until when that stands.
    found: Option<String>,
    stands: Deadline,
    /// What was said last, until when nothing is said, and until when that need not be said again.
    said: String,
    quiet: Deadline,
    repeat: Deadline,
}

/// A look at the addresses that is under way.
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
            stands: over,
            said: String::new(),
            quiet: over,
            repeat: over,
        }
    }

    /// Is asked again and again, with what the client says.
    pub(in crate::app) fn should_retry(&mut self, reason: Option<&str>) -> ControlFlow<()> {
        if self.stop.load(Ordering::Acquire) {
            return ControlFlow::Break(());
        }
        if let Some(reason) = reason
            && self.quiet.is_over()
            && self.addresses_checked()
        {
            let reason = self.found.clone().unwrap_or_else(|| reason.to_owned());
            self.log(&reason);
        }
        ControlFlow::Continue(())
    }

    fn log(&mut self, reason: &str) {
        self.quiet = Deadline::after(QUIET);
        if self.said != reason || self.repeat.is_over() {
            tracing::warn!(reason, "waiting for the brokers");
            reason.clone_into(&mut self.said);
            self.repeat = Deadline::after(REPEAT);
        }
    }

    /// Looks at the addresses now and then. False: that takes its time, and the line should wait for it.
    fn addresses_checked(&mut self) -> bool {
        let Some((servers, is_tls)) = self.servers.clone().filter(|_| self.stands.is_over()) else {
            return true;
        };
        let Some(check) = &self.check else {
            let (tell, found) = mpsc::sync_channel(1);
            let check = move || {
                // Nobody listens if the waiting is over.
                let _unheard = tell.send(addresses::check(&servers, is_tls));
            };
            // On a thread of its own: names may take long, and a signal must not wait for them.
            if thread::Builder::new().name("keylane-addresses".to_owned()).spawn(check).is_err() {
                return true;
            }
            self.check = Some(AddressCheck { found, limit: Deadline::after(LOOK_MAX) });
            return false;
        };
        let found = match check.found.try_recv() {
            Err(TryRecvError::Empty) => return check.limit.is_over(),
            Err(TryRecvError::Disconnected) => None,
            Ok(found) => found,
        };
        (self.check, self.found, self.stands) = (None, found, Deadline::after(REPEAT));
        true
    }
}
