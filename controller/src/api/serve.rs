//! What the HTTP and the gRPC listener share: TLS, HTTP/1.1 and HTTP/2, and the bounds that keep slow, idle or many strangers
//! from holding the controller.
//!
//! It owns connections, not their meaning: a request goes to the router as it is, with the caller's address as an
//! extension.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::client_ca::{ClientCa, Shown};
use super::tls::ALPN_H2;
use crate::door::{Door, stopped};
use crate::metrics::Metrics;

/// Connections of one listener at a time; more are closed as soon as they are accepted.
const MAX_CONNECTIONS: usize = 8192;
/// From the acceptance of a connection to the end of its TLS handshake, or to its first bytes.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Of these, one address may have so many.
const MAX_OF_ONE_ADDRESS: usize = MAX_CONNECTIONS / 8;
/// For the header of an HTTP/1.1 request, and the longest rest between two requests of callers, by either version.
const REST_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's header.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// What requests in flight get when the listener stops.
const STOP_GRACE: Duration = Duration::from_millis(250);

/// What a listener speaks, with the HTTP/2 keepalive that its callers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// HTTP/1.1 and HTTP/2.
    Http,
    /// HTTP/2 alone, with a keepalive that notices a dead relay within six seconds.
    Grpc,
}

impl Protocols {
    /// The name in logs and metric labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    fn keepalive(self) -> (Duration, Duration) {
        match self {
            Self::Http => (Duration::from_secs(20), Duration::from_secs(10)),
            Self::Grpc => (Duration::from_secs(2), Duration::from_secs(4)),
        }
    }
}

/// Where a request came from; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Its address, with IPv4 in its own form.
    pub(crate) ip: IpAddr,
    /// Whether it is on this machine: it has a loopback address, or the one that it called.
    pub(crate) is_here: bool,
}

impl Caller {
    fn of(stream: &TcpStream, from: SocketAddr) -> Self {
        let ip = from.ip().to_canonical();
        let called = stream.local_addr().map(|called| called.ip().to_canonical());
        Self {
            ip,
            is_here: ip.is_loopback() || called.is_ok_and(|called| called == ip),
        }
    }
}

/// What answers the requests of a listener.
pub(crate) trait Answers:
    Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Answers for S where
    S: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A bound listener and what is served on it.
