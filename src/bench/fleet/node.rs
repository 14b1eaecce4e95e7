//! One relay of which there is only the control session.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::relay_control_client::RelayControlClient;
use turnfleet_proto::fleet::{
    Capacity, ControllerMessage, Delta, EnrollRequest, Goodbye, Heartbeat, Hello, Listener, Load,
    NodeMessage, PolicyStatus,
};

use super::FIRST_ADDRESS;
use super::roll::{News, Word};

/// As a relay beats.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// As a relay waits before it tries again, at random.
const PAUSE_MILLIS: std::ops::Range<u64> = 100..5000;
/// For a connection, and for the beginning of a session.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages that are on their way up.
const QUEUE: usize = 8;
/// Of the control protocol, as relays speak it: the policy comes in deltas.
const PROTOCOL: u32 = 1;
/// The largest message.
const MAX_MESSAGE: usize = 16 << 20;

/// A node that has been enrolled.
pub(super) struct Node {
    number: usize,
    name: String,
    incarnation: [u8; 16],
    credential: MetadataValue<Ascii>,
    /// What it runs: how far, and of which content.
    applied: Applied,
}

#[derive(Default)]
struct Applied {
    epoch: Vec<u8>,
    generation: u64,
    sha256: Vec<u8>,
}

/// Where all nodes of a run connect, to whom they tell, and until when.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) endpoint: Endpoint,
    pub(super) words: mpsc::Sender<Word>,
    /// Becomes true when the nodes shall say goodbye.
    pub(super) end: watch::Receiver<bool>,
}

/// An open session.
struct Session {
    up: mpsc::Sender<NodeMessage>,
    down: Streaming<ControllerMessage>,
}

impl Session {
    async fn leave(mut self) {
        let reason = "the run has ended".to_owned();
        let goodbye = Up::Goodbye(Goodbye { reason });
        drop(self.up.send(said(goodbye)).await);
        // The controller ends the stream when it has heard it.
        drop(tokio::time::timeout(PATIENCE, self.down.message()).await);
    }
}

impl Node {
    /// Enrols the node with that number by a connection of its own.
    ///
    /// # Errors
    /// When the controller cannot be reached or refuses.
    pub(super) async fn enrol(
        endpoint: &Endpoint,
        number: usize,
        join_token: &str,
    ) -> Result<Self> {
        let name = format!("bench-{number:05}");
        let request = EnrollRequest {
            join_token: join_token.to_owned(),
            node_id: name.clone(),
        };
        let channel = endpoint.connect().await?;
        let answer = RelayControlClient::new(channel).enroll(request).await?;
        let credential = format!("Bearer {}", answer.into_inner().node_credential);
        Ok(Self {
            number,
            name,
            incarnation: crate::random()?,
            credential: credential.parse().context("no usable credential")?,
            applied: Applied::default(),
        })
    }

    /// Keeps a session open until the end.
    pub(super) async fn live(mut self, surroundings: Surroundings) {
        loop {
            if let Ok(Ok(session)) = tokio::time::timeout(PATIENCE, self.open(&surroundings)).await
            {
                let ended = self.converse(session, &surroundings).await;
                self.tell(&surroundings, News::Lost).await;
                if let Ended::OnPurpose = ended {
                    return;
                }
            }
            let mut end = surroundings.end.clone();
            tokio::select! {
                () = tokio::time::sleep(pause()) => {}
                () = ended(&mut end) => return,
            }
        }
    }

    async fn open(&self, surroundings: &Surroundings) -> Result<Session> {
        let channel = surroundings.endpoint.connect().await?;
        self.tell(surroundings, News::Connected).await;
        let (up, messages) = mpsc::channel(QUEUE);
        let mut request = Request::new(ReceiverStream::new(messages));
        let credential = self.credential.clone();
        request.metadata_mut().insert("authorization", credential);
        up.send(said(Up::Hello(self.hello()))).await?;
        let client = RelayControlClient::new(channel);
        let mut client = client.max_decoding_message_size(MAX_MESSAGE);
        let down = client.session(request).await?.into_inner();
        Ok(Session { up, down })
    }

