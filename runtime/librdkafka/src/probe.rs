//! Checks whether the brokers accept a client's credentials now.
use std::ops::ControlFlow;
use std::time::Duration;

use super::{ClientError, Deadline, Producer, Properties, StartupError, StartupRequests};

/// Timeout of one probe.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a broker's response within a probe.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of a probe.
#[derive(Debug)]
pub enum Probed {
    /// A broker responded.
    Accepted,
    /// The brokers reject the credentials, or their certificate is not trusted.
    Rejected(StartupError),
    /// No broker responded in time, or the caller stopped the probe.
    Unknown,
}

/// Connects with these properties and requests the cluster's metadata from a broker. Existing connections are no
/// evidence for new ones, so the probe uses a client of its own. The probe ends early if `stop` returns true.
pub fn probe(properties: &Properties, stop: &dyn Fn() -> bool) -> Result<Probed, ClientError> {
    let mut properties = properties.clone();
    // The probe logs nothing: the client in use has already logged its authentication failure.
    properties.set("log_level", 0);
    let prober = match Producer::new(&properties) {
        // For example an expired token, which the brokers would reject.
        Err(ClientError::Credentials(error)) => {
            return Ok(Probed::Rejected(StartupError::Credentials(error)));
        }
        created => created?,
    };
    let (events, deadline) = (prober.main_queue(), Deadline::after(TIMEOUT));
    let mut keep_waiting = |_: &_| match stop() || deadline.is_over() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let found = StartupRequests::new(prober.client(), &events, RESPONSE_TIMEOUT, &mut keep_waiting).broker();
    Ok(match found {
        Ok(_) => Probed::Accepted,
        Err(error @ (StartupError::Authentication(_) | StartupError::Certificate(_))) => {
            Probed::Rejected(error)
        }
        Err(_) => Probed::Unknown,
    })
}
