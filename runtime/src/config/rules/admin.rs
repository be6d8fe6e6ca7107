//! `[admin]`.

use keylane_admin::TOKEN_MIN;

use super::super::Environment;
use super::super::admin_token::AdminToken;
use super::super::checked::{AdminConfig, AdminListen};
use super::super::problem::Problems;
use super::super::written;

/// Checks the settings of the admin server.
pub(in crate::config) fn admin(
    written: &written::Admin,
    environment: &Environment<'_>,
    problems: &mut Problems<'_, '_>,
) -> AdminConfig {
    let listen = written.listen.as_deref().map(|listen| listen_at(listen, problems));
    if written.token.is_some() && written.token_file.is_some() {
        problems
            .add(&["admin", "token_file"], "`token` and `token_file` are both set")
            .remedy("keep one of them");
    }
    if written.token.as_ref().is_some_and(|token| token.len() < TOKEN_MIN) {
        problems
            .add(&["admin", "token"], format!("`admin.token` is shorter than {TOKEN_MIN} characters"))
            .remedy("create one with `openssl rand -hex 16`");
    }
    let has_token = written.token.is_some() || written.token_file.is_some();
    if written.protect_metrics && !has_token {
        problems
            .add(&["admin", "protect_metrics"], "`protect_metrics` needs a token, but none is set")
            .remedy("set `admin.token` or `admin.token_file`");
    }
    for (index, host) in written.hosts.iter().enumerate() {
        let is_name =
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !is_name {
            problems
                .add(&["admin", "hosts", &index.to_string()], format!("`{host}` is not a host name"))
                .remedy("write the name alone, without scheme and port");
        }
    }
    let in_file = || written.token_file.as_ref().map(|file| AdminToken::File(environment.resolve(file)));
    let token = written.token.clone().map(AdminToken::Value).or_else(in_file);
    AdminConfig {
        listen,
        token,
        hosts: written.hosts.clone(),
        protect_metrics: written.protect_metrics,
        partition_metrics: written.partition_metrics,
        show_keys: written.show_keys,
    }
}

/// Checks an address. Whether its host exists and its port is free is known only when the server starts.
fn listen_at(listen: &str, problems: &mut Problems<'_, '_>) -> AdminListen {
    if listen == "off" {
        return AdminListen::Off;
    }
    let port = listen.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        problems
            .add(&["admin", "listen"], format!("`{listen}` is not an address"))
            .remedy("write `host:port`, for example `127.0.0.1:9277`, or `off`");
    }
    AdminListen::At(listen.to_owned())
}
