//! From (name, value) pairs to a client.
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Display;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::client::{Client, log_callback};
use super::{Credentials, CredentialsError, code, sys};

/// Why a client could not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A property that the library does not take.
    #[error("client property `{name}`: {reason}")]
    Property {
        /// Its name.
        name: String,
        /// What the library says.
        reason: String,
    },
    /// The properties do not fit together.
    #[error("the Kafka client can't be created: {0}")]
    Client(String),
    /// The secret of a file can't be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Client properties, from three sides: a later side wins over an earlier one, whichever of its names a property is
/// given by. It is the library that knows which names are the same.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    defaults: Vec<(String, String)>,
    users: Vec<(String, String)>,
    ours: Vec<(String, String)>,
    credentials: Option<Arc<Credentials>>,
}

impl Properties {
    /// Those of the user.
    pub fn new(users: Vec<(String, String)>) -> Properties {
        Properties { users, ..Properties::default() }
    }

    /// Every client that is made of these has the secret of this file.
    #[must_use]
    pub fn with_credentials(self, credentials: Option<Arc<Credentials>>) -> Properties {
        Properties { credentials, ..self }
    }

    /// Adds one that the user may replace.
    pub fn default_value(&mut self, name: &str, value: impl Display) {
        self.defaults.push((name.to_owned(), value.to_string()));
    }

    /// Adds one that wins over what is there.
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.ours.push((name.to_owned(), value.to_string()));
    }

    /// How long an answer of a broker may take: `socket.timeout.ms`, a minute by default.
    pub fn answer_limit(&self) -> Duration {
        let millis = self.get("socket.timeout.ms").and_then(|value| value.trim().parse().ok());
        millis.map_or(Duration::from_mins(1), Duration::from_millis)
    }

    /// The value in force, if it was given by this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let last_first =
            self.ours.iter().rev().chain(self.users.iter().rev()).chain(self.defaults.iter().rev());
        last_first.into_iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn create(&self, kind: c_int, events: i32) -> Result<Arc<Client>, ConfigError> {
        let client = Arc::new(self.conf()?.create(kind, events)?);
        if let Some(credentials) = &self.credentials {
            credentials.enroll(&client, self.get("sasl.username").unwrap_or_default())?;
        }
        Ok(client)
    }

    fn conf(&self) -> Result<Conf, ConfigError> {
        let conf = Conf::new();
        for (name, value) in self.defaults.iter().chain(&self.users).chain(&self.ours) {
            conf.set(name, value)?;
        }
        if let Some((name, value)) = self.credentials.as_ref().and_then(|credentials| credentials.property())
        {
            conf.set(name, &value)?;
        }
        Ok(conf)
    }
}

/// A configuration object of the library that no client has taken yet.
struct Conf(*mut sys::Conf);

impl Conf {
    fn new() -> Conf {
        // SAFETY: takes nothing; the library aborts the process rather than return null.
        Conf(unsafe { sys::rd_kafka_conf_new() })
    }

    fn set(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        let refused = |reason: String| ConfigError::Property {
            name: name.to_owned(),
            reason: reason.trim_end().to_owned(),
        };
        let c_name = CString::new(name).map_err(|_| refused("the name contains a NUL byte".to_owned()))?;
        let c_value = CString::new(value).map_err(|_| refused("the value contains a NUL byte".to_owned()))?;
        let mut error = ErrorText::new();
        // SAFETY: the object is live until `self` is dropped or consumed; both strings and the buffer outlive
        // the call, and the library writes at most the given size.
        let result = unsafe {
            sys::rd_kafka_conf_set(
                self.0,
                c_name.as_ptr(),
                c_value.as_ptr(),
                error.pointer(),
                ErrorText::SIZE,
            )
        };
        if result == sys::CONF_UNKNOWN {
            let names = self.names();
            let meant = nearest(name, &names).map_or(String::new(), |meant| format!("; `{meant}` is meant?"));
            return Err(refused(format!("librdkafka has no such property{meant}")));
        }
        if result != sys::CONF_OK {
            return Err(refused(error.text()));
        }
        // The library reads "6s" as 6, whatever of.
        match self.get(&c_name) {
            Some(taken)
                if begins_as_number(value) && number(&taken).is_some() && number(&taken) != number(value) =>
            {
                Err(refused(format!("`{value}` would be taken as {taken} (the name says the unit)")))
            }
            _ => Ok(()),
        }
    }

