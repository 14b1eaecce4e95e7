//! The life of shared secrets beside that of the relays: nobody is given a credential that a listed relay refuses.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use turnfleet_controller::fleet::record::{Record, SecretGeneration, SecretScope, SecretState};
use turnfleet_controller::fleet::{
    Ask, Ended, Event, FleetView, Load, NodeView, Pin, Registration, Revocation, Running,
};
use turnfleet_proto::credentials::{EphemeralUsername, SharedSecret};
use turnfleet_proto::fleet::Snapshot;
use turnfleet_proto::probe_name::ProbeKey;

use crate::stage::{Stage, host, id, identity};

const FLEET: SecretScope = SecretScope::Fleet;

fn secret(text: &str) -> SharedSecret {
    SharedSecret::new(text)
}

fn stage(nodes: u8) -> Stage {
    Stage::kept_up(nodes)
}

impl Stage {
    /// Carries out what is due; says whether there was anything.
    fn keep_up(&mut self) -> bool {
        let due = self.fleet.is_upkeep_due(self.now);
        self.carry_out(self.fleet.plan_upkeep(self.now, [5; 32]));
        due
    }

    fn rotate(&mut self, scope: &SecretScope, text: &str) -> u32 {
        let plan = self
            .fleet
            .plan_rotation(self.now.unix, scope, &secret(text));
        let (id, plan) = plan.unwrap();
        self.carry_out(plan);
        id
    }

    fn state(&self, id: u32) -> SecretState {
        let view = self.view();
        view.secrets.iter().find(|it| it.id == id).unwrap().state
    }

    /// The node runs the latest policy, and says so.
    fn acknowledge(&mut self, number: u8) {
        self.heartbeat(number, self.fleet.generation(), Load::default());
    }

    fn minted(&self) -> SharedSecret {
        self.view().minting_secret().clone()
    }
}

#[test]
fn a_secret_becomes_active_when_every_relay_of_the_lists_has_it() {
    let mut stage = stage(3);
    let two = stage.rotate(&FLEET, "two");
    for number in 0..3 {
        assert!(!stage.keep_up(), "{number} relays of 3 have it");
        assert_eq!(stage.minted(), secret("north"));
        stage.acknowledge(number);
    }
    assert!(stage.keep_up());
    assert_eq!(stage.minted(), secret("two"));
    assert_eq!(stage.state(two), SecretState::Active);
    let accept_until = stage.now.unix + 86_520;
    assert_eq!(stage.state(1), SecretState::Retiring { accept_until });
    assert_eq!(stage.listed().len(), 3);
    let shown = stage.view().secrets[1].clone();
    assert_eq!((shown.acknowledged, shown.of, shown.minted), (3, 3, true));
}

#[test]
fn a_laggard_leaves_the_lists_and_does_not_hold_a_rotation_up() {
    let mut stage = stage(3);
    stage.rotate(&FLEET, "two");
    stage.wait(4900);
    stage.acknowledge(0);
    stage.acknowledge(1);
    assert!(!stage.keep_up());
    stage.wait(100);
    assert!(stage.keep_up());
    // The change of the states is another generation, which gives nobody time to lack the secret.
    assert_eq!(stage.listed(), ["relay-0", "relay-1"]);
    stage.acknowledge(2);
    assert_eq!(stage.listed().len(), 3);
}

#[test]
fn a_relay_that_refuses_the_policy_is_not_waited_for() {
    let mut stage = stage(2);
    stage.rotate(&FLEET, "two");
    stage.acknowledge(0);
    let event = Event::PolicyStatus {
        session: stage.session(1),
        generation: 8,
        running: 7,
        refusal: Some("no".into()),
    };
    stage.fleet.apply(stage.now, event);
    assert!(stage.keep_up());
    assert_eq!(stage.listed(), ["relay-0"]);
}

#[test]
fn a_relay_without_a_session_is_waited_for_a_minute() {
    let mut stage = stage(2);
    stage.end(1, Ended::Reset);
    stage.probe(1, true);
    assert_eq!(stage.listed().len(), 2);
    stage.rotate(&FLEET, "two");
    for _ in 0..12 {
        stage.acknowledge(0);
        assert!(!stage.keep_up());
        stage.wait(5000);
    }
    stage.acknowledge(0);
    assert!(stage.keep_up());
    assert_eq!(stage.listed(), ["relay-0"]);
}

