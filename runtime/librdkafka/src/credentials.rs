//! A secret from a file: every client gets it when it is created, and again when the file has changed.
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Client;
use super::token::{self, Token};

/// Maximum size of the file: a longer one is not a password or token.
const FILE_MAX: u64 = 64 << 10;

/// Why the secret of a file can't be used. Contains nothing of the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {secret} file {file} can't be used: {reason}")]
pub struct CredentialsError {
    secret: &'static str,
    file: String,
    reason: String,
}

/// The kind of secret in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// The password of PLAIN or SCRAM.
    Password,
    /// The token of OAUTHBEARER. A changed file is passed to the client before its own refresh, so the refresh request
    /// needs no answer.
    Token,
}

/// A secret from a file, and the clients that use it.
pub struct Credentials {
    kind: SecretKind,
    file: PathBuf,
    shared: Mutex<Shared>,
}

struct Shared {
    secret: String,
    clients: Vec<Holder>,
}

/// A client that uses the secret.
struct Holder {
    client: Weak<Client>,
    user: CString,
}

impl Credentials {
    /// Reads the file.
    pub fn from_file(kind: SecretKind, file: PathBuf) -> Result<Arc<Credentials>, CredentialsError> {
        let shared = Mutex::new(Shared { secret: String::new(), clients: Vec::new() });
        let credentials = Credentials { kind, file, shared };
        credentials.read_again(i64::MIN)?; // the first client checks whether a token has expired
        Ok(Arc::new(credentials))
    }