    /// The value in force, as the library writes it; `None`: it does not tell.
    fn get(&self, name: &CStr) -> Option<String> {
        let mut value = vec![0_u8; VALUE_MAX];
        let mut size = value.len();
        // SAFETY: the object is live, the name ends with a NUL, and the library writes at most `size` bytes.
        let result = unsafe {
            sys::rd_kafka_conf_get(self.0, name.as_ptr(), value.as_mut_ptr().cast(), &raw mut size)
        };
        let text = CStr::from_bytes_until_nul(&value)
            .ok()
            .filter(|_| result == sys::CONF_OK && size <= VALUE_MAX)?;
        Some(text.to_string_lossy().into_owned())
    }

    /// Those of the properties that people set.
    fn names(&self) -> Vec<String> {
        let mut count = 0;
        // SAFETY: the object is live; the dump is an array of so many strings that end with a NUL or are null, names and
        // values in turn, and is ours until it is freed.
        unsafe {
            let dump = sys::rd_kafka_conf_dump(self.0, &raw mut count);
            let all = if count == 0 { &[][..] } else { std::slice::from_raw_parts(dump, count) };
            let names = all.iter().step_by(2).map(|name| code::text(*name));
            let names = names.chain(NOT_DUMPED.iter().map(|name| name.to_string_lossy().into_owned()));
            let names = names.collect();
            sys::rd_kafka_conf_dump_free(dump, count);
            names
        }
    }

    fn create(self, kind: c_int, events: i32) -> Result<Client, ConfigError> {
        let mut error = ErrorText::new();
        // SAFETY: the object is live; the callback has the type that the library asks for and touches nothing.
        unsafe {
            sys::rd_kafka_conf_set_events(self.0, events);
            sys::rd_kafka_conf_set_log_cb(self.0, log_callback);
        }
        // SAFETY: the object is live and, if this succeeds, belongs to the client from then on: `forget` below
        // keeps us from destroying it. The buffer outlives the call.
        let rk = unsafe { sys::rd_kafka_new(kind, self.0, error.pointer(), ErrorText::SIZE) };
        match NonNull::new(rk) {
            Some(rk) => {
                std::mem::forget(self);
                Ok(Client::from_raw(rk))
            }
            None => Err(ConfigError::Client(error.text())),
        }
    }
}

/// The property whose name is most like this one, if it is much like it.
fn nearest<'n>(name: &str, names: &'n [String]) -> Option<&'n str> {
    let alike = names.iter().map(|known| (strsim::jaro_winkler(name, known), known.as_str()));
    let (best, known) = alike.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best >= ALIKE).then_some(known)
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: no client has taken it, else it would have been forgotten.
        unsafe { sys::rd_kafka_conf_destroy(self.0) }
    }
}

/// The library does not list properties without a default, nor second names.
const NOT_DUMPED: &[&CStr] = &[
    c"client.rack",
    c"ssl.cipher.suites",
    c"ssl.curves.list",
    c"ssl.sigalgs.list",
    c"ssl.key.location",
    c"ssl.key.password",
    c"ssl.key.pem",
    c"ssl.certificate.location",
    c"ssl.certificate.pem",
    c"ssl.ca.location",
    c"ssl.ca.pem",
    c"ssl.crl.location",
    c"ssl.keystore.location",
    c"ssl.keystore.password",
    c"sasl.mechanism",
    c"sasl.kerberos.service.name",
    c"sasl.kerberos.principal",
    c"sasl.kerberos.kinit.cmd",
    c"sasl.kerberos.keytab",
    c"sasl.username",
    c"sasl.password",
    c"sasl.oauthbearer.config",
    c"bootstrap.servers",
    c"max.in.flight",
    c"max.partition.fetch.bytes",
    c"linger.ms",
    c"retries",
    c"compression.type",
    c"acks",
    c"delivery.timeout.ms",
];
/// Below, two names have little in common. (0 to 1, Jaro-Winkler.)
const ALIKE: f64 = 0.9;
/// Longer than any number.
const VALUE_MAX: usize = 64;

