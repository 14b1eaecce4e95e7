//! The controller: the fleet's state, its store, its APIs and the lists of healthy relays.
//!
//! ```text
//!  relays --gRPC--> api ----\                       /--> store (one file, or etcd; watched)
//!  callers --HTTP-> api <-- view <-- reconcile (Fleet, the only writer)
//!                   probe --/
//!  resolvers -DNS-> dns <-- view
//! ```
//!
//! [`fleet`] is pure: it folds what happened and plans what to write, without clock, I/O or tokio. [`reconcile`] owns it in one
//! task and is the only writer of the [`store`]. `api` and `probe` speak to [`reconcile::Handle`] and read the published
//! [`fleet::FleetView`]; they never see the store. What the store holds is desired state; who lives is known from sessions
//! and probes only, and is never written. Of several controllers on one etcd, [`leader`] names the one that does what only one
//! may do.

pub mod abuse;
mod acme;
mod api;
pub mod config;
pub mod dns;
mod door;
mod error;
pub mod events;
pub mod fleet;
pub mod leader;
pub mod maintenance;
mod metrics;
mod peers;
mod probe;
pub mod reconcile;
mod roots;
mod seats;
pub mod store;
mod traces;
pub mod usage;
mod wall_clock;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::private_file;

use abuse::Watch;
use acme::Acme;
pub use api::openapi_document;
use api::{Api, Entrance};
use config::{AcmeConfig, ApiTokenConfig, Config};
use dns::Responder;
use events::{EventBus, Overruns, Privacy, Webhooks};
use fleet::record::{ApiToken, ControllerRecord, Setting, token_hash};
use fleet::{FleetView, Settings, Wishes};
use leader::Leadership;
use metrics::Metrics;
pub use metrics::{METRIC_LABELS, MetricReference, metric_reference};
use peers::{PeerSettings, PeerToken, Peers};
use probe::Prober;
use reconcile::{Handle, Reconciler};
use store::{EtcdStore, MeteredStore, Store, StoreError, open};
use traces::Journals;
use usage::keeper::Keeper;

pub use error::{FleetError, ReloadError, StartError};

/// The file there with the API token that the controller made.
const API_TOKEN_FILE: &str = "api-token";
/// The file there with the join token.
const JOIN_TOKEN_FILE: &str = "join-token";

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    api: Api,
    dns: Option<Responder>,
    prober: Prober,
    peers: Peers,
    keeper: Keeper,
    handle: Handle,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    started_with: Config,
    stop: watch::Sender<bool>,
    reconciler: JoinHandle<()>,
    election: Option<JoinHandle<()>>,
    announcer: JoinHandle<()>,
    webhooks: JoinHandle<()>,
    abuse: Watch,
    acme: Option<Acme>,
    api_token: String,
    join_token: String,
}

