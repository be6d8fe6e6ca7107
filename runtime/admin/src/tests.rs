//! The server, through its socket.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::connections::{CONNECTIONS_MAX, RESERVED};
use crate::event_stream::STREAMS_MAX;
use crate::{
    AccessRules, Backend, LanesError, LanesRequest, Listen, MetricsFormat, Notice, ResponseFuture, Server,
};

const TOKEN: &str = "0123456789abcdef";
const TIMEOUT: Duration = Duration::from_secs(60);
/// The header with which the response of `/metrics` is large.
const LARGE: &str = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

/// A process that is live, and ready unless the check is strict.
struct Process;

impl Backend for Process {
    fn tick(&self) {}

    fn not_live(&self) -> Vec<String> {
        Vec::new()
    }

    fn not_ready(&self, strict: bool) -> ResponseFuture<'_, Vec<String>> {
        let reasons = if strict { vec!["a topic is blocked".to_owned()] } else { Vec::new() };
        Box::pin(std::future::ready(reasons))
    }

    fn metrics(&self, format: MetricsFormat) -> ResponseFuture<'_, String> {
        // Larger than all buffers between the server and a client.
        let padding = if format == MetricsFormat::OpenMetrics { 8 << 20 } else { 0 };
        Box::pin(std::future::ready(format!("# {format:?}\n{}", " ".repeat(padding))))
    }

    fn status(&self) -> ResponseFuture<'_, String> {
        Box::pin(std::future::ready("{}".to_owned()))
    }

    fn notices(&self, after: u64) -> Vec<Notice> {
        (after + 1..=2).map(|id| Notice { id, json: format!("{{\"id\":{id}}}") }).collect()
    }

    fn lanes(&self, request: LanesRequest) -> ResponseFuture<'_, Result<String, LanesError>> {
        let LanesRequest { handler, by, limit } = request;
        let response = match handler.as_deref() {
            Some("none") => Err(LanesError::UnknownHandler(vec!["orders".to_owned(), "b".to_owned()])),
            Some("ended") => Err(LanesError::NotRunning),
            Some("stuck") => Err(LanesError::Unresponsive),
            handler => Ok(format!("{handler:?} {by:?} {limit}")),
        };
        Box::pin(std::future::ready(response))
    }
}

fn start(access: AccessRules) -> Server {
    start_at("127.0.0.1:0", access)
}

fn start_at(address: &str, access: AccessRules) -> Server {
    let listen = Listen::At(address.to_owned());
    Server::start(&listen, access, Arc::new(Process)).expect("a free port exists").expect("it is on")
}

/// The status code, the head and the body of a response.
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn of(text: &str) -> Response {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not an HTTP response: {text:?}"));
        Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// The field of an error.
    fn field(&self, name: &str) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("an error is JSON");
        body[name].as_str().expect("the field is text").to_owned()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", address.port())).expect("the server listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("the timeout is valid");
    stream
}

fn send(stream: &mut TcpStream, line: &str, headers: &[&str]) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "{line} HTTP/1.1\r\n{headers}connection: close\r\n\r\n").expect("the server reads");
}

fn receive(stream: &mut TcpStream) -> Response {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the server answers");
    Response::of(&text)
}

fn request(server: &Server, line: &str, headers: &[&str]) -> Response {
    let mut stream = connect(server.address());
    send(&mut stream, line, headers);
    receive(&mut stream)
}

fn get(server: &Server, path: &str) -> Response {
    request(server, &format!("GET {path}"), &["host: localhost"])
}

