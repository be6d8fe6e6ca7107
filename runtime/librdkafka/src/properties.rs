//! Client properties: (name, value) pairs from which clients are created.
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Display;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::client::{Client, log_callback};
use super::statistics::STATISTICS_INTERVAL;
use super::{Credentials, CredentialsError, code, sys};

/// Why a client could not be created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The library rejects a property.
    #[error("client property `{name}`: {reason}")]
    Property {
        /// The name.
        name: String,
        /// The library's message.
        reason: String,
    },
    /// The properties are inconsistent, or the system lacks a resource.
    #[error("the Kafka client can't be created: {0}")]
    NotCreated(String),
    /// The secret of a file can't be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Client properties from three sources: defaults, the user, and Keylane. A later source takes precedence over an
/// earlier one, even if it sets a property by another name. Only the library knows which names are synonyms.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    defaults: Vec<(String, String)>,
    from_user: Vec<(String, String)>,
    from_keylane: Vec<(String, String)>,
    credentials: Option<Arc<Credentials>>,
}

impl Properties {
    /// Creates properties from those that the user set.
    pub fn new(from_user: Vec<(String, String)>) -> Properties {
        Properties { from_user, ..Properties::default() }
    }

    /// Gives every client that is created from these properties the secret of this file.
    #[must_use]
    pub fn with_credentials(self, credentials: Option<Arc<Credentials>>) -> Properties {
        Properties { credentials, ..self }
    }

    /// Adds a default that the user may replace.
    pub fn set_default(&mut self, name: &str, value: impl Display) {
        self.defaults.push((name.to_owned(), value.to_string()));
    }

    /// Adds a value that takes precedence over all others.
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.from_keylane.push((name.to_owned(), value.to_string()));
    }

    /// Switches on the statistics of a client, unless the user has set their interval.
    pub fn enable_statistics(&mut self) {
        self.set_default("statistics.interval.ms", STATISTICS_INTERVAL.as_millis());
    }

    /// Returns the timeout of a broker's response: `socket.timeout.ms`, a minute by default.
    pub fn response_timeout(&self) -> Duration {
        let millis = self.get("socket.timeout.ms").and_then(|value| value.trim().parse().ok());
        millis.map_or(Duration::from_mins(1), Duration::from_millis)
    }

    /// Returns the value that was set by this name with the highest precedence.
    pub fn get(&self, name: &str) -> Option<&str> {
        let [defaults, from_user, from_keylane] =
            [&self.defaults, &self.from_user, &self.from_keylane].map(|source| source.iter().rev());
        from_keylane
            .chain(from_user)
            .chain(defaults)
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn create(&self, kind: c_int, events: i32) -> Result<Arc<Client>, ClientError> {
        let client = Arc::new(self.conf()?.create(kind, events)?);
        if let Some(credentials) = &self.credentials {
            credentials.enroll(&client, self.get("sasl.username").unwrap_or_default())?;
        }
        Ok(client)
    }

    fn conf(&self) -> Result<Conf, ClientError> {
        let conf = Conf::new();
        for (name, value) in self.defaults.iter().chain(&self.from_user).chain(&self.from_keylane) {
            conf.set(name, value)?;
        }
        if let Some((name, value)) = self.credentials.as_ref().and_then(|credentials| credentials.property())
        {
            conf.set(name, &value)?;
        }
        Ok(conf)
    }
}

/// A configuration object of the library that is not owned by a client yet.
struct Conf(*mut sys::Conf);

impl Conf {
    fn new() -> Conf {
        // SAFETY: the function has no arguments; the library aborts the process rather than return null.
        Conf(unsafe { sys::rd_kafka_conf_new() })
    }

    fn set(&self, name: &str, value: &str) -> Result<(), ClientError> {
        let rejected = |reason: String| ClientError::Property {
            name: name.to_owned(),
            reason: reason.trim_end().to_owned(),
        };
        let c_name = CString::new(name).map_err(|_| rejected("the name contains a NUL byte".to_owned()))?;
        let c_value =
            CString::new(value).map_err(|_| rejected("the value contains a NUL byte".to_owned()))?;
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
            let hint =
                nearest(name, &names).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Err(rejected(format!("librdkafka has no such property{hint}")));
        }
        if result != sys::CONF_OK {
            return Err(rejected(error.text()));
        }
        // The library parses "6s" as 6, whatever the unit.
        match self.get(&c_name) {
            Some(parsed)
                if begins_as_number(value)
                    && number(&parsed).is_some()
                    && number(&parsed) != number(value) =>
            {
                Err(rejected(format!("`{value}` would be read as {parsed} (the unit is part of the name)")))
            }
            _ => Ok(()),
        }
    }

    /// Returns the value in force, as the library formats it; `None` if the library does not return it or it is too
    /// long.
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

    /// Returns the names of the properties that users can set.
    fn names(&self) -> Vec<String> {
        let mut count = 0;
        // SAFETY: the object is live; the dump is an array of `count` strings that end with a NUL or are null, names
        // and values alternately, and is ours until it is freed.
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

    fn create(self, kind: c_int, events: i32) -> Result<Client, ClientError> {
        let mut error = ErrorText::new();
        // SAFETY: the object is live; the callback has the type that the library requires and modifies nothing.
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
            None => Err(ClientError::NotCreated(error.text())),
        }
    }
}

