//! Webhooks: what was heard here is posted to the receivers that the configuration names.
//!
//! At least once, and those of one allocation in their order. The controller that holds the session of a relay delivers what
//! that relay tells, and each what it publishes itself. What waits is in memory alone: a relay is told that its events have been
//! taken once they are delivered, or after a while; what it was not told yet it says again to the next controller.

mod post;
mod queue;
mod receipt;
mod signature;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::post::Post;
pub(crate) use self::queue::DeadLetter;
use self::queue::{Attempt, Queue};
pub(crate) use self::receipt::{Receipt, Token};
use super::event::Event;
use super::filter::Filter;
use crate::StartError;
use crate::config::WebhookConfig;

/// Every receiver, and what waits for it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Webhooks(Arc<[Arc<Webhook>]>);

/// One receiver.
#[derive(Debug)]
struct Webhook {
    name: String,
    url: String,
    filter: Filter,
    queue: Mutex<Queue>,
    /// Something was pushed.
    pushed: Notify,
    post: Post,
}

/// How one receiver stands.
#[derive(Clone, Debug)]
pub(crate) struct WebhookStanding {
    pub(crate) name: String,
    /// Without its query, which may hold a secret.
    pub(crate) url: String,
    /// Events that wait, and about how many bytes they take.
    pub(crate) queued: usize,
    pub(crate) bytes: usize,
    pub(crate) delivered: u64,
    /// Requests that failed.
    pub(crate) failures: u64,
    /// Events that were given up, and the last of them.
    pub(crate) dead: u64,
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// How long requests have been failing, and the last error.
    pub(crate) failing: Option<(Duration, String)>,
}

impl Webhooks {
    /// The receivers of the configuration.
    ///
    /// # Errors
    /// When an authority cannot be used.
    pub(crate) fn new(configs: &[WebhookConfig]) -> Result<Self, StartError> {
        let hook = |config: &WebhookConfig| -> Result<_, StartError> {
            let url = config.url.to_string();
            Ok(Arc::new(Webhook {
                name: config.name.clone(),
                url: url.split('?').next().unwrap_or_default().to_owned(),
                filter: Filter {
                    kinds: config.kinds.clone(),
                    tenant: config.tenant.clone(),
                    node: None,
                },
                queue: Mutex::new(Queue::new(config.max_age)),
                pushed: Notify::new(),
                post: Post::new(config)?,
            }))
        };
        let hooks = configs.iter().map(hook);
        Ok(Self(hooks.collect::<Result<_, StartError>>()?))
    }

    /// Keeps `event` for those who want it; each holds the token until it is through with it.
    pub(super) fn offer(&self, event: &Arc<Event>, token: &Token) {
        for hook in self.0.iter().filter(|hook| hook.filter.takes(event)) {
            let now = Instant::now();
            hook.queue().push(now, Arc::clone(event), token.clone());
            hook.pushed.notify_one();
        }
    }

    /// How each stands.
    pub(crate) fn standings(&self) -> Vec<WebhookStanding> {
        let standing = |hook: &Arc<Webhook>| {
            let standing = hook.queue().standing();
            let failing = standing.failing;
            WebhookStanding {
                name: hook.name.clone(),
                url: hook.url.clone(),
                queued: standing.queued,
                bytes: standing.bytes,
                delivered: standing.delivered,
                failures: standing.failures,
                dead: standing.dead,
                dead_letters: standing.dead_letters,
                failing: failing.map(|failing| (failing.since.elapsed(), failing.error)),
            }
        };
        self.0.iter().map(standing).collect()
    }

    /// Delivers until the task is aborted.
    pub(crate) async fn deliver(self) {
        let mut running = JoinSet::new();
        for hook in self.0.iter() {
            running.spawn(run(Arc::clone(hook)));
        }
        while running.join_next().await.is_some() {}
    }
}

impl Webhook {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No operation leaves the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of a request.
    fn hear(&self, lane: usize, outcome: Result<(), String>) {
        let mut queue = self.queue();
        match outcome {
            Ok(()) => {
                let was_failing = queue.standing().failing.is_some();
                queue.delivered(lane);
                if was_failing && queue.standing().failing.is_none() {
                    tracing::info!(webhook = self.name, "the receiver takes events again");
                }
            }
            Err(error) => {
                if queue.standing().failing.is_none() {
                    tracing::warn!(
                        webhook = self.name,
                        error,
                        "the receiver does not take events; trying on"
                    );
                }
                queue.failed(Instant::now(), lane, error, chance());
            }
        }
    }
}

/// Delivers what waits for one receiver: a request for each lane that has something to say.
async fn run(hook: Arc<Webhook>) {
    let mut requests = JoinSet::new();
    loop {
        let mut attempts = Vec::new();
        let due = {
            let mut queue = hook.queue();
            while let Some(attempt) = queue.poll(Instant::now()) {
                attempts.push(attempt);
            }
            queue.due()
        };
        for Attempt { lane, events } in attempts {
            let hook = Arc::clone(&hook);
            requests.spawn(async move { (lane, hook.post.send(&hook.name, &events).await) });
        }
        let next = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = requests.join_next() => {
                // A request that panicked would leave its lane under way.
                let (lane, outcome) = ended.expect("a request does not panic");
                hook.hear(lane, outcome);
            }
            () = hook.pushed.notified() => {}
            () = next => {}
        }
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut byte = [0];
    // Without random bytes every pause is the shortest.
    let _ = SystemRandom::new().fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