#[test]
fn nobody_mints_with_what_no_relay_has() {
    let mut stage = stage(2);
    stage.rotate(&FLEET, "two");
    for _ in 0..20 {
        stage.wait(5000);
        stage.heartbeat(0, 7, Load::default());
        stage.heartbeat(1, 7, Load::default());
        assert!(!stage.keep_up());
    }
    assert_eq!(stage.minted(), secret("north"));
}

#[test]
fn a_secret_grows_as_old_as_the_configuration_wants() {
    let mut stage = stage(1);
    stage.fleet = {
        let mut settings = Stage::settings();
        settings.rotate_secrets_every = Some(Duration::from_secs(3600));
        turnfleet_controller::fleet::Fleet::new(settings)
    };
    stage.store(Record::Secret(SecretGeneration {
        id: 1,
        scope: FLEET,
        secret: secret("north"),
        state: SecretState::Active,
        created_at: stage.now.unix,
        since_generation: 1,
    }));
    stage.keep_up();
    stage.now.unix += 3599;
    assert!(!stage.keep_up());
    stage.now.unix += 1;
    assert!(stage.keep_up(), "another is staged");
    assert!(stage.keep_up(), "no relay is there to wait for");
    assert_ne!(stage.minted(), secret("north"));
    assert!(!stage.keep_up());
}

#[test]
fn a_list_of_one_region_has_credentials_of_that_region() {
    let mut stage = stage(2);
    let mut south = identity(2);
    south.region = "south".into();
    stage.join(2, south);
    let own = stage.rotate(&SecretScope::Region("north".into()), "of the north");
    stage.acknowledge(0);
    stage.acknowledge(1);
    assert!(stage.keep_up(), "the south need not know of it");
    let view = stage.view();
    let minted = |region| {
        let ask = Ask {
            region: Some(region),
            ..Ask::default()
        };
        view.offer(&ask).1.clone()
    };
    assert_eq!(minted("north"), secret("of the north"));
    // One relay of the south, and one of the north.
    assert_eq!(minted("south"), secret("north"));
    let ids = |number| -> Vec<u32> {
        let snapshot = stage.fleet.snapshot(&id(number)).unwrap();
        snapshot.secrets.iter().map(|it| it.id).collect()
    };
    assert_eq!((ids(0), ids(2)), (vec![own, 1], vec![1]));
}

#[test]
fn a_relay_that_moves_to_another_region_is_sent_another_policy() {
    let mut stage = stage(1);
    let moved = |stage: &Stage| {
        let mut identity = identity(0);
        identity.region = "south".into();
        let registration = Registration {
            id: id(0),
            incarnation: [2; 16],
            identity,
            running: Running {
                generation: stage.fleet.generation(),
                ..Running::default()
            },
            allocations: 1,
        };
        let plan = stage
            .fleet
            .plan_registration(&registration, stage.now.unix)
            .unwrap();
        let generation = |record: &Record| matches!(record, Record::Generation(_));
        // Its first ports raise the generation anyway.
        let grants = |record: &Record| matches!(record, Record::Grant(_));
        (
            plan.puts.iter().any(generation),
            plan.puts.iter().any(grants),
        )
    };
    stage.store(Record::Grant(
        turnfleet_controller::fleet::record::PortGrant::held(
            id(0),
            [192, 0, 2, 0].into(),
            turnfleet_proto::PortRange::DYNAMIC,
        ),
    ));
    assert_eq!(moved(&stage), (false, false));
    stage.rotate(&SecretScope::Region("north".into()), "of the north");
    assert_eq!(moved(&stage), (true, false));
}

#[test]
fn a_revoked_secret_leaves_the_snapshot_and_what_was_made_with_it_is_named() {
    let mut stage = stage(1);
    let revocation = Revocation {
        cut: true,
        replacement: Some(secret("two")),
    };
    let unix = stage.now.unix;
    let (replaced, plan) = stage.fleet.plan_revocation(unix, 1, &revocation).unwrap();
    stage.carry_out(plan);
    let snapshot = stage.fleet.snapshot(&id(0)).unwrap();
    let ids: Vec<_> = snapshot.secrets.iter().map(|it| it.id).collect();
    assert_eq!((replaced, ids), (Some(2), vec![2]));
    let revoked = snapshot.revoked_secrets[0];
    assert_eq!((revoked.id, revoked.cut), (1, true));
    assert_eq!(stage.minted(), secret("two"));
}

