//! What is at the addresses of `kafka.bootstrap_servers` while no broker answers. The client reports only that its brokers
//! are down; people need to know whether to mend a name, a port or `security.protocol`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// How long a connection, and an answer, may take.
const LIMIT: Duration = Duration::from_secs(2);

/// An `ApiVersions` request of version 0, which every broker answers before it asks who is there. Its client id makes it a
/// request of HTTP, too, though not a good one: a web server refuses it.
const REQUEST: &[u8] = b"\0\0\0\x20\0\x12\0\0\0\0\0\x01\0\x16keylane / HTTP/1.1\r\n\r\n";
/// The beginning of the answer: any length, then the number of the request.
const ANSWERED: [u8; 4] = [0, 0, 0, 1];

/// What was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddressFinding {
    Kafka,
    Tls,
    WebServer,
    /// It takes connections and says nothing that is known here.
    Stranger,
    Nobody,
    NoName,
    NoAnswer,
}

/// Looks at each address, which takes some seconds at most for each. `is_tls`: the client is configured for it. `None`:
/// some broker is as it should be.
pub(in crate::app) fn check(servers: &str, is_tls: bool) -> Option<String> {
    let mut findings = Vec::new();
    for server in servers.split(',').map(str::trim) {
        let address = server.split_once("://").map_or(server, |(_, address)| address);
        let found = find(address);
        if found == (if is_tls { AddressFinding::Tls } else { AddressFinding::Kafka }) {
            return None;
        }
        findings.push(describe(address, found));
    }
    Some(findings.join("; "))
}

fn find(address: &str) -> AddressFinding {
    let Ok(mut resolved) = address.to_socket_addrs() else { return AddressFinding::NoName };
    let Some(first) = resolved.next() else { return AddressFinding::NoName };
    let mut found = AddressFinding::NoAnswer;
    for at in std::iter::once(first).chain(resolved) {
        match TcpStream::connect_timeout(&at, LIMIT) {
            Ok(stream) => return ask(stream).unwrap_or(AddressFinding::Stranger),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => found = AddressFinding::Nobody,
            Err(_) => {}
        }
    }
    found
}

fn ask(mut stream: TcpStream) -> std::io::Result<AddressFinding> {
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
        AddressFinding::Tls // an alert, or a greeting
    } else if answer.get(4..) == Some(&ANSWERED) {
        AddressFinding::Kafka
    } else {
        AddressFinding::Stranger
    })
}

fn describe(address: &str, found: AddressFinding) -> String {
    const SERVERS: &str = "`kafka.bootstrap_servers`";
    const PROTOCOL: &str = "`security.protocol` under [kafka.client]";
    match found {
        AddressFinding::Kafka => {
            format!(
                "the broker at {address} speaks without TLS: set {PROTOCOL} to PLAINTEXT or SASL_PLAINTEXT"
            )
        }
        AddressFinding::Tls => {
            format!("the broker at {address} speaks TLS: set {PROTOCOL} to SSL or SASL_SSL")
        }
        AddressFinding::WebServer => {
            format!("a web server answers at {address}: see whether the port in {SERVERS} is right")
        }
        AddressFinding::Stranger => format!(
            "what listens at {address} does not answer as a broker: see whether {SERVERS} and {PROTOCOL} are right"
        ),
        AddressFinding::Nobody => {
            format!("nothing listens at {address}: start the broker, or see whether {SERVERS} is right")
        }
        AddressFinding::NoName => {
            format!(
                "the name in {address} is not known: see whether {SERVERS} is right, and the name service"
            )
        }
        AddressFinding::NoAnswer => {
            format!(
                "{address} does not answer: see whether {SERVERS} is right, and what the network lets through"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is found at a server that answers one request so.
    fn found_at(answer: &'static [u8], is_tls: bool) -> Option<String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client connects");
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).expect("it asks");
            assert_eq!(request, REQUEST);
            stream.write_all(answer).expect("it listens to the answer");
        });
        let found = check(&format!("PLAINTEXT://{address}"), is_tls);
        server.join().expect("the server ends");
        found.map(|text| text.replace(&address, "ADDRESS"))
    }

    #[test]
    fn what_answers_is_told_apart() {
        let kafka = b"\0\0\0\x20\0\0\0\x01\0\0\0\0";
        for (answer, is_tls, expected) in [
            (&kafka[..], false, None),
            (b"\x15\x03\x03\0\x02\x02\x46", true, None),
            (kafka, true, Some("the broker at ADDRESS speaks without TLS: ")),
            (b"\x15\x03\x03\0\x02\x02\x46", false, Some("the broker at ADDRESS speaks TLS: ")),
            (b"HTTP/1.1 400 Bad Request\r\n", false, Some("a web server answers at ADDRESS: ")),
            (b"220 mail ESMTP", false, Some("what listens at ADDRESS does not answer as a broker: ")),
            (b"", false, Some("what listens at ADDRESS does not answer as a broker: ")),
        ] {
            let found = found_at(answer, is_tls);
            let begins = found.as_deref().zip(expected).is_some_and(|(found, e)| found.starts_with(e));
            assert!(begins || found.is_none() && expected.is_none(), "{expected:?}: {found:?}");
        }
    }

    #[test]
    fn addresses_without_anybody_are_all_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let closed = listener.local_addr().expect("it listens").to_string();
        drop(listener);
        let found = check(&format!("{closed}, no-such-host.invalid:9092"), false).expect("nobody answers");
        assert!(found.contains(&format!("nothing listens at {closed}: ")), "{found}");
        assert!(found.contains("the name in no-such-host.invalid:9092 is not known: "), "{found}");
    }

    #[test]
    fn the_request_says_how_long_it_is() {
        assert_eq!(REQUEST.len() - 4, 0x20);
    }
}
