//! What holds whatever happens (RELIABILITY.md): looked at with each step that could break it, and in full each second.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval};
use turnfleet_controller::fleet::{FleetView, NodeView};
use turnfleet_controller::reconcile::Handle;

use crate::relay::Relay;
use crate::secrets;
use crate::site::{Live, Site};
use crate::world::World;

/// What a relay that serves may be away from lists, and what a controller may need to find the relays that serve: a way
/// back after a fault takes ten seconds of good probes.
const FOUND: Duration = Duration::from_secs(25);

/// I1, at the step: a relayed port that a relay opens is nobody's.
pub(crate) fn port_is_free(world: &World, relay: &Relay, port: u16) {
    let place = (relay.public_ip, port);
    if let Some(owner) = world.ports.borrow_mut().insert(place, relay.index) {
        let owner = &world.relays[owner].id;
        let (id, ip) = (&relay.id, relay.public_ip);
        world.broken(format_args!(
            "I1: {id} opens {ip}:{port}, which {owner} holds"
        ));
    }
}

/// I1, ahead of the step: no two processes may open the same port.
pub(crate) fn ranges_are_apart(world: &World, relay: &Relay) {
    let state = relay.state.borrow();
    let Some(run) = &state.run else { return };
    let first = relay.index - relay.index % world.plan.sharing;
    for other in world.relays.iter().skip(first).take(world.plan.sharing) {
        if other.index == relay.index {
            continue;
        }
        let others = other.state.borrow();
        let Some(theirs) = &others.run else { continue };
        for own in &run.granted {
            let overlap = |grant: &&turnfleet_relay::GrantedRange| {
                grant.public == own.public && grant.range.overlaps(own.range)
            };
            if theirs.granted.iter().any(|grant| overlap(&grant)) {
                world.broken(format_args!(
                    "I1: {} may open {} {}, and so may {}",
                    relay.id, own.public, own.range, other.id
                ));
            }
        }
    }
}

/// I2, at the step: a relay that runs another policy accepts what those who list it mint.
pub(crate) fn suits_its_lists(world: &World, relay: &Relay) {
    for site in &world.sites {
        if let Some(live) = site.live() {
            let view = live.handle.view();
            if let Some(node) = view.node(&relay.id).filter(|node| node.listed) {
                credentials_are_accepted(world, site, &view, [node]);
            }
        }
    }
}

/// I2 and I4, at the step: whatever a controller publishes is true at once, of who comes into its lists, and of all of them
/// where it mints with another secret.
pub(crate) async fn follow(world: Rc<World>, site: Rc<Site>, handle: Handle) {
    let mut views = handle.changes();
    let mut before = handle.view();
    while views.changed().await.is_ok() {
        let view = Arc::clone(&views.borrow_and_update());
        let same_secret = view.minting_secret() == before.minting_secret();
        let listed = view.beside(&before).filter(|(node, _)| node.listed);
        let fresh = listed.filter(|(_, known)| !same_secret || !known.is_some_and(|it| it.listed));
        let fresh = fresh.map(|(node, _)| node);
        credentials_are_accepted(&world, &site, &view, fresh);
        if let Some(live) = site.live().filter(|_| view.listed() < before.listed()) {
            lists_are_not_empty(&world, &site, &live, &view);
        }
        before = view;
    }
}

/// Looks at everything each second, for as long as the run lasts.
pub(crate) async fn watch(world: Rc<World>) {
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        for relay in &world.relays {
            relay.sweep(&world);
        }
        ports_have_one_owner(&world);
        secrets::revoked_ones_are_refused(&world);
        for site in &world.sites {
            if let Some(breach) = site.way.breach() {
                world.broken(format_args!("fence: {breach}"));
            }
            if let Some(live) = site.live() {
                let view = live.handle.view();
                let listed = view.nodes.iter().filter(|node| node.listed);
                credentials_are_accepted(&world, site, &view, listed);
                clocks_are_right(&world, site, &view);
                lists_are_not_empty(&world, site, &live, &view);
            }
        }
    }
}

/// I1, in full.
fn ports_have_one_owner(world: &World) {
    let mut owners = BTreeMap::new();
    for relay in &world.relays {
        let state = relay.state.borrow();
        let Some(run) = &state.run else { continue };
        for port in run.allocations.keys() {
            if let Some(other) = owners.insert((relay.public_ip, *port), &relay.id) {
                let (id, ip) = (&relay.id, relay.public_ip);
                world.broken(format_args!("I1: {id} and {other} both hold {ip}:{port}"));
            }
        }
    }
}

