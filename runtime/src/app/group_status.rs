//! The groups of the handlers, requested from the brokers: `keylane status --group`.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::config::{Checked, HandlerConfig};
use crate::librdkafka::{Deadline, StartupError};
use crate::source::{self, GroupInspector};
use crate::status::GroupStatus;

use super::start::{Access, addresses, credentials, source_spec};

/// Time limit of all requests.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of the first response. The rest of the time is enough to find out why there is none.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(5);

/// Describes the groups of these handlers, in their order, or returns why a group can't be described. `servers`: the
/// brokers of the configuration.
///
/// # Errors
/// No broker responds, or the brokers or the client reject the settings of the connection.
pub fn group_statuses(
    config: &Checked,
    servers: &str,
    handlers: &[&HandlerConfig],
) -> anyhow::Result<Vec<anyhow::Result<GroupStatus>>> {
    let deadline = Deadline::after(TIMEOUT);
    let access = Access {
        servers: Some(servers.to_owned()),
        credentials: credentials(config)?,
        client_id: Some("keylane/status".into()),
    };
    let specs: Vec<_> =
        handlers.iter().map(|handler| source_spec(config, handler, access.clone(), false)).collect();
    let Some(first) = specs.first() else { return Ok(Vec::new()) };
    let inspector = match GroupInspector::connect(first, Deadline::after(CONTACT_TIMEOUT), deadline) {
        Ok(inspector) => inspector,
        Err(source::Error::Startup(StartupError::Stopped)) => {
            return Err(no_broker(config, servers, deadline));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(specs
        .iter()
        .map(|spec| inspector.describe(spec).with_context(|| format!("handler `{}`", spec.handler)))
        .collect())
}

/// Returns the error if no broker responds, with the findings at their addresses.
pub(super) fn no_broker(config: &Checked, servers: &str, deadline: Deadline) -> anyhow::Error {
    let protocol = config.kafka.consumer.get("security.protocol").unwrap_or_default();
    let is_tls = protocol.to_ascii_uppercase().ends_with("SSL");
    let (sender, found) = mpsc::sync_channel(1);
    let named = servers.to_owned();
    let check = move || {
        // The receiver is gone if the check takes too long.
        let _receiver_gone = sender.send(addresses::check(&named, is_tls));
    };
    // On a thread of its own: name resolution has no time limit.
    let started = thread::Builder::new().name("keylane-addresses".to_owned()).spawn(check);
    let found = started.ok().and_then(|_| found.recv_timeout(deadline.remaining()).ok().flatten());
    let reason = found.unwrap_or_else(|| {
        "check `kafka.bootstrap_servers`, and `security.protocol` under [kafka.client]".to_owned()
    });
    anyhow!("no broker of {servers} responds: {reason}")
}
