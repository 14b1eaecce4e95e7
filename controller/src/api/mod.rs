//! What the controller says to the outside: HTTP for callers and people, gRPC for relay nodes.
//!
//! It reads the fleet's view and speaks to [`Handle`]; it never touches the store. A read or a credential is answered from
//! memory.

mod abuse;
mod actor;
mod app;
mod attention;
mod audit;
mod auth;
mod bans;
mod capacity;
mod capacity_history;
mod certificates;
mod client_ca;
mod cors;
mod credentials;
mod dashboard;
mod events;
mod explain;
mod fleet_service;
mod forwarded;
mod front;
mod gate;
mod http;
mod ice_servers;
mod join_tokens;
mod matrix;
mod minting;
mod node_actions;
mod nodes;
mod openapi;
mod operator;
mod own_token;
mod parameters;
mod policy_actions;
mod policy_talk;
mod ports;
mod rate;
mod route;
mod routes;
mod secrets;
mod serve;
mod status;
mod tenant_usage;
mod tenants;
mod tls;
mod tokens;
mod trace;
mod turn_rest;
mod usage;
mod values;
mod webhooks;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use turnfleet_proto::file_watch::FileWatcher;
use turnfleet_proto::fleet::relay_control_server::RelayControlServer;

pub use openapi::document as openapi_document;

use crate::StartError;
use crate::config::{Config, ListenerConfig};
use crate::events::Overruns;
use crate::metrics::Metrics;
use crate::peers::{PeerService, PeerSettings, PeerToken};
use crate::reconcile::Handle;
use crate::traces::{Journals, Tracer};
use client_ca::ClientCa;
use fleet_service::FleetService;
pub(crate) use fleet_service::bearer;
use forwarded::Proxies;
use front::Front;
use gate::Gate;
use matrix::Matrix;
use minting::Minting;
pub(crate) use rate::TokenBucket;
use serve::{Endpoint, Protocols, serve};
use tls::Tls;
pub(crate) use usage::tenant_name;

/// The running listeners.
#[derive(Debug)]
pub(crate) struct Api {
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    stop: watch::Sender<bool>,
    servers: [JoinHandle<()>; 2],
    /// Replace the certificates of the listeners, and the authority of relays.
    _watchers: [Option<FileWatcher>; 3],
}

/// The HTTP listener of a controller that starts. Dropping it closes the listener.
pub(crate) struct Entrance {
    address: SocketAddr,
    gate: Arc<OnceLock<Front>>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    watcher: Option<FileWatcher>,
    metrics: Arc<Metrics>,
}

impl Entrance {
    /// Binds the HTTP listener, and says there that the controller lives and is not ready.
    ///
    /// # Errors
    /// When the address cannot be bound or the certificate cannot be used.
    pub(crate) async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let (listener, address) = bind(&config.http, "http.address").await?;
        let alpn = [tls::ALPN_H2, tls::ALPN_HTTP1];
        let tls = secure(&config.http, "http.tls", &alpn, None)?;
        let (service, gate) = Gate::closed();
        let (stop, stopped) = watch::channel(false);
        let endpoint = Endpoint {
            listener,
            tls: tls.as_ref().map(|tls| Arc::clone(&tls.config)),
            client_ca: None,
            protocols: Protocols::Http,
            service,
            metrics: Arc::clone(&metrics),
        };
        Ok(Self {
            address,
            gate,
            stop,
            server: tokio::spawn(serve(endpoint, stopped)),
            watcher: tls.and_then(|tls| tls.watcher),
            metrics,
        })
    }
}

