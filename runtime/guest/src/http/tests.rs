use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::runtime::Runtime;

use super::*;

/// An event of a service: a new connection, a request, or the end of a connection.
enum Seen {
    Opened,
    Request,
    Closed,
}

/// Starts a service on this machine that sends `answer` to every request of every connection.
fn service(answer: &'static [u8]) -> (String, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, events) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (connection, seen) = (connection.unwrap(), seen.clone());
            std::thread::spawn(move || serve(&connection, answer, &seen));
        }
    });
    (format!("http://{address}/"), events)
}

fn serve(mut connection: &TcpStream, answer: &[u8], seen: &Sender<Seen>) {
    seen.send(Seen::Opened).ok();
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() {
            seen.send(Seen::Request).ok();
            connection.write_all(answer).ok();
        }
    }
    seen.send(Seen::Closed).ok();
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn worker() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn get(url: &str) -> Request<WasiBody> {
    Request::get(url).body(WasiBody::new(Empty)).unwrap()
}

struct Empty;

impl Body for Empty {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// Returns the status and the body, or the error.
async fn ask(client: &HttpClient, url: &str, options: RequestOptions) -> Result<(u16, Vec<u8>), Error> {
    let response = client.send(get(url), options).await?;
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) =
        std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
    {
        bytes.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok((head.status.as_u16(), bytes))
}

#[test]
fn a_connection_serves_one_worker_after_another() {
    let (url, events) = service(HELLO);
    let client = HttpClient::start().unwrap();
    for _ in 0..3 {
        // The runtime is dropped with the worker; the connection stays.
        let answer = worker().block_on(ask(&client, &url, RequestOptions::default()));
        assert_eq!(answer.unwrap(), (200, b"hello".to_vec()));
    }
    drop(client);
    let events: Vec<Seen> = events.iter().take(5).collect();
    assert!(
        matches!(*events, [Seen::Opened, Seen::Request, Seen::Request, Seen::Request, Seen::Closed]),
        "one connection for all"
    );
}

/// Starts a service that keeps its connections open, but answers only the first request of each.
fn forgetful() -> (String, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, events) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, seen) = (connection.unwrap(), seen.clone());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
                let mut head = || lines.by_ref().map_while(Result::ok).any(|line| line.is_empty());
                if head() {
                    seen.send(Seen::Request).ok();
                    connection.write_all(HELLO).ok();
                    head();
                    seen.send(Seen::Closed).ok();
                }
            });
        }
    });
    (format!("http://{address}/"), events)
}

#[test]
fn a_request_on_a_kept_connection_that_ends_is_sent_again() {
    let (url, events) = forgetful();
    let client = HttpClient::start().unwrap();
    let worker = worker();
    for number in 0..10 {
        let answer = worker.block_on(ask(&client, &url, RequestOptions::default()));
        assert_eq!(answer.unwrap(), (200, b"hello".to_vec()), "request {number}");
    }
    assert!(events.try_iter().any(|seen| matches!(seen, Seen::Closed)), "no kept connection was used");
}

/// A request that may have been processed must not be processed twice.
#[test]
fn a_request_that_is_not_idempotent_is_sent_once() {
    let (url, _events) = forgetful();
    let client = HttpClient::start().unwrap();
    let post = || Request::post(&url).body(WasiBody::new(Empty)).unwrap();
    let worker = worker();
    worker.block_on(ask(&client, &url, RequestOptions::default())).unwrap();
    let answer = worker.block_on(client.send(post(), RequestOptions::default()));
    assert!(matches!(answer, Err(Error::HttpResponseIncomplete | Error::ConnectionTerminated)));
}

