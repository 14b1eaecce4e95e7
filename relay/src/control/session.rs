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
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::node_message::Message as FromNode;
use turnfleet_proto::private_file;

use super::alternates;
use super::client::{Client, ClientError};
use super::events::{Outbox, Telling};
use super::fleet_certificate::FleetCertificate;
use super::identity::{Identity, NodeCredential};
use super::introduction::{Applied as AppliedPolicy, Introduction};
use super::outgoing::{farewell, last_word, say, say_demand};
use super::sections::{DeltaError, Sections};
use super::session_error::SessionError;
use super::snapshot_cache::SnapshotCache;
use super::state_dir::StateDir;
use super::status::ControlStatus;
use super::traces::Traces;
use crate::config::{ControllerConfig, JoinToken};
use crate::journal::Journal;
use crate::node::BoundListener;
use crate::policy::SnapshotError;
use crate::quota;
use crate::serving::{Applied, Serving};
use crate::usage::{Told, UsageBook};

/// How often the node reports.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often the node reports who uses it.
const USAGE: Duration = Duration::from_secs(5);
/// How long a controller may leave a node without its first snapshot.
pub(super) const FIRST_SNAPSHOT: Duration = Duration::from_secs(10);
/// The time from the end of a session, or from the beginning of a failed attempt, to the next attempt is drawn from here,
/// so that a thousand nodes that lost their controller at once come back spread out.
const PAUSE_MILLIS: Range<u64> = 100..5000;
/// The least pause, however long the attempt took.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// Messages on their way to the controller: a few heartbeats, and a report on usage. More means that it does not read.
const QUEUE: usize = 16;

/// Everything that the session needs; [`Session::run`] is its task.
pub(crate) struct Session {
    pub(crate) controller: ControllerConfig,
    pub(crate) introduction: Introduction,
    pub(crate) identity: Identity,
    pub(crate) dir: Arc<StateDir>,
    pub(crate) cache: Arc<SnapshotCache>,
    pub(crate) serving: Arc<Serving>,
    pub(crate) status: Arc<ControlStatus>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) usage: Arc<UsageBook>,
    pub(crate) events: Arc<Outbox>,
    /// The running policy as it came.
    pub(crate) sections: Option<Sections>,
    /// Where clients may come to by themselves.
    pub(crate) listeners: watch::Receiver<Vec<BoundListener>>,
    /// Whether the latest attempt led to a session.
    pub(crate) was_open: bool,
}

