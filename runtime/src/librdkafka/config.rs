//! From (name, value) pairs to a client.
use std::ffi::{CString, c_char, c_int};
use std::fmt::Display;
use std::ptr::NonNull;

use super::client::{Client, log_callback};
use super::{code, sys};

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
}

/// Client properties in the order in which they are applied: a later one wins.
#[derive(Clone, Debug, Default)]
pub struct Properties(Vec<(String, String)>);

impl Properties {
    /// Those of the user, first.
    pub fn new(properties: Vec<(String, String)>) -> Properties {
        Properties(properties)
    }

    /// Adds one, unless it is there already.
    pub fn default_value(&mut self, name: &str, value: impl Display) {
        if !self.0.iter().any(|(known, _)| known == name) {
            self.set(name, value);
        }
    }

    /// Adds one that wins over what is there.
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.0.push((name.to_owned(), value.to_string()));
    }

    /// The value in force, if it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn create(&self, kind: c_int, events: i32) -> Result<Client, ConfigError> {
        let conf = Conf::new();
        for (name, value) in &self.0 {
            conf.set(name, value)?;
        }
        conf.create(kind, events)
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
        let refused = |reason: String| ConfigError::Property { name: name.to_owned(), reason };
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
        if result == sys::CONF_OK { Ok(()) } else { Err(refused(error.text())) }
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

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: no client has taken it, else it would have been forgotten.
        unsafe { sys::rd_kafka_conf_destroy(self.0) }
    }
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
    fn a_wrong_property_is_named() {
        let mut properties = Properties::default();
        properties.set("no.such.property", "1");
        let error = properties.create(sys::TYPE_PRODUCER, 0).expect_err("it does not exist");
        assert!(error.to_string().contains("no.such.property"), "{error}");
    }

    #[test]
    fn a_later_value_wins_and_a_default_does_not() {
        let mut properties = Properties::new(vec![("a".into(), "1".into())]);
        properties.default_value("a", 2);
        assert_eq!(properties.get("a"), Some("1"));
        properties.set("a", 3);
        assert_eq!(properties.get("a"), Some("3"));
    }
}
