//! What a command needs to reach the admin server of a running process: only `[admin]` is read, because variables of
//! other tables may be unset here.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::admin_token::AdminToken;
use super::checked::AdminListen;
use super::document::Document;
use super::error::Error;
use super::problem::{ProblemReport, Problems};
use super::{Environment, environment, rules, written};

/// How to reach an admin server.
#[derive(Clone, Debug, Default)]
pub struct AdminEndpoint {
    /// Its address, `host:port`; `None`: it listens on one of the default ports.
    pub address: Option<String>,
    /// Its token.
    pub token: Option<AdminToken>,
}

/// Reads `[admin]` of a configuration file. `is_default`: no file was named, so that it may be missing.
///
/// # Errors
///
/// The file can't be read, or its `[admin]` is invalid.
pub fn load_admin(path: &Path, is_default: bool) -> Result<AdminEndpoint, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(read(&text, &environment(path))?),
        Err(error) if is_default && error.kind() == io::ErrorKind::NotFound => Ok(AdminEndpoint::default()),
        Err(source) => Err(Error::Unreadable { path: path.to_path_buf(), source }),
    }
}

fn read(text: &str, environment: &Environment<'_>) -> Result<AdminEndpoint, ProblemReport> {
    let mut report = ProblemReport::new(environment.file, text);
    let mut document = Document::parse(text, &mut report)?;
    document.keep_only("admin");
    document.interpolate(environment.variable, &mut report)?;
    let written: written::OnlyAdmin = document.deserialize(&mut report)?;
    let mut problems = Problems::new(&document, &mut report);
    let admin = rules::admin(&written.admin, environment, &mut problems);
    let address = match admin.listen {
        None => None,
        Some(AdminListen::At(address)) if !is_any_port(&address) => Some(reachable(&address)),
        Some(AdminListen::At(_)) => {
            problems
                .add(&["admin", "listen"], "the process listens on any free port")
                .remedy("pass `--admin URL` with the address that its log names");
            None
        }
        Some(AdminListen::Off) => {
            problems
                .add(&["admin", "listen"], "the admin server is off")
                .remedy("pass `--admin URL` if the process was started with `--admin-listen`");
            None
        }
    };
    report.into_result(AdminEndpoint { address, token: admin.token })
}

fn is_any_port(address: &str) -> bool {
    address.ends_with(":0")
}

/// Returns the address to connect to: that of this machine if the server listens on all of its addresses.
fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(all) if all.ip().is_unspecified() => format!("localhost:{}", all.port()),
        Ok(_) | Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    fn access(text: &str) -> Result<AdminEndpoint, String> {
        let environment = Environment {
            file: Path::new("etc/keylane.toml"),
            variable: &|_| None,
            is_file_or_pipe: &|_| true,
            cores: NonZero::<usize>::MIN,
        };
        read(text, &environment).map_err(|report| report.to_string())
    }

    #[test]
    fn only_the_table_of_the_server_is_read() {
        let text = "[admin]\nlisten = \"10.0.0.1:80\"\ntoken_file = \"token\"\n[kafka]\nx = \"${UNSET}\"\n[y]\nz = 1";
        let access = access(text).expect("the rest does not matter");
        assert_eq!(access.address.as_deref(), Some("10.0.0.1:80"));
        assert_eq!(access.token, Some(AdminToken::File("etc/token".into())));
    }

    #[test]
    fn without_an_address_it_is_the_default() {
        assert_eq!(access("[kafka]").expect("no address is valid").address, None);
        let all = access("[admin]\nlisten = \"0.0.0.0:9277\"").expect("the address is valid");
        assert_eq!(all.address.as_deref(), Some("localhost:9277"));
    }

    #[test]
    fn an_address_that_is_not_known_here_is_an_error_with_a_remedy() {
        for (listen, expected) in
            [("off", "is off"), ("127.0.0.1:0", "any free port"), ("9277", "not an address")]
        {
            let error = access(&format!("[admin]\nlisten = \"{listen}\"")).map(|_| ()).expect_err(listen);
            assert!(error.contains(expected) && error.contains("hint: "), "{error}");
        }
    }
}
