//! Whether the brokers accept a client's credentials now.
use std::ops::ControlFlow;
use std::time::Duration;

use super::{ConfigError, Deadline, PermanentStartupError, Producer, Properties, Questions};

/// How long one probe may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long an answer of a broker may take within it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What a probe found.
#[derive(Debug)]
pub enum Probed {
    /// A broker answered.
    Accepted,
    /// The brokers refuse the credentials, or their certificate is not trusted.
    Refused(PermanentStartupError),
    /// No broker answered in time, or the caller stopped the probe.
    Unknown,
}

/// Makes a connection with these properties and asks a broker for its cluster. A client that has connections says nothing
/// about new ones: only a connection of its own tells. `stop` is asked now and then.
pub fn probe(properties: &Properties, stop: &dyn Fn() -> bool) -> Result<Probed, ConfigError> {
    let mut properties = properties.clone();
    // The result is all that matters: the client that is in use has logged its own refusal.
    properties.set("log_level", 0);
    let asker = match Producer::new(&properties) {
        // A token that has ended: the brokers would refuse it.
        Err(ConfigError::Credentials(error)) => {
            return Ok(Probed::Refused(PermanentStartupError::Credentials(error)));
        }
        made => made?,
    };
    let (events, limit) = (asker.main_queue(), Deadline::after(LIMIT));
    let mut retry = |_: &_| match stop() || limit.is_over() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let found = Questions::new(asker.client(), &events, ANSWER_LIMIT, &mut retry).broker();
    Ok(match found {
        Ok(_) => Probed::Accepted,
        Err(refusal @ (PermanentStartupError::Authentication(_) | PermanentStartupError::Certificate(_))) => {
            Probed::Refused(refusal)
        }
        Err(_) => Probed::Unknown,
    })
}
