//! What controllers tell each other, on ways that can be cut in one direction and not in the other.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use turnfleet_controller::fleet::{ControllerId, Sighting};
use turnfleet_controller::reconcile::Handle;
use turnfleet_proto::fleet::Sightings;

use crate::chance::Chance;
use crate::site::Site;
use crate::wire::Pipe;
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(500);

/// Tells every follower of `site` what it sees, the freshest only.
pub(crate) async fn tell(site: Rc<Site>, handle: Handle) {
    let mut sightings = handle.sightings();
    while sightings.changed().await.is_ok() {
        let seen = sightings.borrow_and_update().as_ref().clone();
        let mut followers = site.followers.borrow_mut();
        followers.retain(|follower| !follower.is_closed());
        for follower in followers.iter() {
            if follower.len() == 0 {
                follower.send(seen.clone());
            }
        }
    }
}

/// Follows `other` for as long as the process of the follower lives.
pub(crate) async fn follow(
    world: Rc<World>,
    follower: Rc<Site>,
    other: Rc<Site>,
    handle: Handle,
    mut chance: Chance,
) {
    let name: ControllerId = other.name.as_str().into();
    loop {
        let wire = &world.between[other.index][follower.index];
        chance.pause(2, 20).await;
        if wire.is_cut() {
            sleep(PATIENCE).await;
        } else if other.live().is_some() {
            let pipe: Pipe<Sightings> = Pipe::new(wire, chance.fork());
            other.followers.borrow_mut().push(pipe.clone());
            while let Ok(Ok(seen)) = timeout(SILENCE, pipe.receive()).await {
                let read = seen.nodes.into_iter().filter_map(Sighting::read);
                handle.report_sightings(&name, read.collect()).await;
            }
            pipe.close();
        }
        sleep(PAUSE).await;
    }
}
