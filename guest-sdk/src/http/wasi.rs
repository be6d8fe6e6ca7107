//! Sends requests through `wasi:http`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Headers, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

use super::{Error, Request, Response, url};

/// Maximum bytes of one `blocking-write-and-flush`.
const WRITE_MAX: usize = 4096;

/// Maximum bytes of one read.
const READ_MAX: u64 = 64 << 10;

pub(super) fn send(request: &Request) -> Result<Response, Error> {
    let parts = url::parts(&request.url)?;
    let unsendable = |what: &str| Error::Request(format!("`{what}` can't be sent"));
    let outgoing = OutgoingRequest::new(headers(request)?);
    outgoing.set_method(&method(&request.method)).map_err(|()| unsendable(&request.method))?;
    let scheme = if parts.https { Scheme::Https } else { Scheme::Http };
    outgoing.set_scheme(Some(&scheme)).map_err(|()| unsendable(&request.url))?;
    outgoing.set_authority(Some(parts.authority)).map_err(|()| unsendable(&request.url))?;
    outgoing.set_path_with_query(Some(parts.path)).map_err(|()| unsendable(&request.url))?;

    let failed = |code: ErrorCode| error(&code, parts.authority);
    let body = outgoing.body().map_err(|()| unsendable("a body"))?;
    let answer = outgoing_handler::handle(outgoing, options(request)).map_err(failed)?;
    let written = write(&body, &request.body);
    let finished = OutgoingBody::finish(body, None);
    answer.subscribe().block();
    // The response is checked before the result of writing the body: an error response is also the
    // cause of a failed write.
    let incoming = match answer.get() {
        Some(Ok(incoming)) => incoming.map_err(failed)?,
        Some(Err(())) | None => return Err(Error::Network("the response is not available".to_owned())),
    };
    written?;
    finished.map_err(failed)?;
    read(&incoming)
}

fn headers(request: &Request) -> Result<Headers, Error> {
    let mut fields = request.headers.clone();
    let sized = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !request.body.is_empty() && !sized {
        fields.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
    }
    Headers::from_list(&fields).map_err(|error| Error::Request(format!("headers: {error:?}")))
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn options(request: &Request) -> Option<RequestOptions> {
    let limit = u64::try_from(request.timeout?.as_nanos()).unwrap_or(u64::MAX);
    let options = RequestOptions::new();
    // A host may not support one of these limits; the deadline of the call still applies.
    options.set_connect_timeout(Some(limit)).ok();
    options.set_first_byte_timeout(Some(limit)).ok();
    options.set_between_bytes_timeout(Some(limit)).ok();
    Some(options)
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let stream = body.write().map_err(|()| Error::Network("the body can't be written".to_owned()))?;
    for piece in bytes.chunks(WRITE_MAX) {
        stream.blocking_write_and_flush(piece).map_err(|error| broken("sent", &error))?;
    }
    Ok(())
}

fn read(incoming: &IncomingResponse) -> Result<Response, Error> {
    let status = incoming.status();
    let headers = incoming.headers().entries();
    let unavailable = |()| Error::Network("the body is not available".to_owned());
    let body: IncomingBody = incoming.consume().map_err(unavailable)?;
    let stream = body.stream().map_err(unavailable)?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ_MAX) {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(StreamError::Closed) => return Ok(Response { status, headers, body: bytes }),
            Err(error) => return Err(broken("received", &error)),
        }
    }
}

fn broken(what: &str, error: &StreamError) -> Error {
    let reason = match error {
        StreamError::Closed => "the connection was closed".to_owned(),
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
    };
    Error::Network(format!("a body was not completely {what}: {reason}"))
}

fn error(code: &ErrorCode, authority: &str) -> Error {
    let words = words(&format!("{code:?}"));
    if matches!(code, ErrorCode::HttpRequestDenied) {
        Error::Denied(authority.to_owned())
    } else if matches!(code, ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestMethodInvalid) {
        Error::Request(words)
    } else {
        Error::Network(format!("no response from `{authority}`: {words}"))
    }
}

/// Converts a name such as `ErrorCode::ConnectionRefused` to words.
fn words(debug: &str) -> String {
    let name = debug.strip_prefix("ErrorCode::").unwrap_or(debug);
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && words.ends_with(|last: char| last.is_ascii_lowercase()) {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}