/// A number as the library reads it: whole, perhaps in hexadecimal digits, or with a fraction.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok().map(f64::from),
        None => text.parse().ok(),
    }
}

fn begins_as_number(text: &str) -> bool {
    text.trim_start().trim_start_matches(['-', '+']).starts_with(|first: char| first.is_ascii_digit())
}

/// Where the library writes what it has to say about a failure.
pub(super) struct ErrorText([c_char; ErrorText::SIZE]);

impl ErrorText {
    pub(super) const SIZE: usize = 512;

    pub(super) fn new() -> ErrorText {
        ErrorText([0; ErrorText::SIZE])
    }

    pub(super) fn pointer(&mut self) -> *mut c_char {
        self.0.as_mut_ptr()
    }

    pub(super) fn text(&self) -> String {
        // SAFETY: the buffer began as zeros and the library ends what it writes with a NUL.
        unsafe { code::text(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_property_is_named_with_the_one_that_is_meant() {
        for (name, expected) in [
            ("no.such.property", "client property `no.such.property`: librdkafka has no such property"),
            (
                "sesion.timeout.ms",
                "client property `sesion.timeout.ms`: librdkafka has no such property; `session.timeout.ms` is meant?",
            ),
            (
                "sasl.user",
                "client property `sasl.user`: librdkafka has no such property; `sasl.username` is meant?",
            ),
        ] {
            let mut properties = Properties::default();
            properties.set(name, "1");
            let error = properties.create(sys::TYPE_PRODUCER, 0).expect_err("it does not exist");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_names_that_are_listed_here_are_the_librarys() {
        let conf = Conf::new();
        for name in NOT_DUMPED {
            let name = name.to_str().expect("it is ASCII");
            let refused = conf.set(name, "").err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!refused.contains("no such property"), "{refused}");
        }
    }

    /// A build with HTTP could take these: `config` would have to take them, too.
    #[test]
    fn this_build_has_no_oidc() {
        let mut properties = Properties::default();
        properties.set("sasl.oauthbearer.token.endpoint.url", "https://example.com");
        let error = properties.conf().err().expect("the client has no HTTP").to_string();
        assert!(error.contains("not available at build time"), "{error}");
    }

    fn in_force(properties: &Properties, name: &CStr) -> Option<String> {
        properties.conf().expect("the properties are in order").get(name)
    }

    #[test]
    fn ours_win_over_the_users_and_those_over_defaults_by_any_name() {
        let users = [("max.partition.fetch.bytes", "5000"), ("linger.ms", "77"), ("retries", "1")];
        let users = users.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut properties = Properties::new(users.to_vec());
        properties.default_value("fetch.message.max.bytes", 1 << 20);
        properties.default_value("queue.buffering.max.ms", 5);
        properties.set("message.send.max.retries", 9);
        assert_eq!(in_force(&properties, c"fetch.message.max.bytes").as_deref(), Some("5000"));
        assert_eq!(in_force(&properties, c"queue.buffering.max.ms").as_deref(), Some("77"));
        assert_eq!(in_force(&properties, c"retries").as_deref(), Some("9"));
        properties.set("linger.ms", 1);
        assert_eq!(properties.get("linger.ms"), Some("1"));
    }

    #[test]
    fn a_number_with_a_unit_is_refused() {
        for (name, value) in [("session.timeout.ms", "6s"), ("fetch.max.bytes", "1MiB"), ("retries", "1.5")] {
            let mut properties = Properties::default();
            properties.set(name, value);
            let error = properties.conf().err().expect(value).to_string();
            assert!(error.contains(name) && error.contains("would be taken as"), "{error}");
        }
        let mut properties = Properties::default();
        for (name, value) in [
            ("session.timeout.ms", " 6000"),
            ("client.id", "7th"),
            ("linger.ms", "5.0"),
            ("enable.idempotence", "1"),
            ("retries", "0x1"),
        ] {
            properties.set(name, value);
        }
        assert_eq!(properties.conf().err().map(|error| error.to_string()), None);
    }
}