#[test]
fn uses_are_shown_and_those_of_unknown_secrets_forgotten() {
    let mut stage = stage(1);
    let unix = stage.now.unix;
    let uses = vec![(1, unix - 5), (9, unix), (1, unix - 7)];
    stage.fleet.apply(stage.now, Event::SecretsUsed { uses });
    assert_eq!(stage.view().secrets[0].last_used, Some(unix - 5));
    // A relay whose clock is ahead has not seen the future.
    let uses = vec![(1, unix + 500)];
    stage.fleet.apply(stage.now, Event::SecretsUsed { uses });
    assert_eq!(stage.view().secrets[0].last_used, Some(unix));
}

#[test]
fn a_nonce_key_signs_when_every_relay_verifies_it() {
    let mut stage = stage(2);
    stage.now.unix += 86_400;
    assert!(stage.keep_up());
    let signing = |stage: &Stage| {
        let keys = stage.fleet.snapshot(&id(0)).unwrap().nonce_keys;
        let signing = keys.iter().filter(|key| !key.staged).map(|key| key.id);
        (keys.len(), signing.max())
    };
    // So does the key of the probe's username.
    let proves = |stage: &Stage| {
        let username = format!("1500:{}", stage.view().probe_user(1500));
        let parsed = EphemeralUsername::parse(&username).unwrap();
        let keys = stage.fleet.snapshot(&id(0)).unwrap().nonce_keys;
        let mut keys = keys.iter();
        let made = keys.find(|key| ProbeKey::of_nonce_key(&key.key).has_made(parsed));
        made.map(|key| key.id)
    };
    assert_eq!((signing(&stage), proves(&stage)), ((2, Some(1)), Some(1)));
    stage.acknowledge(0);
    assert!(!stage.keep_up());
    stage.acknowledge(1);
    assert!(stage.keep_up());
    assert_eq!((signing(&stage), proves(&stage)), ((2, Some(2)), Some(2)));
    assert!(!stage.keep_up());
}

