//! Opens connections: plain ones, and such with TLS.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::client::HttpClientError;

/// For a connection that nobody waits for any more. A call's own deadline is usually shorter.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// After so long without traffic the system asks whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// What the request that needs a new connection allows for it.
    pub(super) static CONNECT_TIMEOUT: Option<Duration>;
    /// Set when a connection is opened for the request.
    pub(super) static OPENED: Arc<AtomicBool>;
}

/// A guest's `connect-timeout` was over.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub(super) struct TookTooLong;

/// Opens connections within the time of the request that asks for them.
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<HttpConnector>,
}

impl Connector {
    pub(super) fn new() -> Result<Connector, HttpClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false); // the same connector carries https
        tcp.set_nodelay(true); // a request is written in one go; what waits for more would only be late
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        let provider = Arc::new(ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpClientError::Tls { reason: error.to_string() })?
            .with_root_certificates(trusted())
            .with_no_client_auth();
        // HTTP/1.1 only: every service speaks it, and one slow answer never holds up another.
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Connector { inner })
    }
}

/// The certificates that the system trusts. Without any, only `https` fails: a handler may need none.
fn trusted() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (used, _) = roots.add_parsable_certificates(found.certs);
    if used == 0 {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            reasons = reasons.join("; "),
            "no trusted certificates are on this machine: https requests of handlers will fail; install \
             the package `ca-certificates`, or name a file of certificates with SSL_CERT_FILE"
        );
    }
    roots
}

type Connecting = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;
type Connection = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        // Asked now: a connection that its request no longer needs is finished by a task of its own.
        let limit = CONNECT_TIMEOUT.try_get().ok().flatten();
        let _nobody_asks = OPENED.try_with(|opened| opened.store(true, Ordering::Relaxed));
        let connecting = self.inner.call(uri);
        Box::pin(async move {
            match limit {
                Some(limit) => tokio::time::timeout(limit, connecting).await.map_err(|_| TookTooLong)?,
                None => connecting.await,
            }
        })
    }
}
