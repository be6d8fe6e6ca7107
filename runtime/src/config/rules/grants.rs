//! `[handlers.NAME.grants]`.

use std::collections::BTreeSet;

use super::super::Environment;
use super::super::checked::{GrantedHost, GrantsConfig, Variable};
use super::super::problem::Problems;
use super::super::secret;
use super::super::written_handler as written;

/// Checks the grants of a handler. A granted variable that is not set is reported here, not in the first call.
pub(super) fn grants(
    handler: &str,
    grants: &written::Grants,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> GrantsConfig {
    GrantsConfig {
        env: each(handler, "env", &grants.env, problems, |name, path, problems| {
            variable(name, path, environment, problems)
        }),
        http: each(handler, "http", &grants.http, problems, host),
    }
}

/// Parses the entries of one list, each with its path in the file.
fn each<T>(
    handler: &str,
    list: &str,
    entries: &[String],
    problems: &mut Problems<'_, '_>,
    mut read: impl FnMut(&str, &[&str], &mut Problems<'_, '_>) -> Option<T>,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let index = index.to_string();
        let path = ["handlers", handler, "grants", list, &index];
        if !seen.insert(entry) {
            problems.add(&path, format!("`{entry}` is listed twice"));
        }
        found.extend(read(entry, &path, problems));
    }
    found
}

fn variable(
    name: &str,
    path: &[&str],
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> Option<Variable> {
    if name.is_empty() || name.contains(['=', '$', '{', '}']) {
        problems
            .add(path, format!("`{name}` is not the name of an environment variable"))
            .remedy("write only the name, without its value and without `${}`");
        return None;
    }
    let Some(value) = (environment.variable)(name) else {
        problems
            .add(path, format!("the environment variable `{name}` is not set"))
            .remedy("set it for this process, or remove it from `grants.env`");
        return None;
    };
    if secret::is_secret(name) {
        problems.mask(&value);
    }
    Some(Variable { name: name.to_owned(), value })
}

fn host(text: &str, path: &[&str], problems: &mut Problems<'_, '_>) -> Option<GrantedHost> {
    match GrantedHost::parse(text) {
        Ok(host) => Some(host),
        Err(remedy) => {
            problems.add(path, format!("`{text}` is not a valid host")).remedy(remedy);
            None
        }
    }
}