#[test]
fn every_path_is_answered_with_the_security_headers() {
    let server = start(AccessRules::default());
    for (path, status, body) in [
        ("/health/live", 200, "ok\n"),
        ("/health/ready", 200, "ok\n"),
        ("/health/ready?strict=true", 503, "a topic is blocked\n"),
        ("/metrics", 200, "# Prometheus\n"),
        ("/v1/status", 200, "{}"),
        ("/v1/notices", 200, r#"{"notices":[{"id":1},{"id":2}]}"#),
        ("/v1/notices?since=1", 200, r#"{"notices":[{"id":2}]}"#),
        ("/v1/lanes", 200, "None Depth 20"),
        ("/v1/lanes?handler=orders&by=age&limit=100", 200, "Some(\"orders\") Age 100"),
        ("/", 200, include_str!("../page/index.html")),
        ("/page.css", 200, include_str!("../page/page.css")),
        ("/page.js", 200, include_str!("../page/page.js")),
        ("/favicon.ico", 204, ""),
    ] {
        let response = get(&server, path);
        assert_eq!((response.status, response.body.as_str()), (status, body), "{path}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(response.head.contains(header), "{path} has no `{header}`:\n{}", response.head);
        }
    }
    // The page is loaded over slow connections, and is a part of the binary.
    let page = ["/", "/page.css", "/page.js"].map(|path| get(&server, path).body.len());
    assert!(page.iter().sum::<usize>() <= 60 << 10, "the page is larger than 60 KiB: {page:?}");
}

#[test]
fn metrics_have_the_format_that_the_client_accepts() {
    let server = start(AccessRules::default());
    let response = request(&server, "GET /metrics", &["host: localhost", LARGE]);
    assert_eq!(response.body.trim_end(), "# OpenMetrics");
    assert!(response.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    let plain = request(&server, "GET /metrics", &["host: localhost", "accept: text/plain"]);
    assert_eq!(plain.body, "# Prometheus\n");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"));
}

#[test]
fn only_known_hosts_are_served_except_to_probes() {
    let server = start(AccessRules { hosts: vec!["keylane.example".to_owned()], ..AccessRules::default() });
    for host in ["localhost", "LOCALHOST:9277", "127.0.0.1:80", "[::1]", "[::1]:9277", "keylane.example:1"] {
        assert_eq!(request(&server, "GET /v1/status", &[&format!("host: {host}")]).status, 200, "{host}");
    }
    // The name of an attacker, which a browser resolves to this machine.
    for host in ["rebound.example", "localhost.example", "127.0.0.1.example", "keylane.example.org"] {
        let response = request(&server, "GET /v1/status", &[&format!("host: {host}")]);
        assert_eq!(response.status, 421, "{host}");
        assert_eq!(response.field("error"), format!("the host `{host}` is not served"));
        assert!(!response.head.contains("access-control"), "{}", response.head);
        assert!(response.field("hint").contains("admin.hosts"));
        assert_eq!(request(&server, "GET /health/live", &[&format!("host: {host}")]).status, 200);
        assert_eq!(request(&server, "GET /metrics", &[&format!("host: {host}")]).status, 200);
    }
    assert_eq!(request(&server, "GET /v1/status", &[]).status, 400);
}

#[test]
fn with_a_token_data_is_served_only_to_those_who_know_it() {
    let server = start(AccessRules { token: Some(TOKEN.to_owned()), ..AccessRules::default() });
    let with = |authorization: &str| {
        request(&server, "GET /v1/status", &["host: localhost", &format!("authorization: {authorization}")])
    };
    assert_eq!(with(&format!("Bearer {TOKEN}")).status, 200);
    assert_eq!(with(&format!("bearer {TOKEN}")).status, 200);
    for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer ", "Basic abc", "x"] {
        let response = with(wrong);
        assert_eq!(response.status, 401, "{wrong}");
        assert!(response.field("hint").contains("Authorization: Bearer"));
    }
    assert_eq!(get(&server, "/v1/status").field("error"), "a token is required");
    for open in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(get(&server, open).status, 200, "{open}");
    }
    let protected =
        start(AccessRules { token: Some(TOKEN.to_owned()), protect_metrics: true, ..AccessRules::default() });
    assert_eq!(get(&protected, "/metrics").status, 401);
    assert_eq!(get(&protected, "/health/live").status, 200);
}

#[test]
fn away_from_loopback_data_needs_a_token() {
    let server = start_at("0.0.0.0:0", AccessRules::default());
    let response = get(&server, "/v1/status");
    assert_eq!(response.status, 403);
    assert!(response.field("hint").contains("`admin.token`"), "{}", response.body);
    assert_eq!(get(&server, "/health/live").status, 200);
    assert_eq!(get(&server, "/metrics").status, 200);
    let with_token =
        start_at("0.0.0.0:0", AccessRules { token: Some(TOKEN.to_owned()), ..AccessRules::default() });
    let header = format!("authorization: Bearer {TOKEN}");
    assert_eq!(request(&with_token, "GET /v1/status", &["host: 127.0.0.1", &header]).status, 200);
}

#[test]
fn nothing_can_be_changed() {
    let server = start(AccessRules::default());
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let target = format!("{method} /v1/status");
        let response = request(&server, &target, &["host: localhost", "content-length: 0"]);
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.field("hint"), "use GET");
    }
}