impl Controller {
    /// Opens the store, brings it in line with the configuration, and serves. Waits for an etcd that does not answer, and
    /// says so at the HTTP listener meanwhile.
    ///
    /// # Errors
    /// When the state directory cannot be used, or a listener cannot be bound; the error names the directory, or the address
    /// and its key.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let dir = config.state_dir.clone();
        for warning in config.warnings() {
            tracing::warn!(key = warning.key, "{}", warning.message);
        }
        let wishes = wishes(&config);
        let metrics = Arc::new(Metrics::new());
        let entrance = Entrance::open(&config, Arc::clone(&metrics)).await?;
        let (store, (peer_token, journals), reconciler, handle) =
            open_fleet(&config, &wishes, &metrics).await?;
        let fleet = reconciler.fleet();
        let kept = |setting| fleet.kept(setting).unwrap_or_default().to_owned();
        let api_token = kept(Setting::ApiToken);
        let join_token = wishes
            .join_token
            .unwrap_or_else(|| kept(Setting::JoinToken));
        hand_out(&dir.join(API_TOKEN_FILE), &api_token, "an API token")?;
        hand_out(&dir.join(JOIN_TOKEN_FILE), &join_token, "the join token")?;
        let (stop, stopped) = watch::channel(false);
        let webhooks = Webhooks::new(&config.webhooks)?;
        handle.events().deliver_by(webhooks.clone());
        let peers = peer_settings(&config, peer_token);
        let journals = (peers.clone(), journals);
        let overruns = Overruns::new(handle.events().clone(), Arc::clone(&metrics));
        let api = Api::start(&config, entrance, (&handle, &overruns), journals).await?;
        let responder = |dns| Responder::start(dns, handle.changes(), &metrics);
        let dns = config.dns.as_ref().map(responder).transpose()?;
        let prober = Prober::start(&config.probe, handle.clone(), Arc::clone(&metrics))?;
        let peers = Peers::start(peers, handle.clone(), Arc::clone(&metrics));
        let (leadership, election) = if config.store.etcd.is_some() {
            let (term, told) = watch::channel(None);
            let me = controller_record(&config, &api);
            let election = leader::stand(Arc::clone(&store), me, term, stopped.clone());
            (Leadership::Elected(told), Some(tokio::spawn(election)))
        } else {
            (Leadership::Sole, None)
        };
        let keeper = Keeper::start(&handle, leadership.clone());
        let reconciler = reconciler.with_leadership(leadership);
        let reconciler = tokio::spawn(reconciler.run(stopped));
        let announcer = announce(&handle, overruns);
        let abuse = Watch::start((&config).into(), handle.clone(), Arc::clone(&metrics));
        let order =
            |acme: &AcmeConfig| Acme::start(acme.clone(), handle.clone(), Arc::clone(&metrics));
        let acme = config.acme.as_ref().map(order).transpose()?;
        Ok(Self {
            api,
            dns,
            prober,
            peers,
            keeper,
            handle,
            store,
            metrics,
            stop,
            reconciler,
            election,
            announcer,
            webhooks: tokio::spawn(webhooks.deliver()),
            abuse,
            acme,
            api_token,
            join_token,
            started_with: config,
        })
    }

    /// Reads the files that `config` names, as [`Self::start`] does, and starts nothing.
    ///
    /// # Errors
    /// With every file that cannot be used.
    pub fn check(config: &Config) -> Result<(), Vec<StartError>> {
        let mut errors = api::check(config);
        errors.extend(Prober::check(&config.probe));
        errors.extend(Webhooks::new(&config.webhooks).err());
        let acme = config.acme.as_ref().map(Acme::check);
        errors.extend(acme.and_then(Result::err));
        let etcd = config.store.etcd.as_ref().map(EtcdStore::check);
        errors.extend(etcd.and_then(Result::err).map(StartError::Etcd));
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// Takes over what `config` says of policy, users, secrets, tokens and the rules of abuse. A changed policy begins a rollout.
    /// What else differs from the start, the listeners among it, is named in the log and waits for the next one; the filter of
    /// the log is the caller's to take over.
    ///
    /// # Errors
    /// When a file that it names cannot be used, or the store fails; nothing has changed then.
    pub async fn reload(&self, config: &Config) -> Result<(), ReloadError> {
        Self::check(config).map_err(ReloadError::Files)?;
        self.handle.reconfigure(wishes(config)).await?;
        self.abuse.configure(config);
        for key in self.started_with.kept_until_restart(config) {
            tracing::warn!(key, "has changed, and takes effect at the next start");
        }
        Ok(())
    }

    /// Counts a configuration that was read again.
    pub fn reloaded(&self, good: bool) {
        let outcome = if good { "good" } else { "refused" };
        self.metrics.reloads.with_label_values(&[outcome]).inc();
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.api.http_address()
    }

    /// Where relays connect.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.api.grpc_address()
    }

    /// Where DNS is served, in the order of the configuration.
    #[must_use]
    pub fn dns_addresses(&self) -> &[SocketAddr] {
        self.dns.as_ref().map_or(&[], Responder::addresses)
    }

    /// The API token that the controller made at its first start; it opens everything.
    #[must_use]
    pub fn api_token(&self) -> &str {
        &self.api_token
    }

    /// What a relay enrols with: the configured join token, or the one that was made at the first start.
    #[must_use]
    pub fn join_token(&self) -> &str {
        &self.join_token
    }

    /// The secret that credentials are minted with.
    #[must_use]
    pub fn shared_secret(&self) -> SharedSecret {
        self.handle.view().minting_secret().clone()
    }

    /// The file whose key opens the secrets of the store.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.started_with.store.key_file.clone()
    }

    /// The file that holds [`Self::api_token`], for the operator's command.
    #[must_use]
    pub fn api_token_file(&self) -> PathBuf {
        self.started_with.state_dir.join(API_TOKEN_FILE)
    }

    /// The file that holds [`Self::join_token`], to be brought to the relays.
    #[must_use]
    pub fn join_token_file(&self) -> PathBuf {
        self.started_with.state_dir.join(JOIN_TOKEN_FILE)
    }

    /// What is known of the fleet.
    #[must_use]
    pub fn view(&self) -> Arc<FleetView> {
        self.handle.view()
    }

    /// The same, for waiting for a change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<FleetView>> {
        self.handle.changes()
    }

    /// Speaks to the fleet's owner, as an operator.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Closes the listeners, ends every session, and closes the store.
    pub async fn stop(self) {
        self.prober.stop();
        self.peers.stop();
        self.announcer.abort();
        self.webhooks.abort();
        self.abuse.stop();
        if let Some(acme) = self.acme {
            acme.stop();
        }
        if let Some(dns) = self.dns {
            dns.stop().await;
        }
        self.keeper.stop();
        self.api.stop().await;
        self.stop.send_replace(true);
        // One that panicked has stopped as well.
        drop(self.reconciler.await);
        if let Some(election) = self.election {
            drop(election.await);
        }
        self.store.close().await;
    }
}