#[test]
fn a_small_body_is_kept_for_a_retry_and_a_large_one_is_not() {
    let whole = |pieces: &[usize], end: bool| {
        let request = Request::put("http://localhost/").body(WasiBody::new(Empty)).unwrap();
        let (request, resend) = request_body::prepare(request);
        let request_body::RequestBody::First { kept: Some(kept), .. } = request.into_body() else {
            unreachable!()
        };
        let kept_before = resend.unwrap().request().is_some();
        assert!(kept_before, "the request is known to have no body");
        drop(kept);
        let body = Pieces { pieces: pieces.iter().map(|&size| Bytes::from(vec![7; size])).collect(), end };
        let request = Request::put("http://localhost/").body(WasiBody::new(body)).unwrap();
        let (request, resend) = request_body::prepare(request);
        let mut body = request.into_body();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while let std::task::Poll::Ready(Some(_)) = std::pin::Pin::new(&mut body).poll_frame(&mut context) {}
        resend.unwrap().request().is_some_and(|again| {
            again.body().size_hint().exact() == Some(pieces.iter().sum::<usize>() as u64)
        })
    };
    assert!(whole(&[3, 5], true));
    assert!(!whole(&[3, 5], false), "the guest has not finished it");
    assert!(!whole(&[60_000, 60_000], true), "too large");
}

struct Pieces {
    pieces: std::collections::VecDeque<Bytes>,
    end: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.pieces.pop_front() {
            Some(piece) => std::task::Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.end => std::task::Poll::Ready(None),
            None => std::task::Poll::Pending,
        }
    }
}

#[test]
fn dropping_a_request_closes_its_connection() {
    let (url, events) = service(b"");
    let client = HttpClient::start().unwrap();
    worker().block_on(async {
        let mut sending = Box::pin(client.send(get(&url), RequestOptions::default()));
        let sent = tokio::time::timeout(Duration::from_millis(1), &mut sending).await;
        assert!(sent.is_err(), "the service never answers");
        // The request is dropped only after this: a connection that was not opened can't be closed.
        assert!(matches!(events.recv(), Ok(Seen::Opened)));
        assert!(matches!(events.recv(), Ok(Seen::Request)));
    });
    assert!(
        matches!(events.recv_timeout(Duration::from_secs(10)), Ok(Seen::Closed)),
        "the connection is closed"
    );
}

#[test]
fn every_timeout_of_the_guest_is_enforced() {
    let short = Some(Duration::from_millis(20));
    let client = HttpClient::start().unwrap();
    let (silent, _seen) = service(b"");
    let options = RequestOptions { first_byte_timeout: short, ..RequestOptions::default() };
    let answer = worker().block_on(ask(&client, &silent, options));
    assert!(matches!(answer, Err(Error::HttpResponseTimeout)), "{answer:?}");

    let (slow, _seen) = service(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello");
    let options = RequestOptions { between_bytes_timeout: short, ..RequestOptions::default() };
    let answer = worker().block_on(ask(&client, &slow, options));
    assert!(matches!(answer, Err(Error::ConnectionReadTimeout)), "{answer:?}");

    // The listener never answers the TLS handshake, which is part of connecting.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", mute.local_addr().unwrap());
    let options = RequestOptions { connect_timeout: short, ..RequestOptions::default() };
    let answer = worker().block_on(ask(&client, &url, options));
    assert!(matches!(answer, Err(Error::ConnectionTimeout)), "{answer:?}");
}

#[test]
fn errors_are_mapped_to_those_of_wasi_http() {
    let client = HttpClient::start().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (broken, _seen) = service(b"what?\r\n\r\n");
    let no_tls = once(b"220 mail here\r\n");
    let closing = once(b"");
    for (url, expected) in [
        (format!("http://{closed}/"), "connection refused"),
        (broken, "HTTP protocol error"),
        (no_tls.replace("http:", "https:"), "TLS protocol error"),
        (closing, "incomplete HTTP response"),
        ("http://nobody.invalid/".to_owned(), "DNS error"),
    ] {
        let error = worker().block_on(ask(&client, &url, RequestOptions::default())).unwrap_err();
        assert_eq!(error.to_string(), expected, "{url}");
    }
}

/// Starts a service that accepts one request, sends this answer whatever the request was, and closes.
fn once(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap().0;
        let request = connection.read(&mut [0; 4096]);
        assert!(request.is_ok_and(|bytes| bytes > 0));
        connection.write_all(answer).ok();
    });
    url
}