#[test]
fn requests_that_are_not_understood_get_an_error_with_a_hint() {
    let server = start(AccessRules::default());
    for (path, status, hint) in
        [("/v1/nothing", 404, "/v1/status"), ("/health/ready?strict=perhaps", 400, "strict=true")]
    {
        let response = get(&server, path);
        assert_eq!(response.status, status, "{path}");
        assert!(response.field("hint").contains(hint), "{path}: {}", response.body);
    }
    let large = request(&server, "GET /v1/status", &["host: localhost", "content-length: 65537"]);
    assert_eq!(large.status, 413);
}

#[test]
fn connections_are_limited_and_some_are_kept_for_probes() {
    let server = start(AccessRules::default());
    let idle: Vec<TcpStream> = (0..CONNECTIONS_MAX - RESERVED).map(|_| connect(server.address())).collect();
    let refused = get(&server, "/v1/status");
    assert_eq!(refused.status, 503);
    assert!(refused.field("error").contains("reserved for health and metrics"));
    assert_eq!(get(&server, "/health/live").status, 200);
    assert_eq!(get(&server, "/metrics").status, 200);
    let more: Vec<TcpStream> = (0..RESERVED).map(|_| connect(server.address())).collect();
    // One connection too many is closed without a response.
    let mut last = connect(server.address());
    let mut text = Vec::new();
    assert!(matches!(last.read_to_end(&mut text), Ok(0) | Err(_)), "{text:?}");
    drop((idle, more));
    // The places of closed connections are free again as soon as the server has noticed the ends.
    while get_or_closed(&server) != Some(200) {}
}

/// The status code of a response; `None`: the connection was closed without one.
fn get_or_closed(server: &Server) -> Option<u16> {
    let mut stream = connect(server.address());
    write!(stream, "GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then(|| Response::of(&text).status)
}

#[test]
fn a_client_that_sends_no_request_is_closed() {
    let server = start(AccessRules::default());
    let mut incomplete = connect(server.address());
    write!(incomplete, "GET /v1/status HTTP/1.1\r\nhost: local").expect("the server reads");
    let mut idle = connect(server.address());
    for stream in [&mut incomplete, &mut idle] {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).expect("the server closes the connection before the test's timeout");
    }
}

#[test]
fn a_client_that_reads_nothing_is_closed() {
    let server = start(AccessRules::default());
    let mut unread: Vec<TcpStream> =
        (0..CONNECTIONS_MAX - RESERVED).map(|_| connect(server.address())).collect();
    for stream in &mut unread {
        send(stream, "GET /metrics", &["host: localhost", LARGE]);
    }
    assert_eq!(get_or_closed(&server), Some(503), "every connection is in use");
    while get_or_closed(&server) != Some(200) {}
}

#[test]
fn the_head_of_a_request_has_a_limit() {
    let server = start(AccessRules::default());
    let mut stream = connect(server.address());
    let long = format!("x: {}", "y".repeat(64 << 10));
    let sent = write!(stream, "GET /v1/status HTTP/1.1\r\nhost: localhost\r\n{long}\r\n\r\n");
    let mut text = String::new();
    // The server may close the connection before it has read everything.
    if sent.is_ok() && stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
        assert_eq!(Response::of(&text).status, 431);
    }
    assert_eq!(get(&server, "/v1/status").status, 200);
}

