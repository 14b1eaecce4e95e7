//! The fleet's owner on a real store: enrolment, sessions, port grants and secrets, over restarts and races.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use turnfleet_controller::FleetError;
use turnfleet_controller::config::PortPlan;
use turnfleet_controller::fleet::record::{Policy, SecretScope, Setting, StaticUser};
use turnfleet_controller::fleet::{Ended, FleetView, Health, Settings, Wishes};
use turnfleet_controller::reconcile::{Handle, Offer, Reconciler, Session};
use turnfleet_controller::store::{EmbeddedStore, SealError, Sealer, StoreError};
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{NodeId, fleet as wire};

use crate::plain_fleet;

/// A state directory, on which controllers start and stop.
struct State {
    dir: tempfile::TempDir,
    wishes: Wishes,
    settings: Settings,
}

/// A running owner of the fleet.
struct Running {
    handle: Handle,
    join_token: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn policy() -> Policy {
    Policy {
        allow_peers: vec!["10.1.0.0/16".parse().unwrap()],
        ..plain_fleet::wishes("example.org").policy
    }
}

impl State {
    fn new(relays_per_address: u32) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            wishes: Wishes {
                policy: policy(),
                ..plain_fleet::wishes("example.org")
            },
            settings: Settings {
                ports: PortPlan {
                    relays_per_address,
                    ..plain_fleet::settings().ports
                },
                ..plain_fleet::settings()
            },
        }
    }

    async fn store(&self) -> EmbeddedStore {
        EmbeddedStore::open(self.dir.path()).await.unwrap()
    }

    async fn start(&self) -> Running {
        self.start_on(self.store().await).await
    }

    async fn start_on(&self, store: EmbeddedStore) -> Running {
        let sealer = Sealer::open(&self.dir.path().join("store.key"), true).unwrap();
        let (reconciler, handle) =
            Reconciler::open(Arc::new(store), sealer, self.settings.clone(), &self.wishes)
                .await
                .unwrap();
        let join_token = reconciler
            .fleet()
            .kept(Setting::JoinToken)
            .unwrap()
            .to_owned();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(reconciler.run(stopped));
        Running {
            handle,
            join_token,
            stop,
            task,
        }
    }
}

fn node(number: u8) -> NodeId {
    format!("relay-{number}").parse().unwrap()
}

fn hello(number: u8, incarnation: u8) -> wire::Hello {
    wire::Hello {
        node_id: node(number).to_string(),
        incarnation: vec![incarnation; 16],
        listeners: vec![wire::Listener {
            transport: wire::listener::Transport::Udp.into(),
            address: format!("192.0.2.1:{}", 3478 + 2 * u16::from(number)),
            local_address: format!("10.0.0.1:{}", 3478 + 2 * u16::from(number)),
        }],
        public_ips: vec!["192.0.2.1".into()],
        ..wire::Hello::default()
    }
}

impl Running {
    async fn enroll(&self, number: u8) -> String {
        self.handle
            .enroll(&self.join_token, &node(number))
            .await
            .unwrap()
    }

    async fn open(&self, number: u8) -> Session {
        let credential = self.enroll(number).await;
        self.handle
            .open_session(&credential, hello(number, 1))
            .await
            .unwrap()
    }

