//! The connection to a certificate authority: HTTPS alone, with answers of bounded length.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::{AccountBuilder, BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::StartError;
use crate::roots::roots;

/// For a connection, without TLS.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);
/// For a request and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection rests before it is closed.
const REST: Duration = Duration::from_secs(15);
/// The longest answer: chains are the longest, of some ten kilobytes.
const MAX_ANSWER: usize = 256 << 10;

/// Speaks to one authority. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    connections: legacy::Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
}

impl Client {
    /// Trusts the authorities in the PEM file `root`, or the public ones where there is none.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub(super) fn new(root: Option<&Path>) -> Result<Self, StartError> {
        let roots = match root {
            Some(file) => roots(file, "acme.root_file")?,
            None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECTION_PATIENCE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(http);
        let connections = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(REST)
            .build(connector);
        Ok(Self { connections })
    }

    /// The way to an account.
    pub(super) fn account(&self) -> AccountBuilder {
        instant_acme::Account::builder_with_http(Box::new(self.clone()))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let answer = self.connections.request(request);
        Box::pin(async move {
            let whole = async {
                let answer = answer.await.map_err(|error| Error::Other(error.into()))?;
                let (parts, body) = answer.into_parts();
                let body = to_bytes(Body::new(body), MAX_ANSWER).await;
                let body = body.map_err(|error| Error::Other(error.into()))?;
                Ok(BytesResponse {
                    parts,
                    body: Box::new(body),
                })
            };
            let late = |_| Error::Str("an answer of the certificate authority in time");
            timeout(PATIENCE, whole).await.map_err(late)?
        })
    }
}