#[test]
fn lanes_are_refused_by_name() {
    let server = start(AccessRules::default());
    for (path, status, error) in [
        ("/v1/lanes?handler=none", 404, "no such handler in this process"),
        ("/v1/lanes?handler=ended", 503, "the handler does not run"),
        ("/v1/lanes?handler=stuck", 503, "the event loop of the handler does not respond"),
        ("/v1/lanes?by=work", 400, "unknown parameter `by=work`"),
        ("/v1/lanes?limit=101", 400, "unknown parameter `limit=101`"),
        ("/v1/notices?since=x", 400, "unknown parameter `since=x`"),
    ] {
        let response = get(&server, path);
        assert_eq!((response.status, response.field("error").as_str()), (status, error), "{path}");
    }
    assert!(get(&server, "/v1/lanes?handler=none").field("hint").ends_with("orders, b"));
}

/// Reads until the text has this part.
fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 1 << 10]);
    while !text.contains(part) {
        let count = stream.read(&mut buffer).expect("the server sends");
        assert!(count > 0, "the stream ended without `{part}`:\n{text}");
        text += std::str::from_utf8(&buffer[..count]).expect("text");
    }
    text
}

#[test]
fn a_stream_sends_each_notice_once_and_a_status_again_and_again() {
    let server = start(AccessRules::default());
    let open = || {
        let mut stream = connect(server.address());
        send(&mut stream, "GET /v1/stream", &["host: localhost"]);
        stream
    };
    let mut stream = open();
    let mut text = read_until(&mut stream, "event: status\ndata: {}\n\n");
    text += &read_until(&mut stream, "event: status\ndata: {}\n\n");
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    for id in [1, 2] {
        let notice = format!("event: notice\ndata: {{\"id\":{id}}}\n\n");
        assert_eq!(text.matches(&notice).count(), 1, "{text}");
    }
    let streams: Vec<TcpStream> = (1..STREAMS_MAX)
        .map(|_| {
            let mut stream = open();
            read_until(&mut stream, "event: status");
            stream
        })
        .collect();
    let refused = get(&server, "/v1/stream");
    assert_eq!((refused.status, refused.field("error").as_str()), (503, "8 streams are open already"));
    drop(streams);
    // The server notices at the next status that the clients have gone.
    while get(&server, "/v1/lanes").status != 200 || open_status(&server) != 200 {}
}

/// The status code of a stream that is closed at once.
fn open_status(server: &Server) -> u16 {
    let mut stream = connect(server.address());
    send(&mut stream, "GET /v1/stream", &["host: localhost"]);
    Response::of(&read_until(&mut stream, "\r\n\r\n")).status
}

#[test]
fn the_page_needs_no_token_and_a_known_host() {
    let access = AccessRules { token: Some(TOKEN.to_owned()), ..AccessRules::default() };
    let server = start(access);
    assert_eq!(get(&server, "/").status, 200);
    for path in ["/v1/stream", "/v1/lanes", "/v1/notices"] {
        assert_eq!(get(&server, path).status, 401, "{path}");
    }
    assert_eq!(request(&server, "GET /", &["host: evil.example"]).status, 421);
}

#[test]
fn a_page_of_another_site_can_send_nothing() {
    let server = start(AccessRules::default());
    let host = format!("host: {}", server.address());
    let own = format!("origin: http://{}", server.address());
    for origin in ["origin: http://evil.example", "origin: null", "origin: http://127.0.0.1:1"] {
        for line in ["POST /v1/status", "GET /v1/status", "GET /"] {
            let response = request(&server, line, &[&host, origin]);
            assert_eq!(response.status, 403, "{line}, {origin}");
            assert_eq!(response.field("error"), "the request comes from a page of another site");
        }
    }
    assert_eq!(request(&server, "GET /v1/status", &[&host, &own]).status, 200);
    assert_eq!(request(&server, "POST /v1/status", &[&host, &own]).status, 405, "it is read-only");
}