/// I2: what a controller mints at this moment is accepted by every relay that it lists.
fn credentials_are_accepted<'n>(
    world: &World,
    site: &Site,
    view: &FleetView,
    nodes: impl IntoIterator<Item = &'n Arc<NodeView>>,
) {
    let secrets = world.secrets.borrow();
    // With a wrong clock credentials end too early or too late.
    if !site.has_right_clock() || world.sites.iter().any(|site| site.way.misdated()) {
        return;
    }
    // A controller that is cut off from the store does not know of a revocation yet.
    if secrets.are_unsettled() || secrets.is_revoked(view.minting_secret()) {
        return;
    }
    let credential = site.credential(world, view, "anybody");
    for node in nodes {
        let Some(relay) = world.relay(&node.id).filter(|it| it.has_right_clock()) else {
            continue;
        };
        if relay.would_accept(world, &credential) == Some(false) {
            world.broken(format_args!(
                "I2: {} lists {} ({}, generation {} of {}, known {}, probe {:?}), which refuses what it mints: {:?}",
                site.name,
                relay.id,
                node.health.name(),
                relay.generation(),
                view.generation,
                node.applied_generation,
                node.probe,
                view.secrets,
            ));
        }
    }
}

/// R17: a relay whose clock is an hour off is not listed beside those with a right one.
fn clocks_are_right(world: &World, site: &Site, view: &FleetView) {
    let good = |node: &&Arc<NodeView>| {
        let clock = node.clock_skew_millis.is_none_or(|it| it.abs() < 1_000);
        node.listed && clock && node.damped_for.is_none() && node.up_to_date
    };
    if !site.has_right_clock() || !view.nodes.iter().any(|node| good(&node)) {
        return;
    }
    for node in view.nodes.iter().filter(|node| node.listed) {
        let Some(relay) = world.relay(&node.id) else {
            continue;
        };
        if relay.shows_wrong_clock(site) {
            let (name, id) = (&site.name, &relay.id);
            world.broken(format_args!(
                "R17: {name} lists {id} beside others, whose clock is wrong"
            ));
        }
    }
}

/// I4: a controller has somebody to name as long as there is one that serves.
fn lists_are_not_empty(world: &World, site: &Site, live: &Live, view: &FleetView) {
    let now = Instant::now();
    if view.listed() > 0 || now.duration_since(live.since) < FOUND {
        return;
    }
    let credential = site.credential(world, view, "anybody");
    let proven = |relay: &&Rc<Relay>| {
        let state = relay.state.borrow();
        let since = state.run.as_ref().and_then(|run| run.serves_since);
        let Some(since) = since else { return false };
        let quiet = relay.data[site.index].quiet_since().max(since);
        let drains = state.run.as_ref().is_some_and(|run| run.draining);
        let wished = view.node(&relay.id).is_none_or(|node| node.draining);
        drop(state);
        !drains
            && !wished
            && relay.has_right_clock()
            && now.duration_since(quiet) >= FOUND
            && relay.would_accept(world, &credential) == Some(true)
    };
    if let Some(relay) = world.relays.iter().find(proven) {
        let health = view.node(&relay.id).map(|node| node.health.name());
        world.broken(format_args!(
            "I4: the list of {} is empty, and {} serves ({health:?} there)",
            site.name, relay.id
        ));
    }
}

/// After a calm: every relay has a session and the latest policy, and every controller lists every one.
///
/// # Errors
/// With what is not well.
pub(crate) fn all_is_well(world: &World) -> Result<(), String> {
    let mut generation = None;
    let leaders = world.sites.iter().filter_map(|site| site.live());
    let leaders = leaders.filter(|live| live.handle.view().leads).count();
    if leaders != 1 {
        return Err(format!("{leaders} controllers lead after the calm"));
    }
    for site in &world.sites {
        let name = &site.name;
        let live = site.live();
        let live = live.ok_or_else(|| format!("{name} does not serve after the calm"))?;
        let view = live.handle.view();
        let first = *generation.get_or_insert(view.generation);
        if first != view.generation {
            let own = view.generation;
            return Err(format!(
                "{name} is at generation {own}, another one at {first}"
            ));
        }
        for relay in &world.relays {
            let node = view.node(&relay.id);
            // One that failed again and again is left out for ten minutes.
            if !node.is_some_and(|node| node.listed || node.damped_for.is_some()) {
                let health = node.map(|node| (node.health.name(), node.draining));
                let id = &relay.id;
                return Err(format!(
                    "{name} does not list {id} after the calm ({health:?})"
                ));
            }
        }
    }
    for relay in &world.relays {
        let state = relay.state.borrow();
        let session = state.run.as_ref().and_then(|run| run.session);
        let running = state.run.as_ref().map_or(0, |run| run.generation);
        if session.is_none() || Some(running) != generation {
            return Err(format!(
                "{} has session {session:?} and generation {running} of {generation:?} after the calm",
                relay.id
            ));
        }
    }
    Ok(())
}