    /// Reads the file again and passes a changed secret to every client, which uses it for later connections. Returns
    /// whether the secret has changed. `now_ms`: milliseconds since 1970. An expired token is an error, whether it has
    /// changed or not.
    pub fn read_again(&self, now_ms: i64) -> Result<bool, CredentialsError> {
        let secret = read(&self.file).map_err(|reason| self.error(reason))?;
        if self.kind == SecretKind::Token && Token::new(&secret).is_ok_and(|token| token.expires_ms <= now_ms)
        {
            return Err(self.error(token::EXPIRED.to_owned()));
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if secret == shared.secret {
            return Ok(false);
        }
        shared.clients.retain(|holder| holder.client.strong_count() > 0);
        for holder in &shared.clients {
            if let Some(client) = holder.client.upgrade() {
                self.give(&client, &holder.user, &secret)?;
            }
        }
        shared.secret = secret;
        Ok(true)
    }

    /// Returns the property for the secret and its value; `None` for a token.
    pub(super) fn property(&self) -> Option<(&'static str, String)> {
        let secret = || self.shared.lock().unwrap_or_else(PoisonError::into_inner).secret.clone();
        (self.kind == SecretKind::Password).then(|| ("sasl.password", secret()))
    }

    /// Registers a client for new secrets, and gives it the current secret, which may be newer than the client.
    pub(super) fn enroll(&self, client: &Arc<Client>, user: &str) -> Result<(), CredentialsError> {
        let user = CString::new(user).map_err(|_| self.error("the user contains a NUL byte".to_owned()))?;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        self.give(client, &user, &shared.secret)?;
        shared.clients.push(Holder { client: Arc::downgrade(client), user });
        Ok(())
    }

    fn give(&self, client: &Client, user: &CString, secret: &str) -> Result<(), CredentialsError> {
        let given = match self.kind {
            SecretKind::Password => CString::new(secret)
                .map_err(|_| "it contains a NUL byte".to_owned())
                .and_then(|secret| client.set_password(user, &secret).map_err(|code| code.to_string())),
            SecretKind::Token => Token::new(secret).and_then(|token| client.set_token(&token)),
        };
        given.map_err(|reason| self.error(reason))
    }

    fn error(&self, reason: String) -> CredentialsError {
        let secret = match self.kind {
            SecretKind::Password => "password",
            SecretKind::Token => "token",
        };
        CredentialsError { secret, file: self.file.display().to_string(), reason }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Reads the content of the file, without line endings at its end.
fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let opened = File::open(file).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text));
    match opened {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("it is not UTF-8".to_owned()),
        Err(error) => Err(error.to_string()),
        Ok(_) if text.len() as u64 > FILE_MAX => Err(format!("it is larger than {FILE_MAX} bytes")),
        Ok(_) => {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Producer, Properties};
    use super::*;

    /// A temporary file, removed at the end of the test.
    struct TemporaryFile(PathBuf);

    impl TemporaryFile {
        fn new(name: &str, content: &[u8]) -> TemporaryFile {
            let file = std::env::temp_dir().join(format!("keylane-{}-{name}", std::process::id()));
            fs::write(&file, content).expect("a temporary file can be written");
            TemporaryFile(file)
        }
    }

    impl Drop for TemporaryFile {
        fn drop(&mut self) {
            let _gone = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_end_of_the_line_is_not_part_of_a_password() {
        for (name, content, expected) in [
            ("unix", "se cret\n", "se cret"),
            ("dos", "secret\r\n", "secret"),
            ("bare", " secret", " secret"),
        ] {
            let file = TemporaryFile::new(name, content.as_bytes());
            assert_eq!(read(&file.0).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn a_file_without_a_password_is_named() {
        for (name, content, expected) in [
            ("empty", b"\n".as_slice(), "it is empty"),
            ("binary", &[0xff, 0xfe], "it is not UTF-8"),
            ("large", &[b'a'; 70_000], "it is larger than 65536 bytes"),
        ] {
            let file = TemporaryFile::new(name, content);
            let error =
                Credentials::from_file(SecretKind::Password, file.0.clone()).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
        let missing = Credentials::from_file(SecretKind::Password, "/nowhere/password".into())
            .expect_err("the file does not exist");
        assert!(missing.to_string().contains("/nowhere/password"), "{missing}");
    }

    #[test]
    fn clients_get_a_new_password_and_it_is_never_printed() {
        let file = TemporaryFile::new("changing", b"first-canary\n");
        let credentials = Credentials::from_file(SecretKind::Password, file.0.clone())
            .expect("the file contains a password");
        let users = vec![("sasl.username".to_owned(), "alice".to_owned())];
        let properties = Properties::new(users).with_credentials(Some(Arc::clone(&credentials)));
        let producer = Producer::new(&properties).expect("the properties are valid");
        assert_eq!(credentials.read_again(0), Ok(false));
        fs::write(&file.0, "second-canary").expect("the file can be written");
        assert_eq!(credentials.read_again(0), Ok(true));
        assert_eq!(credentials.read_again(0), Ok(false));
        assert_eq!(credentials.property(), Some(("sasl.password", "second-canary".to_owned())));
        fs::write(&file.0, "third\0canary").expect("the file can be written");
        let error = credentials.read_again(0).expect_err("the client rejects it");
        let printed = format!("{error} {error:?} {properties:?} {credentials:?}");
        assert!(!printed.contains("canary"), "{printed}");
        drop(producer);
        assert_eq!(credentials.read_again(0), Ok(true), "the client that rejected it is dropped");
    }

    #[test]
    fn an_expired_token_is_rejected() {
        let sasl = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "OAUTHBEARER")];
        let sasl = sasl.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let file = TemporaryFile::new("token", b"an-opaque-canary\n");
        let credentials =
            Credentials::from_file(SecretKind::Token, file.0.clone()).expect("the file contains a token");
        let properties = Properties::new(sasl.to_vec()).with_credentials(Some(Arc::clone(&credentials)));
        let producer = Producer::new(&properties).expect("the expiry of an opaque token is unknown");
        // {"sub":"alice","exp":1700000000}
        fs::write(&file.0, "e30.eyJzdWIiOiJhbGljZSIsImV4cCI6MTcwMDAwMDAwMH0.")
            .expect("the file can be written");
        let error = credentials.read_again(0).expect_err("it has expired").to_string();
        assert!(error.contains("token file") && error.contains("it has expired"), "{error}");
        assert!(!error.contains("eyJ") && !error.contains("canary"), "{error}");
        let late = credentials.read_again(1_700_000_000_000).expect_err("it has expired").to_string();
        assert_eq!(late, error, "a repeated warning is logged once");
        drop(producer);
    }
}
