//! Checks the addresses of `kafka.bootstrap_servers` while no broker answers. The client reports only that its brokers
//! are down. The findings show whether the name, the port or `security.protocol` is wrong.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// Time limit of a connection, and of each read of a response.
const LIMIT: Duration = Duration::from_secs(2);

/// An `ApiVersions` request of version 0, which every broker answers before authentication. Its client id contains an
/// HTTP request line, so that a web server rejects it with an HTTP response.
const REQUEST: &[u8] = b"\0\0\0\x20\0\x12\0\0\0\0\0\x01\0\x16keylane / HTTP/1.1\r\n\r\n";
/// The correlation id in the response, after the length.
const ANSWERED: [u8; 4] = [0, 0, 0, 1];

/// The finding at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressFinding {
    Kafka,
    Tls,
    WebServer,
    /// A server that accepts connections and answers with an unknown protocol, or not at all.
    UnknownServer,
    ConnectionRefused,
    UnresolvedName,
    NoAnswer,
}

/// Checks each address. Connections and reads have a time limit; name resolution has none. `is_tls`: the client is
/// configured for TLS. Returns the findings; `None`: a broker with the configured protocol answers at one of them.
pub(in crate::app) fn check(servers: &str, is_tls: bool) -> Option<String> {
    let mut findings = Vec::new();
    for server in servers.split(',').map(str::trim) {
        let address = server.split_once("://").map_or(server, |(_, address)| address);
        let found = probe_address(address);
        if found == (if is_tls { AddressFinding::Tls } else { AddressFinding::Kafka }) {
            return None;
        }
        findings.push(describe(address, found));
    }
    Some(findings.join("; "))
}

fn probe_address(address: &str) -> AddressFinding {
    let Ok(mut resolved) = address.to_socket_addrs() else { return AddressFinding::UnresolvedName };
    let Some(first) = resolved.next() else { return AddressFinding::UnresolvedName };
    let mut found = AddressFinding::NoAnswer;
    for at in std::iter::once(first).chain(resolved) {
        match TcpStream::connect_timeout(&at, LIMIT) {
            Ok(stream) => return probe(stream).unwrap_or(AddressFinding::UnknownServer),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                found = AddressFinding::ConnectionRefused
            }
            Err(_) => {}
        }
    }
    found
}

fn probe(mut stream: TcpStream) -> std::io::Result<AddressFinding> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(REQUEST)?;
    let mut answer = [0; 8];
    let mut length = 0;
    while let Some(rest) = answer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) | Err(_) => break,
            Ok(read) => length += read,
        }
    }
    let answer = answer.get(..length).unwrap_or_default();
    Ok(if answer.starts_with(b"HTTP/") {
        AddressFinding::WebServer
    } else if matches!(answer, [0x15 | 0x16, 0x03, ..]) {
        AddressFinding::Tls // an alert, or a handshake
    } else if answer.get(4..) == Some(&ANSWERED) {
        AddressFinding::Kafka
    } else {
        AddressFinding::UnknownServer
    })
}

fn describe(address: &str, found: AddressFinding) -> String {
    const SERVERS: &str = "`kafka.bootstrap_servers`";
    const PROTOCOL: &str = "`security.protocol` under [kafka.client]";
    match found {
        AddressFinding::Kafka => {
            format!("the broker at {address} does not use TLS: set {PROTOCOL} to PLAINTEXT or SASL_PLAINTEXT")
        }
        AddressFinding::Tls => {
            format!("the broker at {address} uses TLS: set {PROTOCOL} to SSL or SASL_SSL")
        }
        AddressFinding::WebServer => {
            format!("a web server answers at {address}: check the port in {SERVERS}")
        }
        AddressFinding::UnknownServer => {
            format!("the server at {address} does not answer as a broker: check {SERVERS} and {PROTOCOL}")
        }
        AddressFinding::ConnectionRefused => {
            format!("nothing listens at {address}: start the broker, or check {SERVERS}")
        }
        AddressFinding::UnresolvedName => {
            format!("the host name in {address} can't be resolved: check {SERVERS} and the DNS")
        }
        AddressFinding::NoAnswer => {
            format!("{address} does not answer: check {SERVERS} and the firewalls")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Returns the finding at a server that answers one request like this.
    fn found_at(answer: &'static [u8], is_tls: bool) -> Option<String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client connects");
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).expect("it sends a request");
            assert_eq!(request, REQUEST);
            stream.write_all(answer).expect("it reads the response");
        });
        let found = check(&format!("PLAINTEXT://{address}"), is_tls);
        server.join().expect("the server ends");
        found.map(|text| text.replace(&address, "ADDRESS"))
    }

    #[test]
    fn servers_are_distinguished_by_their_answers() {
        let kafka = b"\0\0\0\x20\0\0\0\x01\0\0\0\0";
        for (answer, is_tls, expected) in [
            (&kafka[..], false, None),
            (b"\x15\x03\x03\0\x02\x02\x46", true, None),
            (kafka, true, Some("the broker at ADDRESS does not use TLS: ")),
            (b"\x15\x03\x03\0\x02\x02\x46", false, Some("the broker at ADDRESS uses TLS: ")),
            (b"HTTP/1.1 400 Bad Request\r\n", false, Some("a web server answers at ADDRESS: ")),
            (b"220 mail ESMTP", false, Some("the server at ADDRESS does not answer as a broker: ")),
            (b"", false, Some("the server at ADDRESS does not answer as a broker: ")),
        ] {
            let found = found_at(answer, is_tls);
            let begins = found.as_deref().zip(expected).is_some_and(|(found, e)| found.starts_with(e));
            assert!(begins || found.is_none() && expected.is_none(), "{expected:?}: {found:?}");
        }
    }

    #[test]
    fn every_address_without_a_server_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let closed = listener.local_addr().expect("it listens").to_string();
        drop(listener);
        let found = check(&format!("{closed}, no-such-host.invalid:9092"), false).expect("no server answers");
        assert!(found.contains(&format!("nothing listens at {closed}: ")), "{found}");
        assert!(found.contains("the host name in no-such-host.invalid:9092 can't be resolved: "), "{found}");
    }

    #[test]
    fn the_request_has_the_right_length_field() {
        assert_eq!(REQUEST.len() - 4, 0x20);
    }
}
