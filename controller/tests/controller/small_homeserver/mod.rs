//! As much of a Matrix homeserver as a controller asks: whoami, by HTTP or HTTPS, with the answers that a test gives it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio_rustls::TlsAcceptor;

/// It ends when the value is dropped.
pub(crate) struct Homeserver {
    scheme: &'static str,
    address: SocketAddr,
    state: Arc<State>,
    runtime: Runtime,
}

#[derive(Default)]
struct State {
    /// What is said of each token.
    answers: Mutex<HashMap<String, (u16, String)>>,
    /// Tokens in the order in which they came.
    asked: Mutex<Vec<String>>,
    /// Of the last of them, who showed it.
    shown_by: Mutex<HeaderMap>,
    /// Every answer passes here.
    gate: RwLock<()>,
}

impl Homeserver {
    pub(crate) fn new() -> Self {
        Self::start("http", None)
    }

    /// One with a certificate and its key, PEM files.
    pub(crate) fn with_tls(certificate: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        Self::start("https", Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start(scheme: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        runtime.spawn(accept(listener, tls, Arc::clone(&state)));
        Self {
            scheme,
            address,
            state,
            runtime,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// What it says of `token` from then on; of all others, with 404 that it does not know the path.
    pub(crate) fn says(&self, token: &str, status: u16, body: &str) {
        let mut answers = self.state.answers.lock().unwrap();
        answers.insert(token.to_owned(), (status, body.to_owned()));
    }

    /// The tokens that it has been asked about.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }

    /// A header of the last question.
    pub(crate) fn shown_by(&self, header: &str) -> Option<String> {
        let headers = self.state.shown_by.lock().unwrap();
        let value = headers.get(header)?;
        Some(value.to_str().unwrap().to_owned())
    }

    /// Holds every answer back until the guard is dropped.
    pub(crate) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.runtime.block_on(self.state.gate.write())
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match tls {
                None => serve(stream, state).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(state.answer(&request).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    // A client that has gone is none of its business.
    drop(
        builder
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

impl State {
    async fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        let asks = (request.method().as_str(), request.uri().path());
        assert_eq!(asks, ("GET", "/_matrix/client/v3/account/whoami"));
        assert_eq!(request.uri().query(), None);
        let bearer = request.headers()["authorization"].to_str().unwrap();
        let token = bearer.strip_prefix("Bearer ").unwrap();
        self.asked.lock().unwrap().push(token.to_owned());
        request
            .headers()
            .clone_into(&mut self.shown_by.lock().unwrap());
        let _open = self.gate.read().await;
        let answer = self.answers.lock().unwrap().get(token).cloned();
        let (status, body) =
            answer.unwrap_or_else(|| (404, r#"{"errcode":"M_UNRECOGNIZED"}"#.to_owned()));
        Response::builder().status(status).body(body).unwrap()
    }
}
