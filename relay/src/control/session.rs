//! The control session, from the node's first connection to its Goodbye.
//!
//! It never gives up: whatever ends it, it is opened again after a pause, with the next controller. Meanwhile the node
//! serves by the last snapshot.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::node_message::Message as FromNode;
use turnfleet_proto::private_file;

use super::alternates;
use super::client::{Client, ClientError};
use super::identity::{Identity, NodeCredential};
use super::introduction::Introduction;
use super::snapshot_cache::SnapshotCache;
use super::state_dir::StateDir;
use super::status::{ControlState, ControlStatus};
use crate::config::{ControllerConfig, JoinToken};
use crate::policy::SnapshotError;
use crate::serving::{Applied, Serving};

/// How often the node reports.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a controller may leave a node without its first snapshot.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(10);
/// How long a Goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The time from the end of a session, or from the beginning of a failed attempt, to the next attempt is drawn from here,
/// so that a thousand nodes that lost their controller at once come back spread out.
const PAUSE_MILLIS: Range<u64> = 100..5000;
/// The least pause, however long the attempt took.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// Messages on their way to the controller: a few heartbeats. More means that it does not read.
const QUEUE: usize = 8;

/// Everything that the session needs; [`Session::run`] is its task.
pub(crate) struct Session {
    pub(crate) controller: ControllerConfig,
    pub(crate) introduction: Introduction,
    pub(crate) identity: Identity,
    pub(crate) dir: Arc<StateDir>,
    pub(crate) cache: Arc<SnapshotCache>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) status: Arc<ControlStatus>,
    /// Whether the latest attempt led to a session.
    pub(crate) was_open: bool,
}

/// Why an attempt or a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    JoinToken(String),
    #[error("the controller ended the session")]
    Closed,
    #[error("the controller does not read what the node reports")]
    Stalled,
    #[error("no snapshot within {FIRST_SNAPSHOT:?}")]
    NoSnapshot,
}

impl SessionError {
    fn state(&self) -> ControlState {
        match self {
            Self::Client(error) if error.is_refusal() => ControlState::Refused,
            Self::JoinToken(_) => ControlState::Refused,
            Self::Client(_) | Self::Closed | Self::Stalled | Self::NoSnapshot => {
                ControlState::Unreachable
            }
        }
    }
}

/// A session ended without an error: the node stops.
struct Stopped;

