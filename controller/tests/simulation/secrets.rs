//! Rotations and revocations of the shared secret, as an operator orders them, and what must hold of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use turnfleet_controller::fleet::record::SecretScope;
use turnfleet_proto::credentials::{SharedSecret, mint};

use crate::chance::Chance;
use crate::relay::Relay;
use crate::site::Site;
use crate::world::World;

/// I3: how long a revoked secret may be honoured after the operator was told that it is revoked.
const HONOURED: Duration = Duration::from_secs(2);
/// What a controller needs to be in step with the store again after trouble: a call that fails, and the rest after it.
const RECOVERY: Duration = Duration::from_secs(4);
/// What an operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The secrets that operators know of.
#[derive(Default)]
pub(crate) struct Secrets {
    known: BTreeMap<u32, SharedSecret>,
    revoked: Vec<Revoked>,
    /// Until when some relay may not know what is minted with in the place of a revoked one.
    unsettled: Option<Instant>,
    /// How many of the revoked ones a copy of the store knows of, and its latest secret.
    copied: (usize, u32),
    /// Whether the store was set back, and nobody has confirmed it.
    is_old: bool,
    /// How often the store has become another one.
    pub(crate) turns: u32,
}

struct Revoked {
    secret: SharedSecret,
    /// Since when the operator knows; `None` where no answer came.
    acknowledged: Option<Instant>,
}

impl Secrets {
    /// Whether a revocation is so fresh that relays need not know its replacement.
    pub(crate) fn are_unsettled(&self) -> bool {
        self.is_old || self.unsettled.is_some_and(|until| Instant::now() < until)
    }

    /// The store is copied.
    pub(crate) fn copied(&mut self) {
        let latest = self.known.keys().next_back().copied();
        self.copied = (self.revoked.len(), latest.unwrap_or(0));
    }

    /// The store is that copy again.
    pub(crate) fn set_back(&mut self) {
        let latest = self.copied.1;
        self.known.retain(|id, _| *id <= latest);
        self.is_old = true;
        self.turns += 1;
    }

    /// An operator follows it as it is: what it has forgotten is good again.
    pub(crate) fn confirmed(&mut self) {
        self.revoked.truncate(self.copied.0);
        self.is_old = false;
        self.turns += 1;
        self.unsettled = Some(Instant::now() + PATIENCE + HONOURED);
    }

    /// Whether a credential made with it may be refused.
    pub(crate) fn is_revoked(&self, secret: &SharedSecret) -> bool {
        self.revoked.iter().any(|revoked| revoked.secret == *secret)
    }
}

/// Begins a rotation.
pub(crate) async fn rotate(world: &World, site: &Site, chance: &mut Chance) {
    let Some(live) = site.live() else { return };
    let secret = SharedSecret::new(format!("secret-{}", chance.number()));
    let turns = world.secrets.borrow().turns;
    let asked = live
        .handle
        .rotate_secret(SecretScope::Fleet, Some(secret.clone()));
    if let Ok(Ok(id)) = timeout(PATIENCE, asked).await {
        world.note(format_args!("operator: secret {id} is staged"));
        let mut secrets = world.secrets.borrow_mut();
        if secrets.turns == turns {
            secrets.known.insert(id, secret);
        }
    }
}

/// Revokes some secret that has been made here, and has another one minted with where it was.
pub(crate) async fn revoke(world: &World, site: &Site, chance: &mut Chance) {
    let Some(live) = site.live() else { return };
    let turns = world.secrets.borrow().turns;
    let (id, place) = {
        let mut secrets = world.secrets.borrow_mut();
        let ids: Vec<u32> = secrets.known.keys().copied().collect();
        let Some(secret) = chance
            .pick(&ids)
            .and_then(|id| secrets.known.remove_entry(id))
        else {
            return;
        };
        let (id, secret) = secret;
        secrets.revoked.push(Revoked {
            secret,
            acknowledged: None,
        });
        secrets.unsettled = Some(Instant::now() + PATIENCE + HONOURED);
        (id, secrets.revoked.len() - 1)
    };
    let cut = chance.one_in(2);
    let asked = timeout(PATIENCE, live.handle.revoke_secret(id, cut, true)).await;
    let done = matches!(asked, Ok(Ok(_)));
    world.note(format_args!("operator: secret {id} is revoked: {done}"));
    let mut secrets = world.secrets.borrow_mut();
    if done && secrets.turns == turns {
        secrets.revoked[place].acknowledged = Some(Instant::now());
    }
}

/// I3: a revoked secret opens no relay that its controller reaches.
pub(crate) fn revoked_ones_are_refused(world: &World) {
    let now = Instant::now();
    let secrets = world.secrets.borrow();
    for revoked in &secrets.revoked {
        let Some(acknowledged) = revoked.acknowledged else {
            continue;
        };
        let credential = mint(&revoked.secret, "somebody", world.now().unix + 3_000);
        for relay in &world.relays {
            if relay.would_accept(world, &credential) != Some(true) {
                continue;
            }
            let Some(reached) = reached_since(world, relay) else {
                continue;
            };
            let honoured = now.saturating_duration_since(reached.max(acknowledged));
            if honoured > HONOURED {
                world.broken(format_args!(
                    "I3: {} honours a revoked secret {honoured:?} after its revocation (generation {})",
                    relay.id,
                    relay.generation(),
                ));
            }
        }
    }
}

/// Since when `relay` has had a session with a controller that is in step with the store.
fn reached_since(world: &World, relay: &Relay) -> Option<Instant> {
    let (session, resumed) = {
        let state = relay.state.borrow();
        let run = state.run.as_ref()?;
        (run.session?, run.process.resumed())
    };
    let (index, since) = session;
    let site = &world.sites[index];
    let live = site.live()?;
    let quiet = [
        live.since,
        live.process.resumed()?,
        site.way.quiet_since(),
        relay.control[index].quiet_since(),
        resumed?,
    ];
    let quiet = quiet.into_iter().max()?;
    Some(since.max(quiet + RECOVERY))
}
