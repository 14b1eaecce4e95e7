//! A controller on a state directory of its own, and nodes that open control sessions with it: what the tests of its APIs
//! stand on.

pub(crate) mod calls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use turnfleet_controller::Controller;
use turnfleet_controller::config::{Config, ProbeMode, RawConfig, RawEtcd};
use turnfleet_controller::fleet::NodeView;
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::relay_control_client::RelayControlClient;
use turnfleet_proto::fleet::{
    Alternates, Capacity, ControllerMessage, EnrollRequest, Heartbeat, Hello, Listener, Load,
    NodeMessage, PolicyStatus, Snapshot,
};

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    controller: Option<Controller>,
    raw: RawConfig,
    _state: TempDir,
}

impl Stage {
    /// A controller without a probe: sessions alone decide who is listed.
    pub(crate) fn new() -> Self {
        Self::with(|raw| raw.probe.mode = ProbeMode::Off)
    }

    pub(crate) fn with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut raw = RawConfig {
            state_dir: state.path().to_owned(),
            ..RawConfig::default()
        };
        raw.http.address = "127.0.0.1:0".to_owned();
        raw.grpc.address = "127.0.0.1:0".to_owned();
        change(&mut raw);
        let runtime = Runtime::new().unwrap();
        let config = Config::try_from(raw.clone()).unwrap();
        let controller = runtime.block_on(Controller::start(config)).unwrap();
        Self {
            runtime,
            controller: Some(controller),
            raw,
            _state: state,
        }
    }

    /// One of several controllers on the etcd at `endpoints`, without a probe. Their key is in `dir`.
    pub(crate) fn of_cluster(endpoints: &[String], dir: &Path, name: &str) -> Self {
        Self::of_cluster_with(endpoints, dir, name, |_| {})
    }

    /// The same with more in its configuration.
    pub(crate) fn of_cluster_with(
        endpoints: &[String],
        dir: &Path,
        name: &str,
        change: impl FnOnce(&mut RawConfig),
    ) -> Self {
        Self::with(|raw| {
            change(raw);
            raw.id = Some(name.to_owned());
            raw.probe.mode = ProbeMode::Off;
            raw.store.key_file = Some(dir.join("store.key"));
            raw.store.etcd = Some(RawEtcd {
                endpoints: endpoints.to_vec(),
                ..RawEtcd::default()
            });
        })
    }

    /// The controller ends, and another begins with the same state.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let config = Config::try_from(self.raw.clone()).unwrap();
        self.controller = Some(self.runtime.block_on(Controller::start(config)).unwrap());
    }

    pub(crate) fn controller(&self) -> &Controller {
        self.controller.as_ref().unwrap()
    }

    /// What the controller was started with.
    pub(crate) fn raw(&self) -> &RawConfig {
        &self.raw
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.controller().http_address())
    }

    pub(crate) fn admin(&self) -> String {
        format!("Bearer {}", self.controller().api_token())
    }

    pub(crate) fn client(&self) -> RelayControlClient<Channel> {
        let address = self.controller().grpc_address();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        RelayControlClient::new(self.runtime.block_on(endpoint.connect()).unwrap())
    }

    pub(crate) fn enroll(&self, id: &str) -> Result<String, Status> {
        self.enroll_with(id, self.controller().join_token())
    }

    pub(crate) fn enroll_with(&self, id: &str, join_token: &str) -> Result<String, Status> {
        let request = EnrollRequest {
            join_token: join_token.to_owned(),
            node_id: id.to_owned(),
        };
        let mut client = self.client();
        let answer = self.runtime.block_on(client.enroll(request))?;
        Ok(answer.into_inner().node_credential)
    }

    /// A node with a control session that has applied its first snapshot and reports no load.
    pub(crate) fn node(&self, hello: Hello) -> Node {
        let credential = self.enroll(&hello.node_id).unwrap();
        let mut node = self.session(&credential, hello);
        self.runtime.block_on(node.settle());
        node
    }

    pub(crate) fn session(&self, credential: &str, hello: Hello) -> Node {
        let client = self.client();
        self.runtime.block_on(Node::open(client, credential, hello))
    }

    /// Waits until `holds` is true of the node, and gives what was then known of it.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, holds: impl Fn(&NodeView) -> bool) -> NodeView {
        let id: NodeId = id.parse().unwrap();
        let mut views = self.controller().watch();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            match view.node(&id) {
                Some(node) if holds(node) => return NodeView::clone(node),
                seen => assert!(Instant::now() < deadline, "never came: {seen:#?}"),
            }
            let changed = async { tokio::time::timeout_at(deadline.into(), views.changed()).await };
            // Past the deadline the assertion above says what was seen last.
            drop(self.runtime.block_on(changed));
        }
    }

    /// Asks until the answer is yes.
    #[track_caller]
    pub(crate) fn within(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never came: {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(controller) = self.controller.take() {
            self.runtime.block_on(controller.stop());
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The node's end of a control session.
pub(crate) struct Node {
    up: mpsc::Sender<NodeMessage>,
    down: Streaming<ControllerMessage>,
    pub(crate) snapshot: Option<Snapshot>,
    /// What was said last of other relays.
    pub(crate) alternates: Option<Alternates>,
}

impl Node {
    pub(crate) async fn open(
        client: RelayControlClient<Channel>,
        credential: &str,
        hello: Hello,
    ) -> Self {
        Self::try_open(client, credential, hello).await.unwrap()
    }

    /// The same, or what the controller says against it at once.
    pub(crate) async fn try_open(
        mut client: RelayControlClient<Channel>,
        credential: &str,
        hello: Hello,
    ) -> Result<Self, Status> {
        let (up, stream) = mpsc::channel(8);
        up.send(message(Up::Hello(hello))).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(stream));
        let header: MetadataValue<_> = format!("Bearer {credential}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        let down = client.session(request).await?.into_inner();
        Ok(Self {
            up,
            down,
            snapshot: None,
            alternates: None,
        })
    }

    pub(crate) async fn say(&self, up: Up) {
        assert!(self.is_heard(up).await, "the session has ended");
    }

    /// Says something, and whether the session still takes it.
    pub(crate) async fn is_heard(&self, up: Up) -> bool {
        self.up.send(message(up)).await.is_ok()
    }

    /// What the controller says next, but of other relays; `Err` with the status where it ended the session.
    pub(crate) async fn hear(&mut self) -> Result<Option<Down>, Status> {
        loop {
            match self.hear_any().await? {
                Some(Down::Alternates(_)) => {}
                message => return Ok(message),
            }
        }
    }

    async fn hear_any(&mut self) -> Result<Option<Down>, Status> {
        let heard = tokio::time::timeout(PATIENCE, self.down.message());
        let message = heard.await.expect("the controller says something")?;
        let message = message.and_then(|message| message.message);
        if let Some(Down::Alternates(alternates)) = &message {
            self.alternates = Some(alternates.clone());
        }
        Ok(message)
    }

    /// Waits until the controller names exactly these domains to go to.
    pub(crate) async fn hear_alternates(&mut self, domains: &[&str]) {
        let named = |alternates: &Alternates| {
            let mut named: Vec<_> = alternates
                .alternates
                .iter()
                .map(|it| it.domain.as_str())
                .collect();
            named.sort_unstable();
            named == domains
        };
        while !self.alternates.as_ref().is_some_and(named) {
            self.hear_any().await.unwrap();
        }
    }

    /// Takes the snapshot, and reports it as applied.
    pub(crate) async fn settle(&mut self) {
        self.try_settle().await.unwrap();
    }

    /// The same, or what the controller says instead.
    pub(crate) async fn try_settle(&mut self) -> Result<(), Status> {
        let Some(Down::Snapshot(snapshot)) = self.hear().await? else {
            panic!("the session begins with a snapshot");
        };
        let generation = snapshot.generation;
        self.snapshot = Some(snapshot);
        self.say(Up::PolicyStatus(PolicyStatus {
            generation,
            applied: true,
            error: String::new(),
            running_generation: generation,
            ..PolicyStatus::default()
        }))
        .await;
        self.say(Up::Heartbeat(Heartbeat {
            applied_generation: generation,
            load: Some(Load::default()),
            ..Heartbeat::default()
        }))
        .await;
        Ok(())
    }
}

fn message(message: Up) -> NodeMessage {
    NodeMessage {
        message: Some(message),
    }
}

/// A node with listeners of these transports on `address`.
pub(crate) fn hello(id: &str, transports: &[Transport], address: SocketAddr) -> Hello {
    Hello {
        node_id: id.to_owned(),
        incarnation: vec![7; 16],
        version: "1".to_owned(),
        region: "local".to_owned(),
        zone: "a".to_owned(),
        listeners: transports
            .iter()
            .map(|&transport| Listener {
                transport: transport.into(),
                address: address.to_string(),
                ..Listener::default()
            })
            .collect(),
        public_ips: vec![address.ip().to_string()],
        capacity: Some(Capacity {
            allocations: 1000,
            file_descriptors: 4096,
            ..Capacity::default()
        }),
        ..Hello::default()
    }
}

/// A node by UDP, TCP and TLS, which nobody can reach.
pub(crate) fn any_hello(id: &str) -> Hello {
    let all = [Transport::Udp, Transport::Tcp, Transport::Tls];
    hello(id, &all, "192.0.2.1:3478".parse().unwrap())
}
