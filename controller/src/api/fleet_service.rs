//! gRPC `RelayControl`: enrolment of nodes and their control sessions.
//!
//! A session is a task between the node's stream and the fleet. It owns no state of the fleet: what the node says goes to
//! [`Handle`], what the fleet wants comes from the session's channels. The end of the stream, in whatever way, is reported at
//! once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use prometheus::IntGauge;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::relay_control_server::{RelayControl, RelayControlServer};
use turnfleet_proto::fleet::{
    Certificates, ControllerMessage, Credential, EnrollRequest, EnrollResponse, EventsTaken, Hello,
    Kill, NodeMessage, Redirect, Time,
};

use super::client_ca::Shown;
use super::policy_talk::PolicyTalk;
use super::rate::TokenBucket;
use super::serve::Caller;
use super::status::grpc_status;
use crate::FleetError;
use crate::config::RelayCertificates;
use crate::events::{Intake, Taken};
use crate::fleet::{Admission, Certified, Ended};
use crate::metrics::Metrics;
use crate::reconcile::{Handle, Order, Session};
use crate::traces::{Desk, Journals};

/// The largest message of a node.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// From the start of a session to its Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages to a node that it has not taken yet.
const QUEUE: usize = 4;
/// A node that takes no message for so long is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Most are batches of events, of which a node sends one every 65 ms at most. What it takes of quotas comes four times a second.
const MESSAGES_A_SECOND: u32 = 40;
const MESSAGE_BURST: u32 = 200;

/// For an enrolment without anything.
const NOTHING_SHOWN: &str = "neither a join token nor a certificate was shown: expected a join token, or, where the controller \
    has grpc.client_ca, a certificate of that authority in controller.certificate";
/// For a call without a certificate where there has to be one.
const CERTIFICATE_REQUIRED: &str = "the relay shows no certificate, and this controller takes none without \
    (grpc.require_relay_certificate): expected controller.certificate and controller.key";

/// The service of `turnfleet.fleet.v1`.
pub(crate) struct FleetService {
    handle: Handle,
    metrics: Arc<Metrics>,
    journals: Journals,
    /// Whether a relay has to show a certificate.
    certificate_required: bool,
}

impl FleetService {
    /// The service that relay nodes speak to.
    pub(crate) fn server(
        handle: Handle,
        metrics: Arc<Metrics>,
        journals: Journals,
        certificates: &RelayCertificates,
    ) -> RelayControlServer<Self> {
        let service = Self {
            handle,
            metrics,
            journals,
            certificate_required: certificates.required,
        };
        RelayControlServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Makes a node a member, by its certificate where it shows one.
    async fn admit(&self, request: Request<EnrollRequest>) -> Result<EnrollResponse, Status> {
        let certified = self.certified(&request)?;
        let EnrollRequest {
            join_token,
            node_id,
        } = request.into_inner();
        let node = node_id
            .parse::<NodeId>()
            .map_err(|error| Status::invalid_argument(format!("node_id: {error}")))?;
        let shown = match &certified {
            Some(certified) => Admission::Certificate(Arc::clone(certified)),
            None if join_token.is_empty() => return Err(Status::unauthenticated(NOTHING_SHOWN)),
            None => Admission::JoinToken(join_token),
        };
        let admitted = self.handle.admit(shown, &node).await;
        let node_credential = admitted.map_err(|error| grpc_status(&error))?;
        let by = certified.map_or("join token", |_| "certificate");
        tracing::info!(%node, by, "node enrolled");
        Ok(EnrollResponse { node_credential })
    }

    /// Who the caller is by its certificate, if it shows one.
    ///
    /// # Errors
    /// When that is not good, or there has to be one.
    fn certified<T>(&self, request: &Request<T>) -> Result<Option<Arc<Certified>>, Status> {
        match request.extensions().get::<Shown>() {
            Some(Shown::Relay(certified)) => Ok(Some(Arc::clone(certified))),
            Some(Shown::Refused(reason)) => {
                tracing::info!(reason = &**reason, "certificate of a relay refused");
                let text = format!(
                    "the relay's certificate (controller.certificate) is refused: {reason}"
                );
                Err(Status::unauthenticated(text))
            }
            None if self.certificate_required => Err(Status::unauthenticated(CERTIFICATE_REQUIRED)),
            None => Ok(None),
        }
    }
}

#[async_trait]
impl RelayControl for FleetService {
    type SessionStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let outcome = self.admit(request).await;
        let label = if outcome.is_ok() { "good" } else { "refused" };
        self.metrics.enrolments.with_label_values(&[label]).inc();
        outcome.map(Response::new)
    }