    async fn converse(&mut self, mut session: Session, surroundings: &Surroundings) -> Ended {
        // All began at the same moment; their beats shall not stay together.
        let first = tokio::time::Instant::now() + pause().min(HEARTBEAT);
        let mut beats = tokio::time::interval_at(first, HEARTBEAT);
        let mut end = surroundings.end.clone();
        loop {
            let mut news = None;
            let message = tokio::select! {
                message = session.down.message() => match message {
                    Ok(Some(message)) => {
                        let Some(Down::Delta(delta)) = message.message else { continue };
                        let bytes = delta.encoded_len();
                        let status = self.take(delta);
                        if status.applied {
                            let generation = status.generation;
                            news = Some(News::Runs { generation, bytes });
                        }
                        Up::PolicyStatus(status)
                    }
                    Ok(None) | Err(_) => return Ended::ByController,
                },
                _ = beats.tick() => Up::Heartbeat(self.heartbeat()),
                () = ended(&mut end) => {
                    session.leave().await;
                    return Ended::OnPurpose;
                }
            };
            if session.up.send(said(message)).await.is_err() {
                return Ended::ByController;
            }
            if let Some(news) = news {
                self.tell(surroundings, news).await;
            }
        }
    }

    /// Runs what `delta` leads to, or asks for the whole.
    fn take(&mut self, delta: Delta) -> PolicyStatus {
        let fits = match delta.base_generation {
            0 => true,
            base => base == self.applied.generation && delta.epoch == self.applied.epoch,
        };
        let generation = delta.generation;
        if fits {
            self.applied = Applied {
                epoch: delta.epoch,
                generation,
                sha256: delta.sha256,
            };
        }
        PolicyStatus {
            generation,
            applied: fits,
            running_generation: self.applied.generation,
            needs_whole: !fits,
            ..PolicyStatus::default()
        }
    }

    async fn tell(&self, surroundings: &Surroundings, news: News) {
        let word = Word {
            node: self.number,
            at: Instant::now(),
            news,
        };
        // Nobody listens when the run is over.
        let _ = surroundings.words.send(word).await;
    }

    fn hello(&self) -> Hello {
        let ip = self.address();
        let listener = |transport: Transport, port: u16| Listener {
            transport: transport.into(),
            address: format!("{ip}:{port}"),
            local_address: String::new(),
        };
        Hello {
            node_id: self.name.clone(),
            incarnation: self.incarnation.to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            region: "bench".to_owned(),
            zone: format!("zone-{}", self.number % 3),
            listeners: vec![
                listener(Transport::Udp, 3478),
                listener(Transport::Tcp, 3478),
                listener(Transport::Tls, 5349),
            ],
            public_ips: vec![ip.to_string()],
            capacity: Some(Capacity {
                allocations: 10_000,
                ..Capacity::default()
            }),
            applied_generation: self.applied.generation,
            applied_epoch: self.applied.epoch.clone(),
            applied_sha256: self.applied.sha256.clone(),
            protocol: PROTOCOL,
            ..Hello::default()
        }
    }

    fn address(&self) -> Ipv4Addr {
        let number = u32::try_from(self.number).unwrap_or(u32::MAX);
        // The first is the network's own.
        Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits().saturating_add(number + 1))
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            applied_generation: self.applied.generation,
            load: Some(Load {
                relayed_ports_total: 16_384,
                file_descriptors_used: 100,
                ..Load::default()
            }),
            ..Heartbeat::default()
        }
    }
}

/// How a session ended.
enum Ended {
    ByController,
    OnPurpose,
}

/// Waits for the end of the run.
async fn ended(end: &mut watch::Receiver<bool>) {
    drop(end.wait_for(|end| *end).await);
}

fn said(message: Up) -> NodeMessage {
    NodeMessage {
        message: Some(message),
    }
}

/// A pause of a relay, at random.
fn pause() -> Duration {
    let random = crate::random().map_or(0, u64::from_ne_bytes);
    let span = PAUSE_MILLIS.end - PAUSE_MILLIS.start;
    Duration::from_millis(PAUSE_MILLIS.start + random % span)
}