/// Tells what changes of nodes, secrets and quotas until it is aborted.
fn announce(handle: &Handle, overruns: Arc<Overruns>) -> JoinHandle<()> {
    let standing = events::announce(handle.clone(), handle.events().clone());
    let overruns = overruns.follow(handle.clone());
    tokio::spawn(async {
        tokio::join!(standing, overruns);
    })
}

/// What is made of the key that seals the store.
type Derived = (PeerToken, Journals);

/// Opens the store and reads the fleet from it, as often as it takes for an etcd that comes and goes.
async fn open_fleet(
    config: &Config,
    wishes: &Wishes,
    metrics: &Metrics,
) -> Result<(Arc<dyn Store>, Derived, Reconciler, Handle), StartError> {
    let settings = settings(config);
    let mut failures = 0;
    loop {
        let opened = open::open(config).await;
        let opened = opened.map_err(|source| store_error(config, source))?;
        let derived = (PeerToken::of(&opened.sealer), Journals::of(&opened.sealer));
        let privacy = config.privacy.then(|| Privacy::of(&opened.sealer));
        let metered = MeteredStore::new(opened.store, metrics.store.clone());
        let store: Arc<dyn Store> = Arc::new(metered);
        let fleet = Reconciler::open(Arc::clone(&store), opened.sealer, settings.clone(), wishes);
        match fleet.await {
            Ok((reconciler, handle)) => {
                let events = EventBus::new(config.controller.id.as_str(), privacy);
                let handle = handle.with_events(events);
                return Ok((store, derived, reconciler, handle));
            }
            Err(FleetError::Store(error)) if config.store.etcd.is_some() => {
                if !error.is_worth_waiting() {
                    return Err(StartError::Etcd(error));
                }
                let endpoints: Vec<String> = config
                    .store
                    .etcd
                    .iter()
                    .flat_map(|etcd| etcd.endpoints.clone())
                    .collect();
                open::tell(&endpoints, &error, failures);
                failures += 1;
                tokio::time::sleep(open::RETRY).await;
            }
            Err(source) => {
                let dir = config.state_dir.clone();
                return Err(StartError::Fleet { dir, source });
            }
        }
    }
}

fn store_error(config: &Config, source: StoreError) -> StartError {
    if config.store.etcd.is_some() {
        return StartError::Etcd(source);
    }
    StartError::Store {
        dir: config.state_dir.clone(),
        source,
    }
}

/// What this controller tells the others of itself.
fn controller_record(config: &Config, api: &Api) -> ControllerRecord {
    let or = |advertised: &String, address: SocketAddr| {
        if advertised.is_empty() {
            address.to_string()
        } else {
            advertised.clone()
        }
    };
    let grpc = or(&config.controller.grpc_address, api.grpc_address());
    let scheme = config.grpc.tls.as_ref().map_or("http", |_| "https");
    ControllerRecord {
        id: config.controller.id.clone(),
        grpc_url: format!("{scheme}://{grpc}"),
        http_address: or(&config.controller.http_address, api.http_address()),
        region: config.region.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn peer_settings(config: &Config, token: PeerToken) -> PeerSettings {
    let me = &config.controller;
    PeerSettings {
        own: me.id.as_str().into(),
        token,
        ca: me.peer_ca.clone(),
        name: me.peer_name.clone(),
    }
}

/// Leaves a token where the operator finds it: the store holds it sealed, and nothing else tells it.
fn hand_out(path: &Path, token: &str, what: &str) -> Result<(), StartError> {
    let written = private_file::write(path, format!("{token}\n").as_bytes());
    written.map_err(|source| StartError::File {
        path: path.to_owned(),
        source,
    })?;
    tracing::info!(path = %path.display(), "{what} is in this file");
    Ok(())
}

/// What the fleet does not learn from its store.
fn settings(config: &Config) -> Settings {
    Settings {
        region: config.region.clone(),
        ports: config.ports,
        probe: config.probe.mode,
        lists: config.lists.clone(),
        rotate_secrets_every: config.rotate_secrets_every,
    }
}

fn wishes(config: &Config) -> Wishes {
    let token = |given: &ApiTokenConfig| {
        let token = ApiToken {
            name: given.name.clone(),
            scopes: given.scopes.clone(),
            tenant: given.tenant.clone(),
            expires_at: None,
            by_operator: false,
        };
        (token_hash(given.token.expose()), token)
    };
    Wishes {
        policy: config.policy.clone(),
        users: config.users.clone(),
        shared_secret: config.shared_secret.clone(),
        join_token: config
            .join_token
            .as_ref()
            .map(|token| token.expose().to_owned()),
        api_tokens: config.api_tokens.iter().map(token).collect(),
        tenants: config.tenants.clone(),
    }
}