/// What a message of the controller was.
enum Followed {
    /// A word on the policy, with what to answer.
    Policy(Option<fleet::PolicyStatus>),
    /// Shares, which are confirmed.
    Shares,
    Order,
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
                Err(SessionError::Redirected { to }) => {
                    // The loop takes the one after it.
                    next = to + self.controller.endpoints.len() - 1;
                    tracing::info!(to = %self.controller.endpoints[to].uri, "sent to another controller");
                    continue;
                }
                Err(SessionError::Moved) => {
                    // The same controller hears of it, by another Hello.
                    next += self.controller.endpoints.len() - 1;
                    continue;
                }
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
        let connect = async {
            self.serving.close_controller(&endpoint.uri).await;
            Client::connect(&endpoint, &self.controller).await
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
                let way = &self.controller;
                if way.join_token.is_none() && way.certificate.is_none() {
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
        self.sections = None;
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
            // The certificate of the connection stands for it.
            None if self.controller.certificate.is_some() => Ok(String::new()),
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
        let listeners = self.listeners.borrow_and_update().clone();
        self.introduction.listeners = listeners;
        let allocations = self.serving.allocations();
        let introduction = &self.introduction;
        let hello = introduction.hello(&self.identity, self.runs(), allocations);
        say(&outgoing, FromNode::Hello(hello))?;
        let messages = ReceiverStream::new(messages);
        let mut incoming = client.open_session(credential, messages).await?;
        let talked = self.talk(&outgoing, &mut incoming, credential, uri, stop);
        match talked.await {
            Ok(Stopped) => {
                farewell(outgoing, incoming).await;
                Ok(Stopped)
            }
            // A controller that refuses the session turns away what the node says, and says why in its last message.
            Err(SessionError::Closed) => Err(last_word(incoming).await),
            Err(error) => Err(error),
        }
    }

    /// Hears and tells until the session ends or the node stops.
    async fn talk(
        &mut self,
        outgoing: &mpsc::Sender<fleet::NodeMessage>,
        incoming: &mut Streaming<fleet::ControllerMessage>,
        credential: &NodeCredential,
        uri: &http::Uri,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Stopped, SessionError> {
        let mut draining = self.serving.drain_changes();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut usage = interval(USAGE);
        usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Told::default();
        let mut look = interval(quota::LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        say_demand(outgoing, self.serving.demand(true))?;
        let first_snapshot = sleep_until(Instant::now() + FIRST_SNAPSHOT);
        tokio::pin!(first_snapshot);
        let mut settled = false;
        let mut uses = BTreeMap::new();
        let mut traces = Traces::new(Arc::clone(&self.journal));
        let mut events = Telling::new(Arc::clone(&self.events));
        loop {
            tokio::select! {
                message = incoming.message() => {
                    let message = message.map_err(ClientError::Status)?.ok_or(SessionError::Closed)?;
                    if !std::mem::replace(&mut self.was_open, true) {
                        self.serving.forget_controllers_drain();
                        // It says so soon if this node's clock is wrong by its own.
                        self.serving.told_time().forget();
                    }
                    // Another one is a message of a later version of the protocol.
                    let Some(message) = message.message else { continue };
                    let Some(message) = traces.take(message) else { continue };
                    if let FromController::EventsTaken(taken) = message {
                        events.taken(taken.number);
                        continue;
                    }
                    match self.follow(message, credential, uri).await? {
                        Followed::Order => {}
                        Followed::Shares => say_demand(outgoing, self.serving.demand(false))?,
                        Followed::Policy(status) => {
                            // Before the controller can know of it.
                            if !std::mem::replace(&mut settled, true) {
                                self.status.connected(&uri.to_string());
                            }
                            if let Some(status) = status {
                                say(outgoing, FromNode::PolicyStatus(status))?;
                            }
                        }
                    }
                }
                answer = traces.next() => say(outgoing, FromNode::TraceAnswer(answer))?,
                batch = events.next() => say(outgoing, FromNode::Events(batch))?,
                _ = heartbeat.tick() => say(outgoing, self.heartbeat(&mut uses))?,
                _ = usage.tick() => self.tell_usage(outgoing, &mut told)?,
                _ = look.tick() => say_demand(outgoing, self.serving.demand(false))?,
                Ok(()) = self.listeners.changed() => return Err(SessionError::Moved),
                Ok(()) = draining.changed() => say(outgoing, self.heartbeat(&mut uses))?,
                () = &mut first_snapshot, if !settled => return Err(SessionError::NoSnapshot),
                () = stopped(stop) => {
                    self.tell_last(outgoing, &mut told, &mut events).await?;
                    return Ok(Stopped);
                }
            }
        }
    }

    /// Does what the controller says.
    async fn follow(
        &mut self,
        message: FromController,
        credential: &NodeCredential,
        uri: &http::Uri,
    ) -> Result<Followed, SessionError> {
        match message {
            FromController::Snapshot(snapshot) => {
                let sections = Sections::of_snapshot(&snapshot);
                let status = self.take(sections, credential).await;
                return Ok(Followed::Policy(Some(status)));
            }
            FromController::Delta(delta) => {
                let status = self.take_delta(delta, credential).await;
                return Ok(Followed::Policy(Some(status)));
            }
            FromController::Hold(hold) => {
                let reason = hold.reason;
                tracing::warn!(reason, "the controller has no policy for this node");
                return Ok(Followed::Policy(None));
            }
            FromController::Drain(drain) => self.serving.drain_by_controller(drain),
            FromController::Alternates(list) => self.take_alternates(&list),
            FromController::Shares(shares) => {
                self.serving.take_shares(shares);
                return Ok(Followed::Shares);
            }
            FromController::Time(time) => self.take_time(time.unix_seconds),
            // Taken before.
            FromController::JournalKey(_)
            | FromController::TraceQuery(_)
            | FromController::EventsTaken(_) => {}
            FromController::Certificates(told) => self.take_certificates(told).await?,
            FromController::Kill(kill) => self.serving.kill(kill.reason),
            FromController::Credential(next) => self.renew(credential, &next.node_credential),
            FromController::Redirect(redirect) => {
                if let Some(to) = self.redirected(&redirect.endpoint, uri) {
                    return Err(SessionError::Redirected { to });
                }
            }
        }
        Ok(Followed::Order)
    }

    /// Applies what a delta leads to or not, and says which.
    async fn take_delta(
        &mut self,
        delta: fleet::Delta,
        credential: &NodeCredential,
    ) -> fleet::PolicyStatus {
        let generation = delta.generation;
        match Sections::follow(self.sections.as_ref(), delta) {
            Ok(sections) => self.take(sections, credential).await,
            Err(error @ (DeltaError::Base | DeltaError::Hash)) => {
                tracing::info!(generation, %error, "asking for the whole policy");
                fleet::PolicyStatus {
                    needs_whole: true,
                    ..self.verdict(generation, error.to_string())
                }
            }
        }
    }

    /// Applies a policy or not, and says which.
    async fn take(
        &mut self,
        sections: Sections,
        credential: &NodeCredential,
    ) -> fleet::PolicyStatus {
        let snapshot = match sections.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.status.snapshot_refused();
                return self.verdict(sections.generation(), error.to_string());
            }
        };
        let generation = snapshot.generation;
        match self.serving.apply(&snapshot, sections.sha256()) {
            Ok(applied) => {
                let changed = applied == Applied::Changed;
                if changed {
                    self.status.snapshot_applied();
                    tracing::info!(generation, "policy applied");
                }
                if changed || self.sections.is_none() {
                    self.keep(sections.clone(), credential).await;
                }
                self.sections = Some(sections);
                self.verdict(generation, String::new())
            }
            Err(error) => {
                self.status.snapshot_refused();
                self.log_refusal(generation, &error);
                self.verdict(generation, error.to_string())
            }
        }
    }

    /// The word on a policy; an empty error means that it runs.
    fn verdict(&self, generation: u64, error: String) -> fleet::PolicyStatus {
        fleet::PolicyStatus {
            generation,
            applied: error.is_empty(),
            error,
            running_generation: self.serving.generation(),
            needs_whole: false,
        }
    }

    /// What the node runs, as it tells a controller.
    fn runs(&self) -> AppliedPolicy {
        let applied = self.serving.applied();
        AppliedPolicy {
            generation: applied.generation,
            epoch: applied.epoch,
            sha256: applied.sha256,
        }
    }

    /// Where `endpoint` stands in the list of controllers; the one after `here` where it is empty. `None` for a stranger, and
    /// where there is no other.
    fn redirected(&self, endpoint: &str, here: &http::Uri) -> Option<usize> {
        let endpoints = &self.controller.endpoints;
        let named = |uri: &http::Uri| {
            uri.to_string().trim_end_matches('/') == endpoint.trim_end_matches('/')
        };
        let place = endpoints.iter().position(|it| match endpoint {
            "" => it.uri == *here,
            _ => named(&it.uri),
        });
        let to = match endpoint {
            "" => place.map(|place| (place + 1) % endpoints.len()),
            _ => place,
        };
        let to = to.filter(|to| endpoints[*to].uri != *here);
        if to.is_none() {
            tracing::warn!(
                endpoint,
                "sent to a controller that this node does not know, or has"
            );
        }
        to
    }

    /// Judges by the controller's time from here on, unless the own clock is ahead of it.
    fn take_time(&self, unix: u64) {
        let own = unix_millis() / 1000;
        tracing::warn!(own, told = unix, "the controller speaks of another time");
        self.serving.told_time().tell(unix);
    }

    /// Uses another credential from the next session on.
    fn renew(&mut self, current: &NodeCredential, next: &str) {
        let Some(next) = current.followed_by(next) else {
            tracing::warn!("the controller gave a credential that is none");
            return;
        };
        match self.identity.keep(next, &self.dir) {
            Ok(()) => tracing::info!("node credential renewed"),
            Err(error) => {
                // Once it has been used, a restart with the one before would be a stranger's.
                self.identity.credential = Some(current.clone());
                tracing::warn!(%error, "cannot keep the renewed node credential, and goes on with the one before");
            }
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

    /// Shows the fleet's certificate, where the configuration asks for it. One with another name is another word on the node.
    async fn take_certificates(&self, told: fleet::Certificates) -> Result<(), SessionError> {
        let introduction = &self.introduction;
        let Some(certificate) = introduction.fleet_certificate() else {
            return Ok(());
        };
        let before = introduction.hostname();
        FleetCertificate::take(told, certificate, &self.dir).await;
        if introduction.hostname() == before {
            Ok(())
        } else {
            Err(SessionError::Moved)
        }
    }

    fn log_refusal(&self, generation: u64, error: &SnapshotError) {
        let running = self.serving.generation();
        tracing::warn!(generation, running, %error, "policy refused; the running one stays");
    }

    /// Keeps the snapshot for a restart, before the controller hears that it is applied: a grant that it then gives to
    /// another node is not found here again.
    async fn keep(&self, policy: Sections, credential: &NodeCredential) {
        let (cache, dir) = (Arc::clone(&self.cache), Arc::clone(&self.dir));
        let (credential, generation) = (credential.clone(), policy.generation());
        let kept =
            tokio::task::spawn_blocking(move || cache.store(&policy, &credential, &dir)).await;
        match kept {
            Ok(Ok(())) => self.serving.kept(generation),
            Ok(Err(error)) => tracing::warn!(
                %error,
                "cannot keep the policy: without its controller a restarted node would serve by an older one"
            ),
            Err(error) => tracing::warn!(%error, "cannot keep the policy"),
        }
    }

    /// Tells who uses the node; `told` is what the session has told already.
    fn tell_usage(
        &self,
        outgoing: &mpsc::Sender<fleet::NodeMessage>,
        told: &mut Told,
    ) -> Result<(), SessionError> {
        let now = std::time::Instant::now();
        let messages = told.next(&self.usage.latest(), now);
        messages
            .into_iter()
            .try_for_each(|message| say(outgoing, FromNode::Usage(message)))
    }

    /// Tells what has happened until the node stops.
    async fn tell_last(
        &self,
        outgoing: &mpsc::Sender<fleet::NodeMessage>,
        told: &mut Told,
        events: &mut Telling,
    ) -> Result<(), SessionError> {
        let book = Arc::clone(&self.usage);
        let kept = tokio::task::spawn_blocking(move || book.keep_now(false)).await;
        if kept.is_ok() {
            self.tell_usage(outgoing, told)?;
        }
        let mut rest = events.rest(QUEUE / 2).into_iter();
        rest.try_for_each(|batch| say(outgoing, FromNode::Events(batch)))
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
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Resolves when the node stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
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