#[test]
fn a_host_that_is_not_listed_is_denied() {
    let client = Arc::new(HttpClient::start().unwrap());
    let grant = HttpGrant::new("orders", vec![local("one", 1)], client);
    for grant in [Some(grant), None] {
        let mut hooks = InstanceHttp::new(grant).hooks;
        let answer = worker().block_on(send(&mut hooks, "http://127.0.0.1:2/")).map(|_| ());
        assert!(matches!(answer, Err(Error::HttpRequestDenied)), "{answer:?}");
    }
}

/// Returns a grant of a port on this machine.
fn local(grant: &str, port: u16) -> AllowedHost {
    AllowedHost { grant: grant.into(), name: "127.0.0.1".to_owned(), subdomains: false, port: Some(port) }
}

/// Sends a request as a guest does.
fn send(hooks: &mut Hooks, url: &str) -> std::pin::Pin<Box<dyn Future<Output = Sent> + Send>> {
    Box::into_pin(hooks.send_request(get(url), None, Box::new(std::future::ready(Ok(())))))
}

fn port_of(url: &str) -> u16 {
    url.parse::<hyper::Uri>().unwrap().port_u16().unwrap()
}

#[test]
fn requests_are_counted_by_grant_and_class() {
    let answers: [&'static [u8]; 5] = [
        HELLO,
        b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        b"what?\r\n\r\n",
    ];
    let services = answers.map(|answer| service(answer).0);
    let hosts = services.iter().enumerate().map(|(index, url)| local(&format!("g{index}"), port_of(url)));
    let grant = HttpGrant::new("orders", hosts.collect(), Arc::new(HttpClient::start().unwrap()));
    let mut hooks = InstanceHttp::new(Some(grant.clone())).hooks;
    let worker = worker();
    for (index, url) in services.iter().enumerate() {
        for _ in 0..=index {
            worker.block_on(send(&mut hooks, url)).ok();
        }
    }
    worker.block_on(send(&mut hooks, "http://nobody.invalid/")).err().unwrap();
    let HttpUsage { grants, denied } = grant.counters().snapshot();
    assert_eq!(denied, 1);
    let counted: Vec<(&str, [u64; 5])> = grants.iter().map(|of| (&*of.grant, of.requests)).collect();
    let expected = [
        ("g0", [1, 0, 0, 0, 0]),
        ("g1", [0, 2, 0, 0, 0]),
        ("g2", [0, 0, 3, 0, 0]),
        ("g3", [0, 0, 0, 4, 0]),
        ("g4", [0, 0, 0, 0, 5]),
    ];
    assert_eq!(counted, expected, "{HTTP_CLASSES:?}");
}

#[test]
fn a_request_whose_call_ends_before_the_response_is_counted_once_as_an_error() {
    let (silent, seen) = service(b"");
    let grant = HttpGrant::new(
        "orders",
        vec![local("silent", port_of(&silent))],
        Arc::new(HttpClient::start().unwrap()),
    );
    let mut hooks = InstanceHttp::new(Some(grant.clone())).hooks;
    let requests = |grant: &HttpGrant| grant.counters().snapshot().grants[0].requests;
    worker().block_on(async {
        let mut sending = send(&mut hooks, &silent);
        let sent = tokio::time::timeout(Duration::from_millis(1), &mut sending).await;
        assert!(sent.is_err(), "the service never answers");
        assert!(matches!((seen.recv(), seen.recv()), (Ok(Seen::Opened), Ok(Seen::Request))));
        assert_eq!(requests(&grant), [0; 5], "it has not ended");
    });
    assert_eq!(requests(&grant), [0, 0, 0, 0, 1]);
}
