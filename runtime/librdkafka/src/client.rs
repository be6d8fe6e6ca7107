//! A client of the library: the common part of consumers and producers.
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka_sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE;

use super::code::{self, ErrorCode};
use super::properties::ErrorText;
use super::sys;
use super::token::{self, Token};
use keylane_log::{ClockedLineThrottle, LinePermit};

/// How long to wait for the destruction of a client before it continues in the background. In rare cases it hangs for
/// ever. Kafka does not need an orderly disconnect.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of lines per second for one facility and level of the library's log.
const LINES_MAX: u32 = 2;

/// One instance of the library with its threads and connections. Everything that points into it keeps it alive.
#[derive(Debug)]
pub struct Client {
    rk: NonNull<sys::Kafka>,
}

// SAFETY: the library's functions may be called on an instance from any thread and concurrently ("thread
// safety" in rdkafka.h's introduction); those that may not are on types that are not `Sync`.
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

    /// Sets the credentials of later connections.
    pub(super) fn set_password(&self, user: &CStr, password: &CStr) -> Result<(), ErrorCode> {
        // SAFETY: the client is live; both strings end with a NUL and are copied; the error object is ours.
        unsafe {
            code::take(sys::rd_kafka_sasl_set_credentials(self.raw(), user.as_ptr(), password.as_ptr()))
        }
    }

    /// Sets the OAUTHBEARER token of later connections. The error is a text for messages and contains nothing of the
    /// token.
    pub(super) fn set_token(&self, token: &Token) -> Result<(), String> {
        let mut text = ErrorText::new();
        // SAFETY: the client is live; both strings end with a NUL and are copied; there are no extensions; the buffer
        // outlives the call and its size is passed.
        let code = unsafe {
            sys::rd_kafka_oauthbearer_set_token(
                self.raw(),
                token.text.as_ptr(),
                token.expires_ms,
                token.principal.as_ptr(),
                ptr::null(),
                0,
                text.pointer(),
                ErrorText::SIZE,
            )
        };
        // The library's message is not returned, because it may quote the token.
        let expired = text.text().starts_with("Must supply an unexpired token");
        let reason = if expired { token::EXPIRED } else { "the client rejects it" };
        ErrorCode(code).into_result().map_err(|_| reason.to_owned())
    }

    /// Returns the fatal error that disabled this client, if any.
    pub fn fatal_error(&self) -> Option<(ErrorCode, String)> {
        let mut text = ErrorText::new();
        // SAFETY: the client is live; the buffer outlives the call and its size is passed.
        let code = unsafe { sys::rd_kafka_fatal_error(self.raw(), text.pointer(), ErrorText::SIZE) };
        (code != 0).then(|| (ErrorCode(code), text.text()))
    }
}

impl Drop for Client {
    /// Destroys the instance on a separate thread and waits for it with a timeout.
    fn drop(&mut self) {
        struct Owned(NonNull<sys::Kafka>);
        // SAFETY: an instance may be destroyed by any thread; nothing else uses it any more.
        unsafe impl Send for Owned {}

        let owned = Owned(self.rk);
        let (done, wait) = mpsc::sync_channel::<()>(1);
        let spawned = thread::Builder::new().name("kafka-destroy".to_owned()).spawn(move || {
            let owned = owned;
            // SAFETY: `drop` runs once, after every queue, topic and message of the instance is dropped: they keep
            // the client alive. The flag keeps this call from closing a consumer that was not closed before.
            unsafe { sys::rd_kafka_destroy_flags(owned.0.as_ptr(), RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) };
            drop(done);
        });
        match spawned {
            // The channel is closed, without a message, when the instance is destroyed.
            Ok(_) => {
                if wait.recv_timeout(DESTROY_TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
                    tracing::warn!(timeout = ?DESTROY_TIMEOUT, "Kafka client not destroyed in time");
                }
            }
            Err(error) => tracing::warn!(%error, "can't start the thread that destroys the Kafka client"),
        }
    }
}

/// Logs a line of the library's log. The library's threads call it.
pub(super) unsafe extern "C" fn log_callback(
    _rk: *const sys::Kafka,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: the library passes two NUL-terminated strings that live during the call.
    let (facility, text) = unsafe { (code::text(facility), code::text(text)) };
    let Some(LinePermit { dropped }) = allowed(&facility, level) else { return };
    // The library's levels are those of syslog. Errors are only warnings here, because they also arrive as events.
    match level {
        // Properties under [kafka.client] are for all clients, so a property that one client does not use is no reason
        // to warn.
        // The owner of a transaction logs why it failed, and replaces the producer on purpose.
        _ if matches!(&*facility, "CONFWARN" | "TXNERR" | "TERMINATE") => {
            tracing::debug!(target: "librdkafka", facility, text, dropped, "librdkafka log")
        }
        0..=4 => tracing::warn!(target: "librdkafka", facility, text, dropped, "librdkafka log"),
        5 | 6 => tracing::info!(target: "librdkafka", facility, text, dropped, "librdkafka log"),
        _ => tracing::debug!(target: "librdkafka", facility, text, dropped, "librdkafka log"),
    }
}

/// Returns the number of lines dropped before this one, or `None` if this line must be dropped, too: while brokers are
/// unavailable, each client logs at every retry. At level `debug` nothing is dropped.
fn allowed(facility: &str, level: c_int) -> Option<LinePermit> {
    static LIMITS: Mutex<BTreeMap<(String, c_int), ClockedLineThrottle>> = Mutex::new(BTreeMap::new());
    if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
        return Some(LinePermit { dropped: None });
    }
    let mut limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let limit =
        limits.entry((facility.to_owned(), level)).or_insert_with(|| ClockedLineThrottle::new(LINES_MAX));
    limit.permit()
}
