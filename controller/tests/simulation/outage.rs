//! Controllers that are away for days (R27): relays restart meanwhile, and serve everybody whose credential is valid.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use turnfleet_proto::credentials::{SharedSecret, mint};

use crate::chance::Chance;
use crate::relay::{Answer, Relay};
use crate::world::World;

/// Ends every controller for so long, and starts them again.
pub(crate) async fn pass(world: &Rc<World>, time: Duration, mut chance: Chance) {
    let live = world.sites.iter().find_map(|site| site.live());
    let Some(live) = live else {
        world.broken(format_args!("no controller serves before the outage"));
        return;
    };
    let secret = live.handle.view().minting_secret().clone();
    for site in &world.sites {
        site.kill(world);
    }
    let end = Instant::now() + time;
    while Instant::now() < end {
        chance.pause(30_000, 600_000).await;
        let index = chance.below(world.relays.len());
        let relay = &world.relays[index];
        if chance.one_in(3) {
            reboot(world, relay, &mut chance).await;
        }
        call(world, relay, &secret);
    }
    for site in &world.sites {
        site.start(world);
    }
}

async fn reboot(world: &Rc<World>, relay: &Rc<Relay>, chance: &mut Chance) {
    relay.kill(world);
    chance.pause(100, 60_000).await;
    relay.start(world);
    // Its disk has all that it needs.
    sleep(Duration::from_secs(2)).await;
}

/// A homeserver mints by itself, and its user allocates.
fn call(world: &World, relay: &Relay, secret: &SharedSecret) {
    let credential = mint(secret, "somebody", world.now().unix + 3_600);
    let answer = relay.allocate(world, &credential);
    if answer == Answer::Allocated {
        world.allocations.set(world.allocations.get() + 1);
    } else {
        let id = &relay.id;
        world.broken(format_args!(
            "R27: {id} answers a valid credential with {answer:?}"
        ));
    }
}
