//! The TURN core on a loop of UDP sockets: a relay as small as can be, with the policy of a snapshot.

pub(crate) mod distance;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use turnfleet_proto::credentials::{EphemeralUsername, SharedSecret};
use turnfleet_proto::fleet::Snapshot;
use turnfleet_proto::probe_name::ProbeKey;
use turnfleet_turn::ledger::GrantedPorts;
use turnfleet_turn::peer_filter::{FleetRange, PeerFilter, PeerRules};
use turnfleet_turn::policy::{Config, Limits, Policy, RelayedHost, TcpRelaying};
use turnfleet_turn::wire::LongTermKey;
use turnfleet_turn::{
    Candidate, Candidates, ClientHeader, Command, Context, Decision, FiveTuple, Identity, Instant,
    IpMeta, KeySource, Ledger, Now, OpenError, PeerAddr, RelayedId, Server, ShardId, Span,
    TenantId, Transport,
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Accepts what is made with the snapshot's secrets.
struct Keys {
    realm: String,
    secrets: Vec<SharedSecret>,
    probes: Vec<ProbeKey>,
}

impl KeySource for Keys {
    fn candidates(&self, identity: Identity<'_>, _now: Now, out: &mut Candidates) {
        let username = identity.username;
        let Some(parsed) = EphemeralUsername::parse(username) else {
            return;
        };
        let is_probe = self.probes.iter().any(|key| key.has_made(parsed));
        let user = parsed.user.filter(|_| !is_probe);
        let user = user.map(|user| username.len() - user.len()..username.len());
        for secret in &self.secrets {
            let password = secret.password(username);
            out.push(Candidate {
                key: LongTermKey::derive(username, &self.realm, &password),
                user: user.clone(),
                tenant: TenantId::DEFAULT,
                home: TenantId::DEFAULT,
                expires_at: Some(parsed.expires_at),
                key_id: 0,
            });
        }
    }
}

struct Relay {
    listener: Arc<UdpSocket>,
    server: Server,
    keys: Keys,
    origin: std::time::Instant,
    relayed: HashMap<RelayedId, (Arc<UdpSocket>, AbortHandle)>,
    inbox: mpsc::Sender<(RelayedId, SocketAddr, Vec<u8>)>,
}

/// Serves on `listener`, with its allocations in `ledger`, until the task is aborted.
pub(crate) async fn serve(listener: Arc<UdpSocket>, ledger: Arc<Ledger>, snapshot: Snapshot) {
    let (inbox, mut arrived) = mpsc::channel(64);
    let mut relay = Relay {
        listener: Arc::clone(&listener),
        server: server(ledger, &snapshot),
        keys: Keys {
            realm: snapshot.realm,
            secrets: snapshot
                .secrets
                .into_iter()
                .map(|generation| SharedSecret::new(generation.secret))
                .collect(),
            probes: snapshot
                .nonce_keys
                .iter()
                .map(|key| ProbeKey::of_nonce_key(&key.key))
                .collect(),
        },
        origin: std::time::Instant::now(),
        relayed: HashMap::new(),
        inbox,
    };
    let mut packet = vec![0; 2048];
    loop {
        tokio::select! {
            Ok((len, from)) = listener.recv_from(&mut packet) => {
                relay.relay_from_client(from, &packet[..len]).await;
            }
            Some((id, from, payload)) = arrived.recv() => {
                relay.relay_from_peer(id, from, &payload).await;
            }
        }
    }
}

fn server(ledger: Arc<Ledger>, snapshot: &Snapshot) -> Server {
    let ranges = snapshot.port_grants.iter().filter_map(|grant| grant.range);
    let ports: Vec<(u16, u16)> = ranges
        .map(|range| {
            (
                range.first.try_into().unwrap(),
                range.last.try_into().unwrap(),
            )
        })
        .collect();
    let granted = |&(first, last): &(u16, u16)| GrantedPorts {
        public: LOCAL,
        first,
        last,
    };
    ledger.set_granted(&ports.iter().map(granted).collect::<Vec<_>>());
    let own = |&(first, last): &(u16, u16)| FleetRange {
        ip: LOCAL,
        first,
        last,
    };
    let config = Config {
        shard: ShardId(0),
        shards: 1,
        relayed_hosts: vec![RelayedHost {
            local: LOCAL,
            public: LOCAL,
        }],
        rfc5766_channel_numbers: false,
        dont_fragment: false,
        trusted_sources: Vec::new(),
    };
    let quota = snapshot.limits.as_ref().unwrap().allocations_per_user;
    let nonce_key = |key: &turnfleet_proto::fleet::NonceKey| key.key.as_slice().try_into().unwrap();
    let policy = Policy {
        realm: snapshot.realm.as_str().into(),
        nonce_keys: snapshot.nonce_keys.iter().map(nonce_key).collect(),
        nonce_lifetime: Duration::from_secs(600),
        peer_filter: PeerFilter::new(PeerRules {
            fleet: ports.iter().map(own).collect(),
            ..PeerRules::default()
        }),
        limits: Limits {
            allocations_per_user: quota.try_into().unwrap(),
            ..Limits::default()
        },
        tcp_relaying: TcpRelaying::Off,
        ..Policy::new(&snapshot.realm, [0; 32], PeerFilter::default())
    };
    Server::new(config, Arc::new(policy), ledger, [3; 32])
}

impl Relay {
    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Now {
            instant: Instant(0).after(self.origin.elapsed()),
            unix: since.as_secs(),
        }
    }

    async fn relay_from_client(&mut self, client: SocketAddr, packet: &[u8]) {
        let five_tuple = FiveTuple {
            transport: Transport::Udp,
            client,
            server: self.listener.local_addr().unwrap(),
        };
        let mut reply = Vec::new();
        let decision = self.decide(five_tuple, packet, &mut reply);
        self.carry_out().await;
        match decision {
            Decision::Reply => self.send(client, &reply).await,
            Decision::ToPeer {
                via, to, payload, ..
            } => {
                let socket = &self.relayed[&via].0;
                drop(socket.send_to(&packet[payload.range()], to.0).await);
            }
            Decision::Drop(_)
            | Decision::Splice { .. }
            | Decision::ToShard { .. }
            | Decision::Pending
            | Decision::ToClient { .. } => {}
        }
    }

    fn decide(&mut self, from: FiveTuple, packet: &[u8], reply: &mut Vec<u8>) -> Decision {
        let now = self.now();
        let context = Context::new(&self.keys);
        self.server
            .handle_client(now, from, IpMeta::default(), packet, &context, reply)
    }

    async fn relay_from_peer(&mut self, on: RelayedId, from: SocketAddr, payload: &[u8]) {
        let now = self.now();
        let decision =
            self.server
                .handle_peer(now, on, PeerAddr(from), IpMeta::default(), payload.len());
        if let Decision::ToClient { to, header, .. } = decision {
            let mut buffer = vec![0; ClientHeader::MAX_LEN];
            buffer.extend_from_slice(payload);
            buffer.resize(buffer.len() + ClientHeader::MAX_PADDING, 0);
            let span = Span {
                start: ClientHeader::MAX_LEN,
                len: payload.len(),
            };
            let whole = header.write(&mut buffer, span).unwrap();
            self.send(to.client, &buffer[whole.range()]).await;
        }
    }

    async fn carry_out(&mut self) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::OpenRelayed { id, local } => {
                    let opened = self.open(id, local).await;
                    let now = self.now();
                    self.server.handle_relayed_opened(now, id, opened);
                }
                Command::CloseRelayed { id } => {
                    if let Some((_, task)) = self.relayed.remove(&id) {
                        task.abort();
                    }
                }
                Command::Send { to, message } => self.send(to.client, &message).await,
                Command::ClaimReserved { .. } => panic!("nothing is reserved"),
                Command::KeepStream { .. } | Command::ReleaseStream { .. } => {
                    panic!("clients are on UDP")
                }
                Command::ListenRelayed { .. }
                | Command::ConnectPeer { .. }
                | Command::CloseConnection { .. } => panic!("TCP is not relayed here"),
            }
        }
    }

    async fn open(&mut self, id: RelayedId, local: SocketAddr) -> Result<SocketAddr, OpenError> {
        let bound = UdpSocket::bind(local).await;
        let socket = Arc::new(bound.map_err(|_| OpenError::PortTaken)?);
        let (reader, inbox) = (Arc::clone(&socket), self.inbox.clone());
        let task = tokio::spawn(async move {
            let mut packet = vec![0; 2048];
            while let Ok((len, from)) = reader.recv_from(&mut packet).await {
                drop(inbox.send((id, from, packet[..len].to_vec())).await);
            }
        });
        self.relayed.insert(id, (socket, task.abort_handle()));
        Ok(local)
    }

    async fn send(&self, to: SocketAddr, message: &[u8]) {
        drop(self.listener.send_to(message, to).await);
    }
}
