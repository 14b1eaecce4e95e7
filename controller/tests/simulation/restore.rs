//! A store that is set back to an older copy under its controllers (R25): nothing that it has forgotten happens again before
//! an operator confirms.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::secrets;
use crate::site::{Live, Site};
use crate::world::World;

/// How long controllers may take to see that the store went back.
const NOTICED: Duration = Duration::from_secs(20);

/// Sets the store back to before a rotation and a revocation, and lets an operator confirm it.
pub(crate) async fn happen(world: &Rc<World>, mut chance: Chance) {
    secrets::rotate(world, &any_site(world, &mut chance), &mut chance).await;
    chance.pause(2_000, 4_000).await;
    let copy = world.store.backup();
    world.secrets.borrow_mut().copied();
    world.note(format_args!("the store is copied"));
    secrets::rotate(world, &any_site(world, &mut chance), &mut chance).await;
    chance.pause(2_000, 4_000).await;
    secrets::revoke(world, &any_site(world, &mut chance), &mut chance).await;
    chance.pause(2_000, 10_000).await;
    world.store.restore(copy);
    world.secrets.borrow_mut().set_back();
    world.note(format_args!("the store is set back to its copy"));
    let begun = Instant::now();
    while !confirm(world, &mut chance).await {
        if begun.elapsed() > NOTICED {
            world.broken(format_args!("R25: nobody sees that the store was set back"));
            return;
        }
        // What an operator who does not know of it tries is refused, or it would be seen at the relays.
        secrets::rotate(world, &any_site(world, &mut chance), &mut chance).await;
        sleep(Duration::from_millis(500)).await;
    }
    world.secrets.borrow_mut().confirmed();
}

fn any_site(world: &World, chance: &mut Chance) -> Rc<Site> {
    Rc::clone(&world.sites[chance.below(world.sites.len())])
}

async fn confirm(world: &World, chance: &mut Chance) -> bool {
    let noticed = |live: &Live| live.handle.view().restored.is_some();
    let mut live = world.sites.iter().filter_map(|site| site.live());
    let Some(live) = live.find(noticed) else {
        return false;
    };
    world.note(format_args!("operator: the store is an old one"));
    chance.pause(500, 6_000).await;
    let done = live.handle.confirm_restore().await.is_ok();
    world.note(format_args!("operator: the store is confirmed: {done}"));
    done
}