pub(crate) struct Endpoint<S> {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Who signs certificates that callers may show.
    pub(crate) client_ca: Option<Arc<ClientCa>>,
    pub(crate) protocols: Protocols,
    pub(crate) service: S,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `stop` says so or its sender is gone; then requests in flight get a moment to end.
pub(crate) async fn serve<S: Answers>(endpoint: Endpoint<S>, mut stop: watch::Receiver<bool>) {
    let Endpoint {
        listener,
        tls,
        client_ca,
        protocols,
        service,
        metrics,
    } = endpoint;
    let acceptor = tls.map(TlsAcceptor::from);
    let bounds = (MAX_CONNECTIONS, MAX_OF_ONE_ADDRESS);
    let door = Door::new(protocols.name(), listener, bounds, metrics);
    let mut connections = JoinSet::new();
    while let Some((stream, from, seat)) = door.next(&mut connections, &mut stop).await {
        let connection = Connection {
            from,
            caller: Caller::of(&stream, from),
            client_ca: client_ca.clone(),
            protocols,
            service: service.clone(),
            stop: stop.clone(),
        };
        let run = connection.run(stream, acceptor.clone());
        connections.spawn(async move {
            run.await;
            drop(seat);
        });
    }
    drop(door);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    drop(tokio::time::timeout(STOP_GRACE, all_ended).await);
}

/// The two versions of HTTP that a connection can carry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

struct Connection<A> {
    from: SocketAddr,
    caller: Caller,
    client_ca: Option<Arc<ClientCa>>,
    protocols: Protocols,
    service: A,
    stop: watch::Receiver<bool>,
}

impl<A: Answers> Connection<A> {
    /// Opens the connection within its time and serves it to its end.
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Answers are small and whole; waiting to fill a segment only delays them.
        drop(stream.set_nodelay(true));
        let opening = tokio::time::timeout(OPENING_TIMEOUT, self.open(stream, acceptor));
        match opening.await {
            Ok(Ok(Opened::Plain(stream, version))) => self.serve(stream, version, None).await,
            Ok(Ok(Opened::Tls(stream, version))) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let ca = self.client_ca.as_ref();
                let shown = ca.and_then(|ca| ca.judge(certificates));
                self.serve(stream, version, shown).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(listener = self.protocols.name(), from = %self.from, %error, "connection not opened");
            }
            Err(_) => {
                tracing::debug!(listener = self.protocols.name(), from = %self.from, "connection opened too slowly");
            }
        }
    }

    /// Finds out which version of HTTP is spoken: by ALPN within TLS, by the first bytes without.
    async fn open(
        &self,
        stream: TcpStream,
        acceptor: Option<TlsAcceptor>,
    ) -> std::io::Result<Opened> {
        let Some(acceptor) = acceptor else {
            let version = self.first_bytes(&stream).await?;
            return Ok(Opened::Plain(stream, version));
        };
        let stream = acceptor.accept(stream).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
        let version = match self.protocols {
            Protocols::Http if !h2 => Version::Http1,
            Protocols::Http | Protocols::Grpc => Version::Http2,
        };
        Ok(Opened::Tls(Box::new(stream), version))
    }

    /// Tells HTTP/2 with prior knowledge by the first bytes of its preface, which no HTTP/1.1 method shares.
    async fn first_bytes(&self, stream: &TcpStream) -> std::io::Result<Version> {
        let mut first = [0; 3];
        let read = stream.peek(&mut first).await?;
        match self.protocols {
            Protocols::Http if &first[..read] != b"PRI" => Ok(Version::Http1),
            Protocols::Http | Protocols::Grpc => Ok(Version::Http2),
        }
    }

    async fn serve<S>(mut self, stream: S, version: Version, shown: Option<Shown>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let builder = builder(self.protocols, version);
        let (caller, service) = (self.caller, self.service);
        // HTTP/1.1 has a limit of its own, and the sessions of relays rest as long as they like.
        let counts = (self.protocols, version) == (Protocols::Http, Version::Http2);
        let (open, requests) = watch::channel(0);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(caller);
            if let Some(shown) = &shown {
                request.extensions_mut().insert(shown.clone());
            }
            let answer = service.clone().call(request);
            let open = counts.then(|| OpenRequest::count(&open));
            async move {
                let mut answer = answer.await.unwrap_or_else(|never| match never {});
                let is_long = answer.extensions_mut().remove::<LongAnswer>().is_some();
                Ok::<_, Infallible>(match open {
                    Some(open) if is_long => {
                        answer.map(|body| Body::new(Lasting { body, _open: open }))
                    }
                    Some(_) | None => answer,
                })
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = rested(requests, REST_TIMEOUT), if counts => {
                connection.as_mut().graceful_shutdown();
                // Answers that nobody reads go with the connection.
                tokio::time::timeout(REST_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(listener = self.protocols.name(), from = %self.from, %error, "connection ended");
        }
    }
}

/// An extension of answers that go on for as long as something happens: the connection does not rest meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongAnswer;

/// The body of such an answer, whose request is open to its end.
struct Lasting {
    body: Body,
    _open: OpenRequest,
}

impl hyper::body::Body for Lasting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
}

/// A request that is being answered.
struct OpenRequest(watch::Sender<usize>);

impl OpenRequest {
    fn count(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Waits until no request has been open for `rest`.
async fn rested(mut open: watch::Receiver<usize>, rest: Duration) {
    loop {
        match tokio::time::timeout(rest, open.changed()).await {
            Err(_) if *open.borrow() == 0 => return,
            Ok(Ok(())) | Err(_) => {}
            // The service has gone, and the connection with it.
            Ok(Err(_)) => std::future::pending().await,
        }
    }
}

enum Opened {
    Plain(TcpStream, Version),
    Tls(Box<TlsStream<TcpStream>>, Version),
}

/// One version only, because the automatic choice between the two has no time limit of its own.
fn builder(protocols: Protocols, version: Version) -> auto::Builder<TokioExecutor> {
    let (interval, timeout) = protocols.keepalive();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Answers are small: one buffer costs less than a list of parts.
        .writev(false)
        .header_read_timeout(REST_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .max_concurrent_streams(128)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).expect("16 KiB fit"));
    match version {
        Version::Http1 => builder.http1_only(),
        Version::Http2 => builder.http2_only(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_rests_when_no_request_is_open() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            const REST: Duration = Duration::from_millis(1);
            let (open, requests) = watch::channel(0);
            let request = OpenRequest::count(&open);
            let busy = rested(requests.clone(), REST);
            let ended = tokio::time::timeout(REST * 50, busy).await;
            assert!(ended.is_err(), "a request is open");
            drop(request);
            rested(requests, REST).await;
        });
    }
}
