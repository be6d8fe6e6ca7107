//! What of a run can be tried before it: everything that needs neither brokers nor handlers.

use crate::config::Checked;

use super::specs::{self, Access};

/// Why the engine or the Kafka clients refuse what the configuration asks for, a line each; empty: they do not.
#[must_use]
pub fn refusals(config: &Checked) -> Vec<String> {
    let engine = specs::engine(config).check().map_err(|error| error.to_string());
    let clients = match specs::credentials(config) {
        Ok(credentials) => clients(config, &Access { credentials, ..Access::default() }),
        Err(error) => vec![Err(error.to_string())],
    };
    let mut refusals: Vec<String> = clients.into_iter().chain([engine]).filter_map(Result::err).collect();
    refusals.sort_unstable();
    refusals.dedup(); // what is wrong under [kafka.client] is wrong for all of them
    refusals
}

/// What the clients say, without brokers.
fn clients(config: &Checked, access: &Access) -> Vec<Result<(), String>> {
    let producer = specs::sink(config, access.clone()).check();
    let consumers =
        config.handlers.iter().map(|handler| specs::source(config, handler, access.clone(), false).check());
    consumers.chain([producer]).map(|checked| checked.map_err(|error| error.to_string())).collect()
}
