//! A controller that follows a script: it enrols and listens as it is told to, and says what the test says. Whether a
//! node gets along with the real one is tested with the real one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::node_message::Message as FromNode;
use turnfleet_proto::fleet::relay_control_server::{RelayControl, RelayControlServer};
use turnfleet_proto::fleet::{
    ControllerMessage, EnrollRequest, EnrollResponse, Heartbeat, Hello, NodeMessage, PolicyStatus,
    TraceAnswer, Usage,
};

/// Longer than the longest pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the double has heard, in order.
#[derive(Debug)]
pub(crate) enum Heard {
    Enrolled,
    EnrolmentRefused,
    Opened,
    CredentialRefused,
    Said(Box<FromNode>),
    Ended,
}

type Outgoing = mpsc::Sender<Result<ControllerMessage, Status>>;

struct Script {
    join_token: Mutex<String>,
    credentials: Mutex<HashSet<String>>,
    session: Mutex<Option<Outgoing>>,
    heard: mpsc::UnboundedSender<Heard>,
}

/// The running double.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    script: Arc<Script>,
    heard: mpsc::UnboundedReceiver<Heard>,
    server: JoinHandle<()>,
}

impl Double {
    pub(crate) async fn start(join_token: &str) -> Self {
        Self::start_with(join_token, Server::builder()).await
    }

    /// Speaks TLS with this identity.
    pub(crate) async fn start_tls(join_token: &str, identity: Identity) -> Self {
        let tls = ServerTlsConfig::new().identity(identity);
        Self::start_with(join_token, Server::builder().tls_config(tls).unwrap()).await
    }

    async fn start_with(join_token: &str, mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = mpsc::unbounded_channel();
        let script = Arc::new(Script {
            join_token: Mutex::new(join_token.into()),
            credentials: Mutex::default(),
            session: Mutex::default(),
            heard: sender,
        });
        let service = RelayControlServer::new(Service(Arc::clone(&script)));
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let serving = server.add_service(service);
            serving.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            address,
            script,
            heard,
            server,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Accepts this token from here on.
    pub(crate) fn set_join_token(&self, token: &str) {
        *self.script.join_token.lock().unwrap() = token.into();
    }

    /// Accepts this credential from here on.
    pub(crate) fn accept(&self, credential: &str) {
        let mut credentials = self.script.credentials.lock().unwrap();
        credentials.insert(credential.to_owned());
    }

    /// Loses its memory of every node.
    pub(crate) fn forget_nodes(&self) {
        self.script.credentials.lock().unwrap().clear();
    }

    /// Ends the open session with an error.
    pub(crate) fn end_session(&self) {
        *self.script.session.lock().unwrap() = None;
    }

    pub(crate) async fn say(&self, message: FromController) {
        let session = self.script.session.lock().unwrap().clone();
        let message = ControllerMessage {
            message: Some(message),
        };
        session.unwrap().send(Ok(message)).await.unwrap();
    }

    /// Waits for something that `pick` takes; everything before it is passed over.
    pub(crate) async fn hear<T>(&mut self, pick: impl Fn(Heard) -> Option<T>) -> T {
        let found = async {
            loop {
                let heard = self.heard.recv().await.unwrap();
                if let Some(found) = pick(heard) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("heard in time")
    }

    pub(crate) async fn hear_said<T>(&mut self, pick: impl Fn(FromNode) -> Option<T>) -> T {
        self.hear(|heard| {
            let Heard::Said(message) = heard else {
                return None;
            };
            pick(*message)
        })
        .await
    }

    pub(crate) async fn hear_hello(&mut self) -> Hello {
        self.hear_said(|message| {
            let FromNode::Hello(hello) = message else {
                return None;
            };
            Some(hello)
        })
        .await
    }

    pub(crate) async fn hear_status(&mut self) -> PolicyStatus {
        self.hear_said(|message| {
            let FromNode::PolicyStatus(status) = message else {
                return None;
            };
            Some(status)
        })
        .await
    }

    pub(crate) async fn hear_trace(&mut self) -> TraceAnswer {
        self.hear_said(|message| {
            let FromNode::TraceAnswer(answer) = message else {
                return None;
            };
            Some(answer)
        })
        .await
    }

    pub(crate) async fn hear_goodbye(&mut self) {
        self.hear_said(|message| matches!(message, FromNode::Goodbye(_)).then_some(()))
            .await;
    }

    pub(crate) async fn hear_usage(&mut self, wanted: impl Fn(&Usage) -> bool) -> Usage {
        self.hear_said(|message| {
            let FromNode::Usage(usage) = message else {
                return None;
            };
            Some(usage).filter(&wanted)
        })
        .await
    }

    pub(crate) async fn hear_heartbeat(
        &mut self,
        wanted: impl Fn(&Heartbeat) -> bool,
    ) -> Heartbeat {
        self.hear_said(|message| {
            let FromNode::Heartbeat(heartbeat) = message else {
                return None;
            };
            Some(heartbeat).filter(&wanted)
        })
        .await
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<Script>);

#[tonic::async_trait]
impl RelayControl for Service {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        if *self.0.join_token.lock().unwrap() != request.join_token {
            self.0.heard.send(Heard::EnrolmentRefused).unwrap();
            return Err(Status::unauthenticated("the join token is not known"));
        }
        let mut credentials = self.0.credentials.lock().unwrap();
        let node_credential = format!("{}-{}", request.node_id, credentials.len());
        credentials.insert(node_credential.clone());
        self.0.heard.send(Heard::Enrolled).unwrap();
        Ok(Response::new(EnrollResponse { node_credential }))
    }

    type SessionStream =
        Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send + 'static>>;

    async fn session(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let bearer = request.metadata().get("authorization").cloned();
        let bearer = bearer.and_then(|value| value.to_str().map(str::to_owned).ok());
        let credential = bearer.and_then(|value| Some(value.strip_prefix("Bearer ")?.to_owned()));
        let known = |credential: &String| self.0.credentials.lock().unwrap().contains(credential);
        if !credential.as_ref().is_some_and(known) {
            self.0.heard.send(Heard::CredentialRefused).unwrap();
            return Err(Status::unauthenticated("the node credential is not known"));
        }
        let (sender, receiver) = mpsc::channel(8);
        let own = sender.downgrade();
        *self.0.session.lock().unwrap() = Some(sender);
        let script = Arc::clone(&self.0);
        script.heard.send(Heard::Opened).unwrap();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                // The test may be over.
                let _ = script
                    .heard
                    .send(Heard::Said(Box::new(message.message.unwrap())));
            }
            // The node may have opened the next one before this one is seen to end.
            let mut session = script.session.lock().unwrap();
            let is_own =
                |open: &mut Outgoing| own.upgrade().is_some_and(|own| own.same_channel(open));
            let ended = session.take_if(is_own);
            drop((session, ended));
            let _ = script.heard.send(Heard::Ended);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
