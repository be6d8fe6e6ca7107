//! Opens connections, with and without TLS.

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

/// How long opening a connection may take, even if no request waits for it any more. A call's own deadline is usually
/// shorter.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// After this time without traffic the system probes the other side.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// The connect timeout of the request that needs a new connection.
    pub(super) static CONNECT_TIMEOUT: Option<Duration>;
    /// Set when a connection is opened for the request.
    pub(super) static OPENED: Arc<AtomicBool>;
}

/// The error of a connection that exceeded the guest's `connect-timeout`.
#[derive(Debug, thiserror::Error)]
#[error("connect timeout exceeded")]
pub(super) struct ConnectTimedOut;

/// A connector that opens connections within the connect timeout of the request that needs them.
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<HttpConnector>,
}

impl Connector {
    pub(super) fn new() -> Result<Connector, HttpClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false); // https also passes through this connector
        tcp.set_nodelay(true); // a request is written at once; waiting for more data would only delay it
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        let provider = Arc::new(ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpClientError::Tls { reason: error.to_string() })?
            .with_root_certificates(trusted())
            .with_no_client_auth();
        // HTTP/1.1 only: every service supports it, and a slow answer never blocks another.
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Connector { inner })
    }
}

/// Returns the certificates that the system trusts. Without any, only `https` fails, which a handler may not need.
fn trusted() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (used, _) = roots.add_parsable_certificates(found.certs);
    if used == 0 {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            reasons = reasons.join("; "),
            remedy = "install the package `ca-certificates`, or set SSL_CERT_FILE to a file of certificates",
            "no trusted certificates found; https requests of handlers will fail"
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
        // Both task-locals are read now, because a separate task finishes a connection that its request no longer
        // needs.
        let limit = CONNECT_TIMEOUT.try_get().ok().flatten();
        let _no_request = OPENED.try_with(|opened| opened.store(true, Ordering::Relaxed));
        let connecting = self.inner.call(uri);
        Box::pin(async move {
            match limit {
                Some(limit) => tokio::time::timeout(limit, connecting).await.map_err(|_| ConnectTimedOut)?,
                None => connecting.await,
            }
        })
    }
}