    async fn until(&self, what: &str, holds: impl FnMut(&Arc<FleetView>) -> bool) {
        let mut changes = self.handle.changes();
        let waited = tokio::time::timeout(Duration::from_secs(10), changes.wait_for(holds)).await;
        waited
            .unwrap_or_else(|_| panic!("not within 10 s: {what}"))
            .unwrap();
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

fn ports(session: &Session) -> (u32, u32) {
    let snapshot = session.snapshot().unwrap();
    assert_eq!(snapshot.port_grants.len(), 1, "one address, one grant");
    let range = snapshot.port_grants[0].range.unwrap();
    (range.first, range.last)
}

#[tokio::test]
async fn a_node_enrols_and_gets_its_snapshot() {
    let state = State::new(2);
    let running = state.start().await;
    let session = running.open(0).await;
    assert_eq!(ports(&session), (50000, 50049));
    let snapshot = session.snapshot().unwrap();
    assert_eq!(snapshot.realm, "example.org");
    assert_eq!((snapshot.secrets.len(), snapshot.nonce_keys.len()), (1, 1));
    assert_eq!(
        snapshot.secrets[0].secret.len(),
        43,
        "256 bits in base64url"
    );
    assert_eq!(
        snapshot.peer_policy.as_ref().unwrap().allow,
        ["10.1.0.0/16"]
    );
    running
        .until("the node is healthy", |view| {
            view.nodes[0].health == Health::Healthy
        })
        .await;
}

#[tokio::test]
async fn strangers_are_told_apart() {
    let state = State::new(2);
    let running = state.start().await;
    let enrolled = running.handle.enroll("guess", &node(0)).await;
    assert!(matches!(enrolled, Err(FleetError::JoinToken)));
    let opened = running.handle.open_session("guess", hello(0, 1)).await;
    assert!(matches!(opened, Err(FleetError::Credential)));
    let credential = running.enroll(0).await;
    let opened = running.handle.open_session(&credential, hello(1, 1)).await;
    assert!(matches!(opened, Err(FleetError::NotYours { .. })));
    let mut bad = hello(0, 1);
    bad.public_ips = vec!["0.0.0.0".into()];
    let opened = running.handle.open_session(&credential, bad).await;
    assert!(matches!(opened, Err(FleetError::Registration(_))));
    let _session = running
        .handle
        .open_session(&credential, hello(0, 1))
        .await
        .unwrap();
    let stolen = running.handle.enroll(&running.join_token, &node(0)).await;
    assert!(matches!(stolen, Err(FleetError::Live(_))));
}

#[tokio::test]
async fn a_later_session_replaces_the_earlier_one() {
    let state = State::new(2);
    let running = state.start().await;
    let credential = running.enroll(0).await;
    let mut first = running
        .handle
        .open_session(&credential, hello(0, 1))
        .await
        .unwrap();
    let second = running
        .handle
        .open_session(&credential, hello(0, 2))
        .await
        .unwrap();
    assert!(
        first.offers.changed().await.is_err(),
        "its channel is closed"
    );
    let heartbeat = wire::Heartbeat::default();
    let late = running
        .handle
        .heartbeat(&first.key, heartbeat.clone())
        .await;
    assert!(matches!(late, Err(FleetError::SessionReplaced)));
    running
        .handle
        .heartbeat(&second.key, heartbeat.clone())
        .await
        .unwrap();
    running.handle.session_ended(first.key, Ended::Reset).await;
    running
        .handle
        .heartbeat(&second.key, heartbeat)
        .await
        .unwrap();
}

#[tokio::test]
async fn every_session_hears_of_another_nodes_ports() {
    let state = State::new(2);
    let running = state.start().await;
    let mut first = running.open(0).await;
    let before = first.offers.borrow_and_update().generation();
    let second = running.open(1).await;
    assert_eq!(ports(&second), (50050, 50099));
    first.offers.changed().await.unwrap();
    let snapshot = first.snapshot().unwrap();
    assert!(Some(snapshot.generation) > before);
    assert_eq!(snapshot.peer_policy.as_ref().unwrap().fleet.len(), 2);
    assert_eq!(ports(&first), (50000, 50049));
}

#[tokio::test]
async fn exhausted_ports_are_told_to_the_node() {
    let state = State::new(2);
    let running = state.start().await;
    let _sessions = (running.open(0).await, running.open(1).await);
    let credential = running.enroll(2).await;
    let error = running
        .handle
        .open_session(&credential, hello(2, 1))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("relays_per_address = 2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_restart_keeps_credentials_ports_secrets_and_the_generation() {
    let state = State::new(2);
    let running = state.start().await;
    let credential = running.enroll(0).await;
    let session = running
        .handle
        .open_session(&credential, hello(0, 1))
        .await
        .unwrap();
    let before = session.snapshot().unwrap();
    let join_token = running.join_token.clone();
    running.stop().await;
    drop(session);

    let running = state.start().await;
    assert_eq!(running.join_token, join_token);
    let session = running
        .handle
        .open_session(&credential, hello(0, 2))
        .await
        .unwrap();
    assert_eq!(session.snapshot().unwrap(), before);
}

#[tokio::test]
async fn a_changed_secret_is_minted_with_and_the_old_one_still_accepted() {
    let mut state = State::new(2);
    state.wishes.shared_secret = Some(SharedSecret::new("first secret of the fleet"));
    let running = state.start().await;
    let before = running.open(0).await.snapshot().unwrap().generation;
    running.stop().await;
    state.wishes.shared_secret = Some(SharedSecret::new("second secret of the fleet"));
    let running = state.start().await;
    let second = SharedSecret::new("second secret of the fleet");
    assert_eq!(*running.handle.view().minting_secret(), second);
    let session = running.open(0).await;
    let snapshot = session.snapshot().unwrap();
    let texts: Vec<_> = snapshot
        .secrets
        .iter()
        .map(|s| String::from_utf8(s.secret.clone()).unwrap())
        .collect();
    assert_eq!(
        texts,
        ["second secret of the fleet", "first secret of the fleet"]
    );
    assert!(snapshot.secrets[0].accept_until == 0 && snapshot.secrets[1].accept_until > 0);
    assert!(snapshot.generation > before);
}

#[tokio::test]
async fn a_configured_secret_that_was_rotated_is_not_brought_back() {
    let mut state = State::new(2);
    state.wishes.shared_secret = Some(SharedSecret::new("first secret of the fleet"));
    let running = state.start().await;
    let rotated = SharedSecret::new("second secret of the fleet");
    let rotation = running
        .handle
        .rotate_secret(SecretScope::Fleet, Some(rotated.clone()));
    assert_eq!(rotation.await.unwrap(), 2);
    // No relay is there to wait for.
    let mut views = running.handle.changes();
    let minted = |view: &Arc<FleetView>| *view.minting_secret() == rotated;
    let seen = views.wait_for(minted);
    let seen = tokio::time::timeout(Duration::from_secs(10), seen).await;
    drop(seen.unwrap().unwrap());
    running.stop().await;
    let running = state.start().await;
    assert_eq!(*running.handle.view().minting_secret(), rotated);
}

#[tokio::test]
async fn the_store_follows_the_configuration() {
    let mut state = State::new(2);
    let user = |name: &str| StaticUser {
        name: name.into(),
        key: [7; 16],
        key_sha256: Some([8; 32]),
    };
    state.wishes.users = vec![user("alice"), user("bob")];
    let running = state.start().await;
    running.open(0).await;
    running.stop().await;
    state.wishes.users = vec![user("bob")];
    state.wishes.policy.realm = "example.net".into();
    let running = state.start().await;
    let mut session = running.open(0).await;
    // The relay is the canary: another realm is a change of policy.
    let followed = |offer: &Offer| match offer {
        Offer::Policy(policy) => policy.snapshot().realm == "example.net",
        Offer::Hold => false,
    };
    let offered = session.offers.wait_for(followed);
    let offered = tokio::time::timeout(Duration::from_secs(30), offered).await;
    assert!(offered.is_ok_and(|offered| offered.is_ok()));
    let snapshot = session.snapshot().unwrap();
    let names: Vec<_> = snapshot
        .users
        .iter()
        .map(|user| user.username.as_str())
        .collect();
    assert_eq!(
        (snapshot.realm.as_str(), names),
        ("example.net", vec!["bob"])
    );
}

#[tokio::test]
async fn a_user_that_is_kept_with_one_key_gets_the_other_one_at_the_next_start() {
    let mut state = State::new(2);
    let user = |key_sha256| StaticUser {
        name: "alice".into(),
        key: [7; 16],
        key_sha256,
    };
    for (key_sha256, expected) in [(None, vec![]), (Some([8; 32]), vec![8; 32])] {
        state.wishes.users = vec![user(key_sha256)];
        let running = state.start().await;
        let session = running.open(0).await;
        let told = session.snapshot().unwrap().users[0].clone();
        assert_eq!((told.key, told.key_sha256), (vec![7; 16], expected));
        running.stop().await;
    }
}

#[tokio::test]
async fn another_key_does_not_open_the_store() {
    let state = State::new(2);
    state.start().await.stop().await;
    std::fs::remove_file(state.dir.path().join("store.key")).unwrap();
    let sealer = Sealer::open(&state.dir.path().join("store.key"), true).unwrap();
    let store = Arc::new(state.store().await);
    let opened = Reconciler::open(store, sealer, state.settings.clone(), &state.wishes).await;
    let error = opened.err().unwrap();
    let refused = FleetError::Store(StoreError::Seal(SealError::Refused {
        place: String::new(),
    }));
    assert_eq!(
        std::mem::discriminant(&error),
        std::mem::discriminant(&refused)
    );
}

#[tokio::test]
async fn draining_is_kept_and_told_to_the_node() {
    let state = State::new(2);
    let running = state.start().await;
    let mut session = running.open(0).await;
    assert!(!session.drain.borrow_and_update().draining);
    running
        .handle
        .drain(&node(0), Some(Duration::from_secs(60)))
        .await
        .unwrap();
    session.drain.changed().await.unwrap();
    assert!(session.drain.borrow().draining);
    running
        .until("the node drains", |view| {
            view.nodes[0].draining && view.listed() == 0
        })
        .await;
    running.stop().await;
    let running = state.start().await;
    assert!(running.handle.view().nodes[0].draining);
    let session = running.open(0).await;
    assert!(session.drain.borrow().draining);
    running.handle.undrain(&node(0)).await.unwrap();
    running
        .until("the node is back", |view| !view.nodes[0].draining)
        .await;
    let unknown = running.handle.drain(&node(9), None).await;
    assert!(matches!(unknown, Err(FleetError::UnknownNode(_))));
}

#[tokio::test]
async fn a_forgotten_nodes_ports_are_others_when_an_operator_says_that_nobody_uses_them() {
    let state = State::new(2);
    let running = state.start().await;
    let gone = running.open(0).await;
    running.open(1).await;
    running.handle.drain(&node(0), None).await.unwrap();
    let live = running.handle.forget(&node(0)).await;
    assert!(matches!(live, Err(FleetError::Live(_))), "{live:?}");
    running.handle.session_ended(gone.key, Ended::Goodbye).await;
    running.handle.forget(&node(0)).await.unwrap();
    running
        .until("one node is left", |view| view.nodes.len() == 1)
        .await;
    let quarantined = running.handle.view().quarantined.clone();
    assert_eq!((quarantined.len(), &quarantined[0].node), (1, &node(0)));
    let credential = running.enroll(2).await;
    let refused = running.handle.open_session(&credential, hello(2, 1)).await;
    assert!(matches!(refused, Err(FleetError::PortsExhausted { .. })));
    let grant = &quarantined[0];
    running
        .handle
        .release_ports(grant.public_ip, grant.range)
        .await
        .unwrap();
    let third = running
        .handle
        .open_session(&credential, hello(2, 1))
        .await
        .unwrap();
    assert_eq!(ports(&third), (50000, 50049));
    let again = running
        .handle
        .release_ports(grant.public_ip, "50000-50009".parse().unwrap())
        .await;
    assert!(matches!(again, Err(FleetError::UnknownGrant { .. })));
    let unknown = running.handle.forget(&node(0)).await;
    assert!(matches!(unknown, Err(FleetError::UnknownNode(_))));
}

/// The first relay of an address has all of it, and gives up the upper half when it runs and keeps the policy that says so.
#[tokio::test]
async fn a_second_relay_of_an_address_gets_ports_that_the_first_one_gave_up() {
    let state = State::new(0);
    let running = state.start().await;
    let mut first = running.open(0).await;
    assert_eq!(ports(&first), (50000, 50099));
    first.offers.mark_unchanged();
    let credential = running.enroll(1).await;
    let waits = running.handle.open_session(&credential, hello(1, 1)).await;
    assert!(
        matches!(waits, Err(FleetError::PortsAwaited { owed: 50, .. })),
        "{waits:?}"
    );
    first.offers.changed().await.unwrap();
    assert_eq!(ports(&first), (50000, 50049));
    let heartbeat = |kept_generation, withdrawn: Option<(u32, u32)>| wire::Heartbeat {
        applied_generation: kept_generation,
        kept_generation,
        port_uses: vec![wire::PortUse {
            public_ip: "192.0.2.1".into(),
            used: 1,
            open: vec![wire::PortRange {
                first: 50000,
                last: 50049,
            }],
            withdrawn: withdrawn
                .into_iter()
                .map(|(first, last)| wire::PortRange { first, last })
                .collect(),
        }],
        ..wire::Heartbeat::default()
    };
    let generation = first.offers.borrow().generation().unwrap();
    let busy = heartbeat(generation, Some((50098, 50099)));
    running.handle.heartbeat(&first.key, busy).await.unwrap();
    let waits = running.handle.open_session(&credential, hello(1, 1)).await;
    assert!(matches!(waits, Err(FleetError::PortsAwaited { .. })));
    let idle = heartbeat(generation, None);
    running.handle.heartbeat(&first.key, idle).await.unwrap();
    running
        .until("the ports have changed hands", |view| {
            let second = view.node(&node(1));
            second.is_some_and(|second| !second.grants.is_empty())
        })
        .await;
    let second = running
        .handle
        .open_session(&credential, hello(1, 1))
        .await
        .unwrap();
    assert_eq!(ports(&second), (50050, 50099));
    let snapshot = second.snapshot().unwrap();
    let (first, second) = (ports(&first), &snapshot.port_grants[0]);
    assert!(first == (50000, 50049) && second.not_after > 0);
    // Not a revision: those of another back end begin anew.
    assert!((1..=snapshot.generation).contains(&second.fence));
}

/// Two owners of one store race, as two controllers would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_claims_never_overlap() {
    let state = State::new(10);
    let store = state.store().await;
    let controllers = [
        state.start_on(store.clone()).await,
        state.start_on(store).await,
    ];
    let mut claims = Vec::new();
    for number in 0..10u8 {
        let running = &controllers[usize::from(number % 2)];
        let handle = running.handle.clone();
        let join_token = running.join_token.clone();
        claims.push(tokio::spawn(async move {
            let credential = loop {
                match handle.enroll(&join_token, &node(number)).await {
                    Ok(credential) => break credential,
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            };
            loop {
                match handle.open_session(&credential, hello(number, 1)).await {
                    Ok(session) => break ports(&session),
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            }
        }));
    }
    let mut ranges = Vec::new();
    for claim in claims {
        ranges.push(claim.await.unwrap());
    }
    ranges.sort_unstable();
    let expected: Vec<_> = (0..10).map(|n| (50000 + 10 * n, 50009 + 10 * n)).collect();
    assert_eq!(ranges, expected);
    for running in &controllers {
        running
            .until("both know everybody", |view| view.nodes.len() == 10)
            .await;
    }
}
