//! Rules that types can't express. Each rule adds its problem and continues, so that one pass finds all of them.

mod admin;
mod cluster;
mod credentials;
mod filter;
mod gate;
mod grants;
mod handler;
mod names;
pub(super) mod ranges;
mod retry;
mod state;
mod transactions;
mod warnings;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;

use super::Environment;
use super::checked::{Checked, RuntimeConfig, Seal};
use super::problem::Problems;
use super::written::{self, Written};
use crate::logging;
pub(super) use admin::admin;

/// Checks the configuration. The result is valid only if no problem was added.
pub(super) fn checked(
    written: &Written,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> Checked {
    let mut checked = Checked {
        sha256: String::new(),
        kafka: cluster::kafka(written, environment, problems),
        runtime: runtime(&written.runtime, environment, problems),
        admin: admin(&written.admin, environment, problems),
        log_filter: log_filter(&written.log, problems),
        handlers: Vec::new(),
        warnings: Vec::new(),
        seal: Seal,
    };
    for (name, handler) in &written.handlers {
        checked.handlers.push(handler::handler(name, handler, &checked.kafka, environment, problems));
    }
    if written.handlers.is_empty() {
        problems
            .add(&["handlers"], "no handler is configured")
            .remedy("add a section `[handlers.NAME]` with `component`, `topics` and `group_id`");
    }
    same_group_twice(written, problems);
    state::shared_changelogs(&checked, problems);
    warnings::add(&checked, problems);
    checked.warnings = problems.take_warnings();
    checked
}

fn log_filter(written: &written::Log, problems: &mut Problems<'_, '_>) -> Option<String> {
    if let Some(Err(error)) = written.filter.as_deref().map(logging::check_filter) {
        problems
            .add(&["log", "filter"], error.to_string())
            .remedy("write a level, or levels by module, such as `warn,keylane=debug`");
    }
    written.filter.clone()
}

fn runtime(
    written: &written::Runtime,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> RuntimeConfig {
    let workers = written
        .workers
        .map(|workers| ranges::whole(problems, &["runtime", "workers"], workers, ranges::WORKERS));
    RuntimeConfig {
        memory_budget: ranges::size(
            problems,
            &["runtime", "memory_budget"],
            written.memory_budget,
            ranges::MEMORY_BUDGET,
        ),
        workers: workers.and_then(NonZero::new).unwrap_or(environment.cores),
        cache_dir: cache_dir(written, environment),
        instance: written.instance.clone().inspect(|instance| {
            names::id(problems, &["runtime", "instance"], instance);
            if instance.contains('/') {
                problems
                    .add(&["runtime", "instance"], "`instance` contains `/`")
                    .remedy("use a name without `/`: it is a part of `transactional.id`");
            }
        }),
        drain_timeout: ranges::time(
            problems,
            &["runtime", "drain_timeout"],
            written.drain_timeout,
            ranges::DRAIN_TIMEOUT,
        ),
    }
}

/// Returns the configured directory, or `keylane/compiled` in the cache directory of the XDG specification.
fn cache_dir(written: &written::Runtime, environment: &Environment<'_>) -> Option<PathBuf> {
    let variable = |name| (environment.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    written.cache_dir.as_ref().map(|folder| environment.resolve(folder)).or_else(|| {
        let xdg = variable("XDG_CACHE_HOME").filter(|folder| folder.is_absolute());
        xdg.or_else(|| Some(variable("HOME")?.join(".cache"))).map(|folder| folder.join("keylane/compiled"))
    })
}

/// Reports handlers with the same group: they would split its partitions, and each would receive only a part of the
/// events.
fn same_group_twice(written: &Written, problems: &mut Problems<'_, '_>) {
    let mut owners = BTreeMap::new();
    for (name, handler) in &written.handlers {
        if let Some(first) = owners.insert(handler.group_id.as_str(), name) {
            let group = &handler.group_id;
            problems
                .add(
                    &["handlers", name, "group_id"],
                    format!("the group `{group}` is already used by the handler `{first}`"),
                )
                .remedy("give each handler its own group: the members of a group share its events");
        }
    }
}
