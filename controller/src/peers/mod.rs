//! The other controllers of the fleet: each is followed, and what it sees is folded into this one's fleet; and each may follow
//! this one. A question to the journals of nodes goes to the controller that has their sessions.
//!
//! Who they are stands in the store, and so in the view; that they speak for the fleet they prove by a token that only holders
//! of the store's key can make. A controller that cannot be reached costs nothing but its sight: its relays fall silent here
//! unless they come here.

mod ask;
mod events;
mod follow;
mod service;
mod token;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::fleet::{ControllerId, FleetView};
use crate::metrics::Metrics;
use crate::reconcile::Handle;

pub(crate) use ask::trace;
pub(crate) use service::PeerService;
pub(crate) use token::PeerToken;

/// Follows every other controller.
#[derive(Debug)]
pub(crate) struct Peers(JoinHandle<()>);

/// What following takes.
#[derive(Clone)]
pub(crate) struct PeerSettings {
    /// The name of this controller.
    pub(crate) own: ControllerId,
    /// What proves that it is one of the fleet's.
    pub(crate) token: PeerToken,
    /// The authority that certificates of others are checked against; the system's where there is none.
    pub(crate) ca: Option<PathBuf>,
    /// The name that these certificates are for; the host of the address where there is none.
    pub(crate) name: Option<String>,
}

impl Peers {
    pub(crate) fn start(settings: PeerSettings, handle: Handle, metrics: Arc<Metrics>) -> Self {
        Self(tokio::spawn(run(settings, handle, metrics)))
    }

    pub(crate) fn stop(self) {
        self.0.abort();
    }
}

/// Keeps one follower for each of the others that the view names.
async fn run(settings: PeerSettings, handle: Handle, metrics: Arc<Metrics>) {
    let mut views: watch::Receiver<Arc<FleetView>> = handle.changes();
    let mut running = JoinSet::new();
    let mut followed = HashMap::new();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let others = || {
            let all = view.controllers.iter();
            all.filter(|other| other.id != settings.own && !other.grpc.is_empty())
        };
        followed.retain(
            |(id, address): &(ControllerId, Arc<str>), task: &mut tokio::task::AbortHandle| {
                let stays = others().any(|other| other.id == *id && other.grpc == *address);
                if !stays {
                    task.abort();
                }
                stays
            },
        );
        for other in others() {
            followed
                .entry((Arc::clone(&other.id), Arc::clone(&other.grpc)))
                .or_insert_with(|| {
                    let (settings, handle) = (settings.clone(), handle.clone());
                    let metrics = Arc::clone(&metrics);
                    let told = events::follow(settings.clone(), other.clone(), handle.clone());
                    let seen = follow::follow(settings, other.clone(), handle, metrics);
                    running.spawn(async {
                        tokio::join!(told, seen);
                    })
                });
        }
        // Tasks end only by being aborted.
        while running.try_join_next().is_some() {}
        if views.changed().await.is_err() {
            return;
        }
    }
}