#[derive(Clone, Debug)]
enum Step {
    Rotate(bool),
    Pin(u32),
    Unpin(u32),
    KeepUp,
    Acknowledge(u8),
    Lag(u8),
    Lose(u8),
    Return(u8),
    Probe(u8, bool),
    Mint(u8),
    Wait(u64),
    Days(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0u8..4;
    prop_oneof![
        3 => any::<bool>().prop_map(Step::Rotate),
        1 => (1u32..6).prop_map(Step::Pin),
        1 => (1u32..6).prop_map(Step::Unpin),
        6 => Just(Step::KeepUp),
        8 => node().prop_map(Step::Acknowledge),
        3 => node().prop_map(Step::Lag),
        1 => node().prop_map(Step::Lose),
        2 => node().prop_map(Step::Return),
        2 => (node(), any::<bool>()).prop_map(|(node, good)| Step::Probe(node, good)),
        4 => (0u8..8).prop_map(Step::Mint),
        4 => (1u64..60).prop_map(|tenths| Step::Wait(tenths * 100)),
        1 => (1u64..3).prop_map(Step::Days),
    ]
}

/// Four relays, the last of another region, each with the policy that it runs.
struct World {
    stage: Stage,
    runs: BTreeMap<u8, Snapshot>,
    /// What credentials were minted with, for which relays, and until when they are good.
    minted: Vec<(Vec<u8>, u8, u64)>,
    named: u32,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            stage: stage(3),
            runs: BTreeMap::new(),
            minted: Vec::new(),
            named: 0,
        };
        let mut south = identity(3);
        south.region = "south".into();
        world.stage.join(3, south);
        for number in 0..4 {
            world.catch_up(number);
        }
        world
    }

    fn catch_up(&mut self, number: u8) {
        let snapshot = self.stage.fleet.snapshot(&id(number)).unwrap();
        self.runs.insert(number, snapshot);
    }

    fn accepts(&self, number: u8, secret: &[u8]) -> bool {
        let unix = self.stage.now.unix;
        let live = |until: u64| until == 0 || unix <= until;
        let mut secrets = self.runs[&number].secrets.iter();
        secrets.any(|it| it.secret == secret && live(it.accept_until))
    }

    fn is_connected(&self, number: u8) -> bool {
        let view = self.stage.view();
        view.node(&id(number)).unwrap().connected
    }

    fn take(&mut self, step: &Step) {
        let unix = self.stage.now.unix;
        match *step {
            Step::Rotate(region) => {
                self.named += 1;
                let scope = match region {
                    true => SecretScope::Region("north".into()),
                    false => FLEET,
                };
                let made = secret(&format!("secret {}", self.named));
                if let Ok((_, plan)) = self.stage.fleet.plan_rotation(unix, &scope, &made) {
                    self.stage.carry_out(plan);
                }
            }
            Step::Pin(id) => {
                if let Ok((_, plan)) = self.stage.fleet.plan_pin(unix, &Pin::Generation(id)) {
                    self.stage.carry_out(plan);
                }
            }
            Step::Unpin(id) => {
                if let Ok(plan) = self.stage.fleet.plan_unpin(unix, id) {
                    self.stage.carry_out(plan);
                }
            }
            Step::KeepUp => drop(self.stage.keep_up()),
            Step::Acknowledge(node) if self.is_connected(node) => {
                self.catch_up(node);
                self.stage.acknowledge(node);
            }
            Step::Lag(node) if self.is_connected(node) => {
                let runs = self.runs[&node].generation;
                self.stage.heartbeat(node, runs, Load::default());
            }
            Step::Acknowledge(_) | Step::Lag(_) => {}
            Step::Lose(node) => self.stage.end(node, Ended::Reset),
            Step::Return(node) => {
                let runs = self.runs[&node].generation;
                let identity = self.stage.view().node(&id(node)).unwrap().identity.clone();
                self.stage.comes_back(node, (*identity).clone(), runs);
            }
            Step::Probe(node, good) => {
                // A probe is good with the latest secret only.
                let view = self.stage.view();
                let (latest, _) = view.trial_secret(view.node(&id(node)).unwrap());
                let good = good && self.accepts(node, latest.as_bytes());
                self.stage.probe(node, good);
            }
            Step::Mint(user) => self.mint(user),
            Step::Wait(millis) => self.stage.wait(millis),
            Step::Days(days) => self.stage.now.unix += days * 86_400,
        }
        let unix = self.stage.now.unix;
        self.minted.retain(|(_, _, until)| *until >= unix);
    }

    /// A credential and a list, which name relays by their addresses.
    fn mint(&mut self, user: u8) {
        let view = self.stage.view();
        let user = user.to_string();
        let ask = Ask {
            user: &user,
            ..Ask::default()
        };
        let (uris, secret) = view.offer(&ask);
        if !self.can_name_a_good_one() {
            return;
        }
        let until = self.stage.now.unix + 86_400;
        for uri in uris.iter() {
            let number = host(uri).rsplit('.').next().unwrap().parse().unwrap();
            self.minted
                .push((secret.as_bytes().to_vec(), number, until));
        }
    }

    /// Whether some relay that serves accepts what is minted: a list is never empty while a relay serves, and otherwise there
    /// is nothing better to name.
    fn can_name_a_good_one(&self) -> bool {
        let view = self.stage.view();
        let nodes = (0..4).map(|number| (number, view.node(&id(number)).unwrap()));
        let mut serving =
            nodes.filter(|(_, it)| matches!(it.health.name(), "healthy" | "unmanaged"));
        serving.any(|(number, node)| self.takes(number, &view, node))
    }

    /// Whether a relay accepts all that is minted for it.
    fn takes(&self, number: u8, view: &FleetView, node: &NodeView) -> bool {
        let fleet = view.minting_secret().as_bytes();
        let today = view.minting_secret_for("", [node]).as_bytes();
        self.accepts(number, fleet) && self.accepts(number, today)
    }

    /// Every relay that lists name accepts what is minted for it, and what was.
    fn check(&self) -> Result<(), TestCaseError> {
        let view = self.stage.view();
        if !self.can_name_a_good_one() {
            return Ok(());
        }
        for number in (0..4).filter(|number| view.node(&id(*number)).unwrap().listed) {
            let node = view.node(&id(number)).unwrap();
            prop_assert!(self.takes(number, &view, node), "relay {number} is listed");
            for (secret, relay, _) in &self.minted {
                prop_assert!(
                    *relay != number || self.accepts(number, secret),
                    "a credential of {} at relay {number}",
                    String::from_utf8_lossy(secret)
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_valid_credential_is_accepted_by_every_listed_relay(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            world.check()?;
        }
    }
}
