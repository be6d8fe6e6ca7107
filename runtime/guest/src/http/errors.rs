//! Maps errors to those of `wasi:http`, which the guest handles.

use std::error::Error as StdError;
use std::io;

use hyper_util::client::legacy;
use rustls::AlertDescription;
use wasmtime_wasi_http::Error;

use super::connect::ConnectTimedOut;

/// Returns the most specific known cause of an error of the client or of a body.
pub(super) fn wasi_error(error: &(dyn StdError + 'static)) -> Error {
    let mut chain = causes(error);
    let connecting = error.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect);
    chain.reverse(); // the innermost cause is the most specific
    let innermost = chain.first().map(ToString::to_string);
    tracing::debug!(%error, cause = innermost, "HTTP request failed");
    let known = chain.into_iter().find_map(known);
    known.unwrap_or(if connecting { Error::DestinationUnavailable } else { Error::ConnectionTerminated })
}

/// Returns an error and its causes, outermost first. An I/O error that wraps another one is unwrapped, because its
/// `source` skips the wrapped error.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> Vec<&'e (dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        causes.push(error);
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    causes
}

fn known(cause: &(dyn StdError + 'static)) -> Option<Error> {
    if cause.is::<ConnectTimedOut>() {
        return Some(Error::ConnectionTimeout);
    }
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(tls(error));
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return match () {
            () if error.is_incomplete_message() => Some(Error::HttpResponseIncomplete),
            () if error.is_parse() => Some(Error::HttpProtocolError),
            () => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return input_output(error.kind());
    }
    // The error's type is private to the client.
    (cause.to_string() == "dns error").then(|| Error::DnsError { rcode: None, info_code: None })
}

fn tls(error: &rustls::Error) -> Error {
    if let rustls::Error::AlertReceived(alert) = error {
        return Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: name(*alert) };
    }
    if matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) {
        return Error::TlsCertificateError;
    }
    Error::TlsProtocolError
}

fn name(alert: AlertDescription) -> Option<String> {
    alert.as_str().map(str::to_owned)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's list is open")]
fn input_output(kind: io::ErrorKind) -> Option<Error> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(Error::ConnectionRefused),
        io::ErrorKind::TimedOut => Some(Error::ConnectionTimeout),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Error::ConnectionTerminated),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some(Error::DestinationIpUnroutable)
        }
        _ => None,
    }
}