impl Session {
    /// Holds a session with one controller or another until `stop` turns true.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // A fleet's nodes spread over its controllers.
        let mut next = usize::try_from(random(0..1 << 16)).unwrap_or(0);
        while !*stop.borrow() {
            next = (next + 1) % self.controller.endpoints.len();
            let uri = self.controller.endpoints[next].uri.to_string();
            let begun = Instant::now();
            match self.attempt(next, &mut stop).await {
                Ok(Stopped) => return,
                Err(error) => self.status.failed(error.state(), &uri, &chain(&error)),
            }
            let spent = match std::mem::take(&mut self.was_open) {
                true => Duration::ZERO,
                false => begun.elapsed(),
            };
            let pause = Duration::from_millis(random(PAUSE_MILLIS)).saturating_sub(spent);
            let pause = pause.max(LEAST_PAUSE);
            tokio::select! {
                () = sleep(pause) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// One connection: enrols where that is needed, and holds the session.
    async fn attempt(
        &mut self,
        index: usize,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Stopped, SessionError> {
        let endpoint = self.controller.endpoints[index].clone();
        let mut stopping = stop.clone();
        let ca = self.controller.ca.clone();
        let connect = async {
            self.serving.close_controller(&endpoint.uri).await;
            Client::connect(&endpoint, ca.as_deref()).await
        };
        let mut client = tokio::select! {
            client = connect => client?,
            () = stopped(&mut stopping) => return Ok(Stopped),
        };
        let credential = match self.identity.credential.clone() {
            Some(credential) => credential,
            None => self.enrol(&mut client).await?,
        };
        match self
            .converse(&mut client, &credential, &endpoint.uri, stop)
            .await
        {
            // The controller's store was replaced: the node becomes a member again, and generations begin anew.
            Err(SessionError::Client(error)) if error.is_unknown_credential() => {
                if self.controller.join_token.is_none() {
                    return Err(error.into());
                }
                let credential = self.enrol(&mut client).await?;
                self.converse(&mut client, &credential, &endpoint.uri, stop)
                    .await
            }
            ended => ended,
        }
    }

    async fn enrol(&mut self, client: &mut Client) -> Result<NodeCredential, SessionError> {
        let token = self.join_token()?;
        let credential = client.enrol(&self.identity.node_id, &token).await?;
        self.serving.forget_generation();
        if let Err(error) = self.identity.keep(credential.clone(), &self.dir) {
            tracing::warn!(%error, "cannot keep the node credential: the next start enrols again");
        }
        tracing::info!(node = %self.identity.node_id, "enrolled");
        Ok(credential)
    }

    fn join_token(&self) -> Result<String, SessionError> {
        let unreadable = |path: &Path, error: std::io::Error| {
            SessionError::JoinToken(format!(
                "cannot read {} (controller.join_token_file): {error}",
                path.display()
            ))
        };
        match &self.controller.join_token {
            Some(JoinToken::Value(token)) => Ok(token.0.clone()),
            Some(JoinToken::File(path)) => {
                private_file::read_secret(path).map_err(|error| unreadable(path, error))
            }
            None => Err(SessionError::JoinToken("there is no join token".into())),
        }
    }

    /// The session itself.
    async fn converse(
        &mut self,
        client: &mut Client,
        credential: &NodeCredential,
        uri: &http::Uri,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Stopped, SessionError> {
        let (outgoing, messages) = mpsc::channel(QUEUE);
        let hello = self.introduction.hello(
            &self.identity,
            self.serving.generation(),
            self.serving.allocations(),
        );
        say(&outgoing, FromNode::Hello(hello))?;
        let messages = ReceiverStream::new(messages);
        let mut incoming = client.open_session(credential, messages).await?;
        let mut draining = self.serving.drain_changes();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first_snapshot = sleep_until(Instant::now() + FIRST_SNAPSHOT);
        tokio::pin!(first_snapshot);
        let mut settled = false;
        let mut uses = BTreeMap::new();
        loop {
            tokio::select! {
                message = incoming.message() => {
                    let message = message.map_err(ClientError::Status)?.ok_or(SessionError::Closed)?;
                    if !std::mem::replace(&mut self.was_open, true) {
                        self.serving.forget_controllers_drain();
                    }
                    let snapshot = match message.message {
                        Some(FromController::Snapshot(snapshot)) => snapshot,
                        Some(FromController::Drain(drain)) => {
                            self.serving.drain_by_controller(drain);
                            continue;
                        }
                        Some(FromController::Alternates(list)) => {
                            self.take_alternates(&list);
                            continue;
                        }
                        // A message of a later version of the protocol.
                        None => continue,
                    };
                    let status = self.take(snapshot, credential).await;
                    say(&outgoing, FromNode::PolicyStatus(status))?;
                    if !std::mem::replace(&mut settled, true) {
                        self.status.connected(&uri.to_string());
                    }
                }
                _ = heartbeat.tick() => say(&outgoing, self.heartbeat(&mut uses))?,
                Ok(()) = draining.changed() => say(&outgoing, self.heartbeat(&mut uses))?,
                () = &mut first_snapshot, if !settled => return Err(SessionError::NoSnapshot),
                () = stopped(stop) => {
                    farewell(outgoing, incoming).await;
                    return Ok(Stopped);
                }
            }
        }
    }

    /// Applies a snapshot or not, and says which.
    async fn take(
        &self,
        snapshot: fleet::Snapshot,
        credential: &NodeCredential,
    ) -> fleet::PolicyStatus {
        let generation = snapshot.generation;
        let error = match self.serving.apply(&snapshot) {
            Ok(Applied::Changed) => {
                self.status.snapshot_applied();
                tracing::info!(generation, "policy applied");
                self.keep(snapshot, credential).await;
                String::new()
            }
            Ok(Applied::Running) => String::new(),
            Err(error) => {
                self.status.snapshot_refused();
                self.log_refusal(generation, &error);
                error.to_string()
            }
        };
        fleet::PolicyStatus {
            generation,
            applied: error.is_empty(),
            error,
            running_generation: self.serving.generation(),
        }
    }

    /// Knows from here on where clients can go instead, or goes on with what it knew.
    fn take_alternates(&self, list: &fleet::Alternates) {
        match alternates::read(list, self.introduction.hostname()) {
            Ok(alternates) => {
                tracing::debug!(count = alternates.servers.len(), "alternate servers");
                self.serving.set_alternates(alternates);
            }
            Err(error) => tracing::warn!(%error, "the controller's alternate servers are no good"),
        }
    }

    fn log_refusal(&self, generation: u64, error: &SnapshotError) {
        let running = self.serving.generation();
        tracing::warn!(generation, running, %error, "policy refused; the running one stays");
    }

    /// Keeps the snapshot for a restart, before the controller hears that it is applied: a grant that it then gives to
    /// another node is not found here again.
    async fn keep(&self, snapshot: fleet::Snapshot, credential: &NodeCredential) {
        let (cache, dir) = (Arc::clone(&self.cache), Arc::clone(&self.dir));
        let (credential, generation) = (credential.clone(), snapshot.generation);
        let kept =
            tokio::task::spawn_blocking(move || cache.store(&snapshot, &credential, &dir)).await;
        match kept {
            Ok(Ok(())) => self.serving.kept(generation),
            Ok(Err(error)) => tracing::warn!(
                %error,
                "cannot keep the policy: without its controller a restarted node would serve by an older one"
            ),
            Err(error) => tracing::warn!(%error, "cannot keep the policy"),
        }
    }

    /// The report; `uses` is what the session has heard of the secrets' uses.
    fn heartbeat(&self, uses: &mut BTreeMap<u32, u64>) -> FromNode {
        FromNode::Heartbeat(fleet::Heartbeat {
            wall_millis: unix_millis(),
            tls_certificate: self.introduction.certificate_validity(),
            secret_uses: self.serving.secret_uses(uses),
            ..self.serving.heartbeat()
        })
    }
}

/// Milliseconds since the Unix epoch; zero where the clock is before it.
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Resolves when the node stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Queues a message; a full queue means that the controller does not read.
fn say(outgoing: &mpsc::Sender<fleet::NodeMessage>, message: FromNode) -> Result<(), SessionError> {
    let message = fleet::NodeMessage {
        message: Some(message),
    };
    outgoing.try_send(message).map_err(|refused| match refused {
        mpsc::error::TrySendError::Full(_) => SessionError::Stalled,
        mpsc::error::TrySendError::Closed(_) => SessionError::Closed,
    })
}

/// Says Goodbye and waits until the controller has heard it.
async fn farewell(
    outgoing: mpsc::Sender<fleet::NodeMessage>,
    mut incoming: Streaming<fleet::ControllerMessage>,
) {
    let goodbye = fleet::Goodbye {
        reason: "stopping".into(),
    };
    if say(&outgoing, FromNode::Goodbye(goodbye)).is_err() {
        return;
    }
    drop(outgoing);
    let heard = async { while let Ok(Some(_)) = incoming.message().await {} };
    // A controller that does not answer learns of the end from the connection.
    let _ = timeout(FAREWELL, heard).await;
}

/// An error with its causes: gRPC hides what happened two levels down.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let part = inner.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        cause = inner.source();
    }
    text
}

fn random(range: Range<u64>) -> u64 {
    let mut bytes = [0; 8];
    // Without random bytes every node waits equally long, which is still a pause.
    let _ = SystemRandom::new().fill(&mut bytes);
    range.start + u64::from_le_bytes(bytes) % (range.end - range.start)
}
