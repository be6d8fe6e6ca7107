//! A client of the library: what consumers and producers have in common.
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka_sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE;

use super::code::{self, ErrorCode};
use super::config::ErrorText;
use super::sys;
use super::token::{self, Token};
use keylane_telemetry::LineLimit;

/// How long the destruction of a client may take before it is left to itself. It is known to hang for ever in
/// rare cases; the process ends soon after, and Kafka does not need the goodbye.
const DESTROY_LIMIT: Duration = Duration::from_secs(5);

/// Lines a second about one thing that the library logs.
const LINES_MAX: u32 = 2;

/// One instance of the library with its threads and connections. Whatever points into it holds it alive.
#[derive(Debug)]
pub struct Client {
    rk: NonNull<sys::Kafka>,
}

// SAFETY: the library's functions may be called on an instance from any thread and at the same time ("thread
// safety" in rdkafka.h's introduction); the ones that may not are on types that are not `Sync`.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    pub(super) fn from_raw(rk: NonNull<sys::Kafka>) -> Client {
        Client { rk }
    }

    pub(super) fn raw(&self) -> *mut sys::Kafka {
        self.rk.as_ptr()
    }

    /// From the next connection on it authenticates with these.
    pub(super) fn set_password(&self, user: &CStr, password: &CStr) -> Result<(), ErrorCode> {
        // SAFETY: the client is live; both strings end with a NUL and are copied; the error object is ours.
        unsafe {
            code::take(sys::rd_kafka_sasl_set_credentials(self.raw(), user.as_ptr(), password.as_ptr()))
        }
    }

    /// From the next connection on it authenticates with this token of OAUTHBEARER. The error is for people; it shows
    /// nothing of the token.
    pub(super) fn set_token(&self, token: &Token) -> Result<(), String> {
        let mut text = ErrorText::new();
        // SAFETY: the client is live; both strings end with a NUL and are copied; there are no extensions; the buffer
        // outlives the call and its size is given.
        let code = unsafe {
            sys::rd_kafka_oauthbearer_set_token(
                self.raw(),
                token.text.as_ptr(),
                token.ends,
                token.principal.as_ptr(),
                ptr::null(),
                0,
                text.pointer(),
                ErrorText::SIZE,
            )
        };
        // The library's text may quote the token.
        let ended = text.text().starts_with("Must supply an unexpired token");
        let reason = if ended { token::ENDED } else { "the client does not take it" };
        ErrorCode(code).into_result().map_err(|_| reason.to_owned())
    }

    /// The error that ended this client for good, if one did.
    pub fn fatal_error(&self) -> Option<(ErrorCode, String)> {
        let mut text = ErrorText::new();
        // SAFETY: the client is live; the buffer outlives the call and its size is given.
        let code = unsafe { sys::rd_kafka_fatal_error(self.raw(), text.pointer(), ErrorText::SIZE) };
        (code != 0).then(|| (ErrorCode(code), text.text()))
    }
}

impl Drop for Client {
    /// Destroys the instance on a thread of its own and waits for it with a limit.
    fn drop(&mut self) {
        struct Owned(NonNull<sys::Kafka>);
        // SAFETY: an instance may be destroyed by any thread; after this nobody else has it.
        unsafe impl Send for Owned {}

        let owned = Owned(self.rk);
        let (done, wait) = mpsc::sync_channel::<()>(1);
        let spawned = thread::Builder::new().name("kafka-destroy".to_owned()).spawn(move || {
            let owned = owned;
            // SAFETY: `drop` runs once, after every queue, topic and message of the instance is gone: they hold
            // the client alive. Consumers were closed before, or are not to be: the flag says so.
            unsafe { sys::rd_kafka_destroy_flags(owned.0.as_ptr(), RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) };
            drop(done);
        });
        match spawned {
            // The channel is closed, without a message, when the instance is gone.
            Ok(_) => {
                if wait.recv_timeout(DESTROY_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                    tracing::warn!(limit = ?DESTROY_LIMIT, "Kafka client does not end: left to itself");
                }
            }
            Err(error) => tracing::warn!(%error, "no thread to end the Kafka client: left to itself"),
        }
    }
}

/// Passes the library's log lines on; called by its threads.
pub(super) unsafe extern "C" fn log_callback(
    _rk: *const sys::Kafka,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: the library passes two NUL-terminated strings that live during the call.
    let (facility, text) = unsafe { (code::text(facility), code::text(text)) };
    let Some(dropped) = allowed(&facility, level) else { return };
    // The library's levels are syslog's. Its errors are ours to judge: they also come as events.
    match level {
        // Properties under [kafka.client] are for all clients: that one of them has no use for some is no news.
        _ if facility == "CONFWARN" => {
            tracing::debug!(target: "librdkafka", facility, text, dropped, "client says")
        }
        0..=4 => tracing::warn!(target: "librdkafka", facility, text, dropped, "client says"),
        5 | 6 => tracing::info!(target: "librdkafka", facility, text, dropped, "client says"),
        _ => tracing::debug!(target: "librdkafka", facility, text, dropped, "client says"),
    }
}

/// Whether a line about this may be written, and how many were not: while brokers are away each client would say so at
/// every try. Who asks for `debug` gets everything.
fn allowed(facility: &str, level: c_int) -> Option<u64> {
    static LIMITS: Mutex<BTreeMap<(String, c_int), LineLimit>> = Mutex::new(BTreeMap::new());
    if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
        return Some(0);
    }
    let mut limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = limits.entry((facility.to_owned(), level)).or_insert_with(|| LineLimit::new(LINES_MAX));
    limit.allow()
}
