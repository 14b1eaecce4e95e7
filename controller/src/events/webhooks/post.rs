//! One request to a receiver: the events as JSON, signed. Redirections are not followed: a receiver that moves is the
//! operator's to find.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::time::timeout;

use super::queue::LANES;
use super::signature::{HEADER, Signer};
use crate::StartError;
use crate::config::WebhookConfig;
use crate::error::chain;
use crate::events::event::{Event, to_json};
use crate::roots::roots;
use crate::wall_clock::since_epoch;

/// For a connection, without TLS.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection rests before it is closed.
const REST: Duration = Duration::from_secs(15);
/// Who the receiver sees.
const AGENT: &str = concat!("turnfleet/", env!("CARGO_PKG_VERSION"));
/// Which webhook of the configuration it is.
const NAME: &str = "turnfleet-webhook";

/// Sends to one receiver.
pub(super) struct Post {
    connections: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    url: Uri,
    signer: Signer,
    patience: Duration,
}

impl Post {
    /// To the receiver of `config`; the first request connects.
    ///
    /// # Errors
    /// When its authority cannot be used.
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, StartError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECTION_PATIENCE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let connections = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(REST)
            .pool_max_idle_per_host(LANES)
            .build(connector);
        Ok(Self {
            connections,
            url: config.url.clone(),
            signer: Signer::new(config.secret.expose()),
            patience: config.timeout,
        })
    }

    /// Sends `events` as the webhook `name`. Only a status of the 200s means that the receiver has them.
    ///
    /// # Errors
    /// With what happened instead.
    pub(super) async fn send(&self, name: &str, events: &[Arc<Event>]) -> Result<(), String> {
        let events: Vec<_> = events.iter().map(|event| to_json(event)).collect();
        let body = json!({ "events": events }).to_string().into_bytes();
        let signature = self.signer.sign(since_epoch().as_secs(), &body);
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let plain = |text: &str| HeaderValue::try_from(text).expect("it is plain text");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(NAME, plain(name));
        headers.insert(HEADER, plain(&signature));
        match timeout(self.patience, self.connections.request(request)).await {
            Ok(Ok(answer)) => match answer.status() {
                status if status.is_success() => Ok(()),
                status => Err(refused(status)),
            },
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

fn refused(status: StatusCode) -> String {
    match status.is_redirection() {
        true => format!("it answered {status}, and redirections are not followed"),
        false => format!("it answered {status}"),
    }
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").finish_non_exhaustive()
    }
}

fn tls(config: &WebhookConfig) -> Result<ClientConfig, StartError> {
    let roots = match &config.ca {
        Some(ca) => roots(ca, "webhooks.ca")?,
        None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the cipher suites of TLS 1.2 and 1.3");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
