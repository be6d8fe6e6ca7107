//! The address that the server listens on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::ops::RangeInclusive;

/// The ports of the default address. Several processes on one machine take one each, in this order.
pub const DEFAULT_PORTS: RangeInclusive<u16> = 9277..=9286;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On the first free port of [`DEFAULT_PORTS`], on loopback.
    Default,
    /// On this address: `host:port`. Port 0 means any free port.
    At(String),
    /// Nowhere.
    Off,
}

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configured address can't be used.
    #[error("can't listen on `{address}`: {source}")]
    Address {
        /// The address, as configured.
        address: String,
        /// The error.
        source: io::Error,
    },
    /// The system refuses a resource, such as a thread.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Listen {
    /// Binds the address; `None`: the server is off. If every default port is taken, that is logged, and the server is
    /// off, because the default is not an explicit request.
    pub(crate) fn bind(&self) -> Result<Option<TcpListener>, StartError> {
        match self {
            Listen::Off => Ok(None),
            Listen::At(address) => {
                let bound = address.to_socket_addrs().and_then(bind_any).map(Some);
                bound.map_err(|source| StartError::Address { address: address.clone(), source })
            }
            Listen::Default => {
                let bound = bind_any(DEFAULT_PORTS.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
                if let Err(error) = &bound {
                    tracing::warn!(
                        %error,
                        first_port = DEFAULT_PORTS.start(),
                        last_port = DEFAULT_PORTS.end(),
                        remedy = "set `admin.listen` to a free address, or to \"off\"",
                        "no admin server: none of its default ports can be used"
                    );
                }
                Ok(bound.ok())
            }
        }
    }
}

/// Binds the first address that is free.
fn bind_any(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        }) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_takes_the_next_default_port() {
        let first = Listen::Default.bind().expect("the default never fails");
        let second = Listen::Default.bind().expect("the default never fails");
        let port = |listener: &Option<TcpListener>| {
            listener.as_ref().map(|listener| listener.local_addr().expect("it is bound").port())
        };
        assert!(port(&first).is_some_and(|port| DEFAULT_PORTS.contains(&port)));
        assert!(port(&second).is_some_and(|port| DEFAULT_PORTS.contains(&port)));
        assert_ne!(port(&first), port(&second));
    }

    #[test]
    fn a_configured_address_that_is_taken_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let address = taken.local_addr().expect("it is bound").to_string();
        let error = Listen::At(address.clone()).bind().expect_err("the address is taken").to_string();
        assert!(error.starts_with(&format!("can't listen on `{address}`: ")), "{error}");
        assert!(Listen::At("127.0.0.1:0".to_owned()).bind().expect("any free port").is_some());
        assert!(Listen::Off.bind().expect("off").is_none());
    }
}
