//! Clients: each asks some controller for a credential and a list, and allocates where the list leads.

use std::rc::Rc;

use turnfleet_controller::fleet::{Ask, UriKind};
use turnfleet_proto::TurnUri;

use crate::chance::Chance;
use crate::relay::Answer;
use crate::world::World;

/// Lets clients come, one after another.
pub(crate) async fn come(world: Rc<World>, mut chance: Chance) {
    loop {
        chance.pause(1, world.plan.client_gap).await;
        let number = chance.number() % 10_000;
        let client = Client {
            world: Rc::clone(&world),
            chance: chance.fork(),
            user: format!("user-{number}"),
        };
        tokio::task::spawn_local(client.call());
    }
}

struct Client {
    world: Rc<World>,
    chance: Chance,
    user: String,
}

impl Client {
    async fn call(mut self) {
        let world = Rc::clone(&self.world);
        let live = world
            .sites
            .iter()
            .filter_map(|site| Some((site, site.live()?)));
        let live: Vec<_> = live.collect();
        let Some((site, live)) = self.chance.pick(&live) else {
            return;
        };
        let view = live.handle.view();
        let uris = view.list(&Ask {
            user: &self.user,
            kinds: &[UriKind::Udp],
            count: Some(3),
            ..Ask::default()
        });
        let credential = site.credential(&world, &view, &self.user);
        let secret = view.minting_secret().clone();
        let excused = world.secrets.borrow().are_unsettled()
            || !site.has_right_clock()
            || world.sites.iter().any(|site| site.way.misdated());
        let turns = world.secrets.borrow().turns;
        // Some allocate at once, some long after they were given the list.
        if self.chance.one_in(4) {
            self.chance.pause(100, 20_000).await;
        } else {
            self.chance.pause(1, 100).await;
        }
        for uri in uris.iter() {
            let host = uri.parse::<TurnUri>().unwrap().host;
            let Some(relay) = world.relay_at(&host) else {
                world.broken(format_args!("a list leads to {uri}, where no relay is"));
                return;
            };
            match relay.allocate(&world, &credential) {
                Answer::Allocated => {
                    world.allocations.set(world.allocations.get() + 1);
                    return;
                }
                Answer::Unauthorized
                    if excused
                        || world.secrets.borrow().turns != turns
                        || world.secrets.borrow().is_revoked(&secret) =>
                {
                    return;
                }
                Answer::Unauthorized if !relay.has_right_clock() => {}
                Answer::Unauthorized => {
                    world.broken(format_args!(
                        "I2: {} refuses a credential that {} gave with it in the list",
                        relay.id, site.name
                    ));
                    return;
                }
                Answer::TryAlternate | Answer::Full | Answer::Silence => {}
            }
        }
    }
}