impl Api {
    /// Binds the gRPC listener and serves on it, and opens the HTTP listener of `entrance` to the whole API.
    ///
    /// # Errors
    /// When the address cannot be bound or a certificate cannot be used.
    pub(crate) async fn start(
        config: &Config,
        entrance: Entrance,
        (handle, overruns): (&Handle, &Arc<Overruns>),
        (peers, journals): (PeerSettings, Journals),
    ) -> Result<Self, StartError> {
        let metrics = entrance.metrics;
        let http_address = entrance.address;
        let (grpc, grpc_address) = bind(&config.grpc, "grpc.address").await?;
        let client_ca = config.relay_certificates.ca.as_deref();
        let client_ca = client_ca.map(ClientCa::load).transpose()?.map(Arc::new);
        let ca_watcher = client_ca.as_ref().map(ClientCa::watch).transpose()?;
        let grpc_tls = secure(
            &config.grpc,
            "grpc.tls",
            &[tls::ALPN_H2],
            client_ca.as_ref(),
        )?;
        let guard = Arc::new(auth::Guard::new(Arc::clone(&metrics)));
        let peer_token = peers.token.clone();
        let tracer = Tracer::new(handle.clone(), journals.clone(), peers);
        let matrix = config.matrix.as_ref();
        let matrix = matrix.map(|it| Matrix::new(it, Arc::clone(&metrics)));
        let app = Arc::new(app::Parts {
            handle: handle.clone(),
            tracer: tracer.clone(),
            metrics: Arc::clone(&metrics),
            guard: Arc::clone(&guard),
            minting: Minting::new(Arc::clone(overruns)),
            matrix: matrix.transpose()?,
            proxies: Proxies::new(config.trusted_proxies.clone()),
            default_ttl: config.credential_ttl.as_secs(),
            open_metrics: http_address.ip().is_loopback(),
        });
        let router = http::router(app.clone(), cors::Origins::new(&config.cors_origins));
        // It was closed until here.
        let _ = entrance.gate.set(Front::new(app, router));
        let nodes = FleetService::server(
            handle.clone(),
            Arc::clone(&metrics),
            journals,
            &config.relay_certificates,
        );
        let grpc = Endpoint {
            listener: grpc,
            tls: grpc_tls.as_ref().map(|tls| Arc::clone(&tls.config)),
            client_ca,
            protocols: Protocols::Grpc,
            service: grpc_router((handle.clone(), tracer), guard, peer_token, nodes),
            metrics,
        };
        let stop = entrance.stop;
        let servers = [entrance.server, tokio::spawn(serve(grpc, stop.subscribe()))];
        Ok(Self {
            http_address,
            grpc_address,
            stop,
            servers,
            _watchers: [
                entrance.watcher,
                grpc_tls.and_then(|tls| tls.watcher),
                ca_watcher,
            ],
        })
    }

    /// Where HTTP is served.
    pub(crate) fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where gRPC is served.
    pub(crate) fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Closes the listeners; requests in flight get a moment, control sessions end.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        for server in self.servers {
            // A server that panicked has stopped as well.
            drop(server.await);
        }
    }
}

/// What relay nodes, other controllers and operators' programs speak to.
fn grpc_router(
    (handle, tracer): (Handle, Tracer),
    guard: Arc<auth::Guard>,
    peer_token: PeerToken,
    nodes: RelayControlServer<FleetService>,
) -> axum::Router {
    let peers = PeerService::server(handle.clone(), peer_token, tracer.journals().clone());
    let operators = operator::OperatorService::server(handle, tracer, guard);
    tonic::service::Routes::new(nodes)
        .add_service(peers)
        .add_service(operators)
        .prepare()
        .into_axum_router()
}

fn secure(
    listener: &ListenerConfig,
    key: &'static str,
    alpn: &[&[u8]],
    client_ca: Option<&Arc<ClientCa>>,
) -> Result<Option<Tls>, StartError> {
    let files = listener.tls.as_ref();
    files
        .map(|files| Tls::new(files, key, alpn, client_ca))
        .transpose()
}

/// The files of the API that cannot be used.
pub(crate) fn check(config: &Config) -> Vec<StartError> {
    let listeners = [(&config.http, "http.tls"), (&config.grpc, "grpc.tls")];
    let files = listeners
        .into_iter()
        .filter_map(|(listener, key)| Some((listener.tls.as_ref()?, key)));
    let client_ca = config.relay_certificates.ca.as_deref();
    let matrix = config.matrix.as_ref();
    files
        .filter_map(|(files, key)| tls::load(files, key).err())
        .chain(client_ca.and_then(|ca| ClientCa::load(ca).err()))
        .chain(matrix.and_then(|matrix| Matrix::check(matrix).err()))
        .collect()
}

async fn bind(
    config: &ListenerConfig,
    key: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = config.address;
    let failed = |source| StartError::Bind {
        key,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