/// Returns the most similar name of a property, if it is similar enough.
fn nearest<'n>(name: &str, names: &'n [String]) -> Option<&'n str> {
    let alike = names.iter().map(|known| (strsim::jaro_winkler(name, known), known.as_str()));
    let (best, known) = alike.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best >= ALIKE).then_some(known)
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: it does not belong to a client, or it would have been forgotten.
        unsafe { sys::rd_kafka_conf_destroy(self.0) }
    }
}

/// Properties that the library does not list: those without a default, and synonyms.
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
/// Minimum similarity of a suggested name (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.9;
/// Maximum length of a value to compare: longer than any number.
const VALUE_MAX: usize = 64;

/// Parses a number as the library does: an integer, perhaps hexadecimal, or with a fraction.
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

/// A buffer for an error message of the library.
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
        // SAFETY: the buffer began as zeros and the library ends its message with a NUL.
        unsafe { code::text(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_property_is_reported_with_the_most_similar_name() {
        for (name, expected) in [
            ("no.such.property", "client property `no.such.property`: librdkafka has no such property"),
            (
                "sesion.timeout.ms",
                "client property `sesion.timeout.ms`: librdkafka has no such property; did you mean `session.timeout.ms`?",
            ),
            (
                "sasl.user",
                "client property `sasl.user`: librdkafka has no such property; did you mean `sasl.username`?",
            ),
        ] {
            let mut properties = Properties::default();
            properties.set(name, "1");
            let error = properties.create(sys::TYPE_PRODUCER, 0).expect_err("the property does not exist");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_properties_that_are_not_dumped_exist_in_the_library() {
        let conf = Conf::new();
        for name in NOT_DUMPED {
            let name = name.to_str().expect("the name is ASCII");
            let rejected = conf.set(name, "").err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!rejected.contains("no such property"), "{rejected}");
        }
    }

    /// A build with HTTP would accept these properties, and `config` would have to accept them, too.
    #[test]
    fn this_build_has_no_oidc() {
        let mut properties = Properties::default();
        properties.set("sasl.oauthbearer.token.endpoint.url", "https://example.com");
        let error = properties.conf().err().expect("the client has no HTTP").to_string();
        assert!(error.contains("not available at build time"), "{error}");
    }

    fn in_force(properties: &Properties, name: &CStr) -> Option<String> {
        properties.conf().expect("the properties are valid").get(name)
    }

    #[test]
    fn our_values_override_the_users_and_those_override_defaults_by_any_name() {
        let users = [("max.partition.fetch.bytes", "5000"), ("linger.ms", "77"), ("retries", "1")];
        let users = users.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut properties = Properties::new(users.to_vec());
        properties.set_default("fetch.message.max.bytes", 1 << 20);
        properties.set_default("queue.buffering.max.ms", 5);
        properties.set("message.send.max.retries", 9);
        assert_eq!(in_force(&properties, c"fetch.message.max.bytes").as_deref(), Some("5000"));
        assert_eq!(in_force(&properties, c"queue.buffering.max.ms").as_deref(), Some("77"));
        assert_eq!(in_force(&properties, c"retries").as_deref(), Some("9"));
        properties.set("linger.ms", 1);
        assert_eq!(properties.get("linger.ms"), Some("1"));
    }

    #[test]
    fn statistics_have_the_interval_that_the_user_has_set() {
        for (of_user, expected) in [(None, "5000"), (Some("0"), "0"), (Some("700"), "700")] {
            let of_user = of_user.map(|value| ("statistics.interval.ms".to_owned(), value.to_owned()));
            let mut properties = Properties::new(of_user.into_iter().collect());
            properties.enable_statistics();
            assert_eq!(in_force(&properties, c"statistics.interval.ms").as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_number_with_a_unit_is_rejected() {
        for (name, value) in [("session.timeout.ms", "6s"), ("fetch.max.bytes", "1MiB"), ("retries", "1.5")] {
            let mut properties = Properties::default();
            properties.set(name, value);
            let error = properties.conf().err().expect(value).to_string();
            assert!(error.contains(name) && error.contains("would be read as"), "{error}");
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
