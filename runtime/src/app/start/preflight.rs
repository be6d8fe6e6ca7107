//! The checks of `keylane check` that need neither brokers nor components.

use crate::config::Checked;

use super::options::{self, Access};

/// Returns the reasons why the engine or the Kafka clients refuse the configuration, one line each; empty: they accept
/// it.
#[must_use]
pub fn preflight_problems(config: &Checked) -> Vec<String> {
    let engine = options::engine_options(config).check().map_err(|error| error.to_string());
    let clients = match options::credentials(config) {
        Ok(credentials) => clients(config, &Access { credentials, ..Access::default() }),
        Err(error) => vec![Err(error.to_string())],
    };
    let mut problems: Vec<String> = clients.into_iter().chain([engine]).filter_map(Result::err).collect();
    problems.sort_unstable();
    problems.dedup(); // an error under [kafka.client] occurs in every client
    problems
}

/// Checks the properties of all clients, without brokers.
fn clients(config: &Checked, access: &Access) -> Vec<Result<(), String>> {
    let producer = options::sink_spec(config, access.clone()).check();
    let consumers = config
        .handlers
        .iter()
        .map(|handler| options::source_spec(config, handler, access.clone(), false).check());
    consumers.chain([producer]).map(|checked| checked.map_err(|error| error.to_string())).collect()
}
