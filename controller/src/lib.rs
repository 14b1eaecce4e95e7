//! The controller: the fleet's state, its store, its APIs and the lists of healthy relays.
//!
//! ```text
//!  relays --gRPC--> api ----\                       /--> store (one file, watched)
//!  callers --HTTP-> api <-- view <-- reconcile (Fleet, the only writer)
//!                   probe --/
//! ```
//!
//! [`fleet`] is pure: it folds what happened and plans what to write, without clock, I/O or tokio. [`reconcile`] owns it in one
//! task and is the only writer of the [`store`]. `api` and `probe` speak to [`reconcile::Handle`] and read the published
//! [`fleet::FleetView`]; they never see the store. What the store holds is desired state; who lives is known from sessions
//! and probes only, and is never written.

mod api;
pub mod config;
mod error;
pub mod fleet;
mod metrics;
mod peers;
mod probe;
pub mod reconcile;
pub mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::private_file;

use api::Api;
use config::{ApiTokenConfig, Config};
use fleet::record::{ApiToken, Setting, token_hash};
use fleet::{FleetView, Settings, Wishes};
use metrics::Metrics;
pub use metrics::{MetricReference, metric_reference};
use peers::{PeerSettings, PeerToken, Peers};
use probe::Prober;
use reconcile::{Handle, Reconciler};
use store::{EmbeddedStore, Sealer};

pub use error::{FleetError, StartError};

/// The key file in the state directory.
const KEY_FILE: &str = "store.key";
/// The file there with the API token that the controller made.
const API_TOKEN_FILE: &str = "api-token";
/// The file there with the join token.
const JOIN_TOKEN_FILE: &str = "join-token";

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    api: Api,
    prober: Prober,
    peers: Peers,
    handle: Handle,
    stop: watch::Sender<bool>,
    reconciler: JoinHandle<()>,
    api_token: String,
    join_token: String,
    state_dir: PathBuf,
}

impl Controller {
    /// Opens the store, brings it in line with the configuration, and serves.
    ///
    /// # Errors
    /// When the state directory cannot be used, or a listener cannot be bound; the error names the directory, or the address
    /// and its key.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let dir = config.state_dir.clone();
        let failed = |source: store::StoreError| StartError::Store {
            dir: dir.clone(),
            source,
        };
        let key_file = dir.join(KEY_FILE);
        let fresh_store = !store::exists(&dir);
        store::make_state_dir(&dir).map_err(&failed)?;
        let sealer = Sealer::open(&key_file, fresh_store).map_err(|error| failed(error.into()))?;
        let peer_token = PeerToken::of(&sealer);
        let store = EmbeddedStore::open(&dir).await.map_err(&failed)?;
        let settings = Settings {
            region: config.region.clone(),
            ports: config.ports,
            probing: config.probe.enabled,
        };
        for warning in config.warnings() {
            tracing::warn!(key = warning.key, "{}", warning.message);
        }
        let wishes = wishes(&config);
        let (reconciler, handle) = Reconciler::open(Arc::new(store), sealer, settings, &wishes)
            .await
            .map_err(|source| StartError::Fleet {
                dir: dir.clone(),
                source,
            })?;
        let kept = |setting| {
            reconciler
                .fleet()
                .kept(setting)
                .unwrap_or_default()
                .to_owned()
        };
        let api_token = kept(Setting::ApiToken);
        let join_token = wishes
            .join_token
            .unwrap_or_else(|| kept(Setting::JoinToken));
        hand_out(&dir.join(API_TOKEN_FILE), &api_token, "an API token")?;
        hand_out(&dir.join(JOIN_TOKEN_FILE), &join_token, "the join token")?;
        let (stop, stopped) = watch::channel(false);
        let metrics = Arc::new(Metrics::new());
        let api = Api::start(
            &config,
            handle.clone(),
            peer_token.clone(),
            Arc::clone(&metrics),
        )
        .await?;
        let prober = Prober::start(&config.probe, handle.clone(), Arc::clone(&metrics))?;
        let peers = PeerSettings {
            own: "".into(),
            token: peer_token,
            ca: None,
        };
        let peers = Peers::start(peers, handle.clone(), metrics);
        let reconciler = tokio::spawn(reconciler.run(stopped));
        Ok(Self {
            api,
            prober,
            peers,
            handle,
            stop,
            reconciler,
            api_token,
            join_token,
            state_dir: config.state_dir,
        })
    }

    /// Reads the files that `config` names, as [`Self::start`] does, and starts nothing.
    ///
    /// # Errors
    /// With every file that cannot be used.
    pub fn check(config: &Config) -> Result<(), Vec<StartError>> {
        let mut errors = api::check(config);
        errors.extend(Prober::check(&config.probe));
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
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
        self.state_dir.join(KEY_FILE)
    }

    /// The file that holds [`Self::api_token`], for the operator's command.
    #[must_use]
    pub fn api_token_file(&self) -> PathBuf {
        self.state_dir.join(API_TOKEN_FILE)
    }

    /// The file that holds [`Self::join_token`], to be brought to the relays.
    #[must_use]
    pub fn join_token_file(&self) -> PathBuf {
        self.state_dir.join(JOIN_TOKEN_FILE)
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
        self.api.stop().await;
        self.stop.send_replace(true);
        // One that panicked has stopped as well.
        drop(self.reconciler.await);
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

fn wishes(config: &Config) -> Wishes {
    let token = |given: &ApiTokenConfig| {
        let (name, scopes) = (given.name.clone(), given.scopes.clone());
        (token_hash(given.token.expose()), ApiToken { name, scopes })
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
    }
}