    async fn session(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let shown = Papers {
            certified: self.certified(&request)?,
            credential: bearer(&request)?,
        };
        let is_here = request
            .extensions()
            .get::<Caller>()
            .is_some_and(|caller| caller.is_here);
        let (down, stream) = mpsc::channel(QUEUE);
        let link = Link {
            up: request.into_inner(),
            down,
            is_here,
            takes_certificates: false,
        };
        // The answer begins before the Hello is read, or a node that waits for it would wait for ever.
        let (handle, metrics) = (self.handle.clone(), Arc::clone(&self.metrics));
        tokio::spawn(run(link, handle, metrics, self.journals.clone(), shown));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// The token that a request carries.
///
/// # Errors
/// Unauthenticated where there is none.
pub(crate) fn bearer<T>(request: &Request<T>) -> Result<String, Status> {
    let header = request.metadata().get(AUTHORIZATION.as_str());
    let token = header
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let missing = "the metadata key authorization must be Bearer and a credential";
    token
        .map(str::to_owned)
        .ok_or_else(|| Status::unauthenticated(missing))
}

/// What a node shows for a session.
struct Papers {
    certified: Option<Arc<Certified>>,
    credential: String,
}

/// Both directions of one stream.
struct Link {
    up: Streaming<NodeMessage>,
    down: mpsc::Sender<Result<ControllerMessage, Status>>,
    /// Whether the node is on this machine.
    is_here: bool,
    /// Whether it shows the fleet's certificate.
    takes_certificates: bool,
}

/// One session from its Hello to its end.
async fn run(
    mut link: Link,
    handle: Handle,
    metrics: Arc<Metrics>,
    journals: Journals,
    shown: Papers,
) {
    let mut keeps_journal = false;
    let opened = match link.hello().await {
        Ok(hello) => {
            keeps_journal = hello.journal;
            link.takes_certificates = hello.takes_certificates;
            handle
                .open_session_as(&shown.credential, shown.certified, hello)
                .await
                .map_err(|error| grpc_status(&error))
        }
        Err(status) => Err(status),
    };
    let mut session = match opened {
        Ok(session) => session,
        Err(status) => {
            tracing::info!(code = ?status.code(), reason = status.message(), "session refused");
            // The node is told as far as it still listens.
            drop(link.down.send(Err(status)).await);
            return;
        }
    };
    let key = session.key.clone();
    tracing::info!(node = %key.node, session = key.number, "session opened");
    let open = Open::count(&metrics.sessions);
    let mut desk = keeps_journal.then(|| journals.open(&key.node));
    let talk = PolicyTalk::new(&session, &metrics.policy);
    let end = link.converse(&handle, &mut session, &mut desk, talk).await;
    drop(desk);
    let how = end.how();
    handle.session_ended(key.clone(), how).await;
    drop(open);
    let label = match how {
        Ended::Reset => "reset",
        Ended::Goodbye => "goodbye",
    };
    metrics.sessions_ended.with_label_values(&[label]).inc();
    tracing::info!(node = %key.node, session = key.number, how = label, "session ended");
    if let End::Refused(status) = end {
        drop(link.down.send(Err(status)).await);
    }
}

/// Why a session ends.
enum End {
    Reset,
    Goodbye,
    /// The controller ends it, and says why.
    Refused(Status),
}

impl End {
    fn how(&self) -> Ended {
        match self {
            Self::Goodbye => Ended::Goodbye,
            Self::Reset | Self::Refused(_) => Ended::Reset,
        }
    }
}

impl From<FleetError> for End {
    fn from(error: FleetError) -> Self {
        Self::Refused(grpc_status(&error))
    }
}

impl Link {
    async fn hello(&mut self) -> Result<Hello, Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.up.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello within five seconds"))??;
        match first.and_then(|message| message.message) {
            Some(Up::Hello(mut hello)) => {
                if !self.is_here {
                    // The local addresses of another machine lead elsewhere from here.
                    for listener in &mut hello.listeners {
                        listener.local_address.clear();
                    }
                }
                Ok(hello)
            }
            Some(
                Up::Heartbeat(_)
                | Up::PolicyStatus(_)
                | Up::Goodbye(_)
                | Up::TraceAnswer(_)
                | Up::Usage(_)
                | Up::Demand(_)
                | Up::Events(_),
            )
            | None => Err(Status::invalid_argument(
                "the first message of a session must be Hello",
            )),
        }
    }

    /// Carries messages both ways until one side ends it.
    async fn converse(
        &mut self,
        handle: &Handle,
        session: &mut Session,
        desk: &mut Option<Desk>,
        mut talk: PolicyTalk<'_>,
    ) -> End {
        let bucket = TokenBucket::new(MESSAGES_A_SECOND, MESSAGE_BURST, Instant::now());
        // A node has its first snapshot before anything else.
        if let Some(message) = talk.tell(newest(&mut session.offers))
            && let Err(end) = self.tell(message).await
        {
            return end;
        }
        let mut certificates = handle.certificates();
        tell_at_first(session, &mut certificates);
        let bus = handle.events().clone();
        let mut intake = Intake::new(bus, &session.key);
        loop {
            let outcome = tokio::select! {
                message = self.up.message() => match message {
                    Ok(Some(message)) if bucket.take(Instant::now()).is_ok() => {
                        match (message.message, desk.as_mut()) {
                            (Some(Up::TraceAnswer(answer)), Some(desk)) => {
                                desk.answered(answer);
                                Ok(())
                            }
                            (message, _) => {
                                let ears = (&mut talk, &mut intake);
                                self.heard(message, handle, session, ears).await
                            }
                        }
                    }
                    Ok(Some(_)) => {
                        let text = format!("more than {MESSAGES_A_SECOND} messages a second");
                        Err(End::Refused(Status::resource_exhausted(text)))
                    }
                    Ok(None) | Err(_) => Err(End::Reset),
                },
                changed = session.offers.changed() => match changed {
                    Ok(()) => match talk.tell(newest(&mut session.offers)) {
                        Some(message) => self.tell(message).await,
                        None => Ok(()),
                    },
                    Err(_) => Err(FleetError::SessionReplaced.into()),
                },
                () = due(talk.due()) => {
                    talk.give_up();
                    let text = "no word on the policy";
                    Err(End::Refused(Status::deadline_exceeded(text)))
                }
                question = next_of(desk) => self.tell(question).await,
                Taken(number) = intake.settled(), if session.tells_events => {
                    self.tell(Down::EventsTaken(EventsTaken { number })).await
                }
                order = session.orders.next(), if session.takes_deltas => self.tell(message_of(order)).await,
                Ok(()) = session.drain.changed() => self.tell(Down::Drain(newest(&mut session.drain))).await,
                Ok(()) = session.alternates.changed() => {
                    let alternates = newest(&mut session.alternates);
                    self.tell(Down::Alternates(alternates)).await
                }
                Ok(()) = session.shares.changed() => match newest(&mut session.shares) {
                    Some(shares) => self.tell(Down::Shares(shares)).await,
                    None => Ok(()),
                },
                Ok(()) = certificates.changed(), if self.takes_certificates => {
                    let told = newest(&mut certificates);
                    self.tell(Down::Certificates(Certificates::clone(&told))).await
                }
                () = self.down.closed() => Err(End::Reset),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Passes on what the node says, and answers what it asks.
    async fn heard(
        &self,
        message: Option<Up>,
        handle: &Handle,
        session: &Session,
        (talk, intake): (&mut PolicyTalk<'_>, &mut Intake),
    ) -> Result<(), End> {
        match message {
            Some(Up::Heartbeat(heartbeat)) => handle
                .heartbeat(&session.key, heartbeat)
                .await
                .map_err(End::from),
            Some(Up::PolicyStatus(status)) => {
                let word = talk.hear(&status);
                if word.is_final {
                    if !status.applied {
                        let node = &session.key.node;
                        let (generation, error) = (status.generation, &status.error);
                        tracing::warn!(%node, generation, ?error, "node refused a policy snapshot");
                    }
                    handle.policy_status(&session.key, status).await?;
                }
                match word.answer {
                    Some(answer) => self.tell(answer).await,
                    None => Ok(()),
                }
            }
            Some(Up::Usage(usage)) => {
                handle.usage().report(&session.key.node, usage);
                Ok(())
            }
            Some(Up::Demand(demand)) => {
                let taken = handle.demand(&session.key, demand).await;
                taken.map_err(End::from)
            }
            Some(Up::Events(told)) => {
                let view = handle.view();
                let bound = view.node(&session.key.node);
                let bound = bound.and_then(|node| node.tenant.as_deref());
                intake.take(told.events, bound);
                Ok(())
            }
            Some(Up::Goodbye(_)) => Err(End::Goodbye),
            Some(Up::Hello(_)) => {
                let text = "a session has one Hello";
                Err(End::Refused(Status::invalid_argument(text)))
            }
            // Taken before; and a later version of the protocol may say more.
            Some(Up::TraceAnswer(_)) | None => Ok(()),
        }
    }

    async fn tell(&self, message: Down) -> Result<(), End> {
        let message = ControllerMessage {
            message: Some(message),
        };
        match self.down.send_timeout(Ok(message), SEND_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }
}

/// Has a session begin with what there is already; nothing is said of what is as every node takes it to be.
fn tell_at_first(session: &mut Session, certificates: &mut watch::Receiver<Arc<Certificates>>) {
    if session.drain.borrow().draining {
        session.drain.mark_changed();
    }
    session.alternates.mark_changed();
    session.shares.mark_changed();
    if **certificates.borrow() != Certificates::default() {
        certificates.mark_changed();
    }
}

fn newest<T: Clone>(channel: &mut watch::Receiver<T>) -> T {
    channel.borrow_and_update().clone()
}

fn message_of(order: Order) -> Down {
    match order {
        Order::Credential(node_credential) => Down::Credential(Credential { node_credential }),
        Order::Kill => Down::Kill(Kill {
            reason: "the operator's word".to_owned(),
        }),
        Order::Redirect(endpoint) => Down::Redirect(Redirect { endpoint }),
        Order::Time(unix_seconds) => Down::Time(Time { unix_seconds }),
    }
}

/// What the node's journal is to be told or asked next, where it keeps one.
async fn next_of(desk: &mut Option<Desk>) -> Down {
    match desk {
        Some(desk) => desk.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for that moment, if there is one.
async fn due(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Counts a session as long as it is open.
struct Open(IntGauge);

impl Open {
    fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
