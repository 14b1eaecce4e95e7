//! The fleet's certificate from a certificate authority (ACME, RFC 8555): the controller that leads orders it, and the next one
//! in time, and keeps it in the store; sessions bring it to the relays, which answer the authority's challenges.
//!
//! [`schedule`] decides when, and is pure; [`order`] carries out one order, step by step, each kept in the store, so that the next
//! leader goes on with it. Nothing here listens, and nothing else speaks to an authority.

mod answer;
mod client;
mod fault;
mod order;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::StartError;
use crate::config::AcmeConfig;
use crate::error::FleetError;
use crate::fleet::issuance::{Attempt, Failure, to_text};
use crate::fleet::record::Setting;
use crate::fleet::{FleetView, NodeView, Transport};
use crate::metrics::Metrics;
use crate::reconcile::Handle;
use crate::wall_clock::since_epoch;
use client::Client;
use fault::{Fault, Reason};
use order::Ordering;
use schedule::Wanted;

/// How often it is looked whether an order is due.
const LOOK: Duration = Duration::from_secs(1);
/// For an order with all its steps, without the time that answers take to reach the relays.
const PATIENCE: Duration = Duration::from_secs(300);
/// The rest after the store did not take what has come of an order: nothing else keeps the authority from being asked every second.
const STORE_REST: Duration = Duration::from_secs(60);
/// The longest text of an authority that is kept.
const MAX_ERROR: usize = 500;

/// Orders certificates until it is stopped.
#[derive(Debug)]
pub(crate) struct Acme {
    task: JoinHandle<()>,
}

impl Acme {
    /// Orders what `config` asks for, whenever this controller leads.
    ///
    /// # Errors
    /// When the authority's root cannot be used.
    pub(crate) fn start(
        config: AcmeConfig,
        handle: Handle,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let client = Client::new(config.root.as_deref())?;
        let task = Task {
            config,
            handle,
            metrics,
            client,
        };
        let task = tokio::spawn(task.run());
        Ok(Self { task })
    }

    /// Reads the files that `config` names, and starts nothing.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn check(config: &AcmeConfig) -> Result<(), StartError> {
        Client::new(config.root.as_deref()).map(drop)
    }

    /// Stops; an order that is under way is gone on with later.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

struct Task {
    config: AcmeConfig,
    handle: Handle,
    metrics: Arc<Metrics>,
    client: Client,
}

impl Task {
    async fn run(self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = Wanted {
            directory: self.config.directory.clone(),
            names: self.config.domains.clone(),
        };
        loop {
            look.tick().await;
            let view = self.handle.view();
            let now = since_epoch().as_secs();
            let may = view.leads && !view.store_stale && is_answered_for(&view);
            if may && schedule::due(&wanted, &view.issuance, now) <= now {
                // Whoever leads next goes on, and two at a time would be in each other's way.
                tokio::select! {
                    () = self.work(&wanted) => {}
                    () = self.deposed() => tracing::info!("another controller leads, and goes on with the order"),
                }
            }
        }
    }

    /// Waits until this controller leads no longer.
    async fn deposed(&self) {
        let mut views = self.handle.changes();
        // A channel that is closed means that the controller stops.
        let _ = views.wait_for(|view| !view.leads).await;
    }

    async fn work(&self, wanted: &Wanted) {
        let mut ordering = Ordering::new(self, wanted);
        let patience = PATIENCE + self.config.spread;
        let ordered = timeout(patience, ordering.carry_out()).await;
        let outcome = ordered.unwrap_or_else(|_| Err(Fault::late()));
        let mut attempt = ordering.attempt;
        match outcome {
            Ok(()) => self.count("issued"),
            Err(Fault {
                reason: Reason::Store,
                error,
                ..
            }) => {
                tracing::warn!(error, "the order of a certificate waits for the store");
                sleep(STORE_REST).await;
            }
            Err(fault) => {
                self.count("failed");
                let reason = fault.reason.name();
                self.metrics
                    .acme
                    .failures
                    .with_label_values(&[reason])
                    .inc();
                self.note(&mut attempt, fault).await;
            }
        }
    }

    fn count(&self, outcome: &str) {
        self.metrics.acme.orders.with_label_values(&[outcome]).inc();
    }

    /// Keeps what has failed, and when it is tried again.
    async fn note(&self, attempt: &mut Attempt, fault: Fault) {
        let now = since_epoch().as_secs();
        let Fault {
            reason,
            error,
            ends_order,
            ends_account,
        } = fault;
        tracing::warn!(reason = reason.name(), error, "no certificate was issued");
        if ends_order {
            attempt.order = None;
        }
        attempt.failures = attempt.failures.saturating_add(1);
        let view = self.handle.view();
        let certificate = view.issuance.certificate.as_ref();
        let left = certificate.map(|it| it.not_after.saturating_sub(now));
        attempt.next_at = now + schedule::rest(attempt.failures, reason, left, chance());
        attempt.failure = Some(Failure {
            at: now,
            reason: reason.name().to_owned(),
            error: error.chars().take(MAX_ERROR).collect(),
        });
        let mut texts = vec![(Setting::AcmeAttempt, to_text(attempt))];
        if ends_account {
            // It reads as none.
            texts.push((Setting::AcmeAccount, String::new()));
        }
        if let Err(error) = self.keep(texts).await {
            tracing::warn!(%error, "what failed cannot be kept");
            sleep(STORE_REST).await;
        }
    }

    async fn keep(&self, texts: Vec<(Setting, String)>) -> Result<(), FleetError> {
        self.handle.keep_issuance(texts).await
    }
}

/// Whether there is a relay that can answer: without one, an order would fail. One with a certificate of its own is told nothing.
fn is_answered_for(view: &FleetView) -> bool {
    let takes = |node: &&Arc<NodeView>| node.connected && node.identity.takes_certificates;
    view.nodes.iter().filter(takes).any(|node| {
        let mut listeners = node.identity.listeners.iter();
        listeners.any(|listener| listener.transport == Transport::Tls)
    })
}

/// A number that nobody guesses; the same one where the system gives none, which spreads nothing.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
