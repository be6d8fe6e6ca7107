//! The admin server of a run. It requests views of the event loops through their mailboxes.

mod backend;
mod client_statistics;
mod facts;
mod handler_entry;
mod lanes;
mod metrics;
mod process;
mod pulse;
mod view;

use std::sync::Arc;

use anyhow::Context as _;
use keylane_admin::{AccessRules, Listen, Server};

use crate::config::{AdminConfig, AdminListen, AdminToken, Checked, ClientProperties, HandlerConfig};
use crate::librdkafka::LatestStatistics;

use super::RunOptions;
use super::clock::Clock;
pub(in crate::app) use backend::AdminState;
pub(in crate::app) use facts::delivery;
pub(in crate::app) use pulse::Pulse;

use client_statistics::ClientStatistics;
use facts::{HandlerFacts, ProcessFacts};

/// The admin server, and the state that it serves. Dropping it ends the server.
pub(super) struct AdminServer {
    pub(super) state: Arc<AdminState>,
    server: Option<Server>,
}

impl AdminServer {
    /// Starts the server, unless it is off. The later steps of the start are visible through it.
    pub(super) fn start(config: &Checked, options: &RunOptions, clock: Clock) -> anyhow::Result<AdminServer> {
        let handlers = config.handlers.iter().map(HandlerFacts::of).collect();
        let partition_metrics = config.admin.partition_metrics;
        let state = Arc::new(AdminState::new(clock, ProcessFacts::of(config), handlers, partition_metrics));
        let listen = listen(&config.admin, options);
        let access = AccessRules {
            token: config.admin.token.as_ref().map(AdminToken::read).transpose()?,
            hosts: config.admin.hosts.clone(),
            protect_metrics: config.admin.protect_metrics,
        };
        let server = Server::start(&listen, access, state.clone()).context("the admin server can't start")?;
        if let Some(server) = &server {
            tracing::info!(address = %server.address(), "admin server started");
        }
        Ok(AdminServer { state, server })
    }

    /// Returns the receiver of the statistics of a handler's consumer; `None`: the server is off, so nobody would read them.
    pub(super) fn consumer_statistics(
        &self,
        config: &Checked,
        handler: &HandlerConfig,
    ) -> Option<Arc<LatestStatistics>> {
        let (latest, statistics) = self.statistics(&config.kafka.consumer)?;
        self.state.set_consumer_statistics(&handler.name, statistics);
        Some(latest)
    }

    /// Returns the receiver of the statistics of the producer.
    pub(super) fn producer_statistics(&self, config: &Checked) -> Option<Arc<LatestStatistics>> {
        let (latest, statistics) = self.statistics(&config.kafka.producer)?;
        self.state.set_producer_statistics(statistics);
        Some(latest)
    }

    fn statistics(&self, properties: &ClientProperties) -> Option<(Arc<LatestStatistics>, ClientStatistics)> {
        self.server.as_ref()?;
        let latest = Arc::<LatestStatistics>::default();
        Some((Arc::clone(&latest), ClientStatistics::new(latest, properties)))
    }

    /// Returns the default of `client.id`, which leads from the description of a group to the process: the machine, and
    /// the port of the admin server.
    pub(super) fn client_id(&self) -> String {
        let host = gethostname::gethostname();
        let port = self.server.as_ref().map_or("-".to_owned(), |server| server.address().port().to_string());
        format!("keylane/{}:{port}", host.to_string_lossy())
    }
}

/// Returns the address: of the command line, of the file, or the default, which a run that ends by itself does not use.
fn listen(config: &AdminConfig, options: &RunOptions) -> Listen {
    match (&options.admin_listen, &config.listen) {
        (Some(address), _) if address == "off" => Listen::Off,
        (Some(address), _) => Listen::At(address.clone()),
        (None, Some(AdminListen::Off)) => Listen::Off,
        (None, Some(AdminListen::At(address))) => Listen::At(address.clone()),
        (None, None) if options.until_end => Listen::Off,
        (None, None) => Listen::Default,
    }
}
