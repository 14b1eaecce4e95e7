//! What goes wrong, and when.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::chance::Chance;
use crate::relay::Relay;
use crate::site::Site;
use crate::world::World;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Relay(OfRelay),
    Cut(Cut),
    Controller(OfController),
    Store(OfStore),
    /// One controller does not hear another one, which may well hear it.
    Deaf,
    /// An operator drains a relay for a while.
    Drain,
    /// An operator rotates the shared secret.
    Rotation,
    /// An operator revokes one.
    Revocation,
}

/// What happens to a relay's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfRelay {
    Crash,
    /// SIGSTOP.
    Stop,
    /// A crash after which the disk is empty.
    DiskLost,
}

/// Which of a relay's ways are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The session's with one controller.
    One,
    /// The session's with every controller.
    Sessions,
    /// All of them.
    Everything,
}

/// What happens to a controller's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfController {
    Crash,
    /// SIGSTOP.
    Stop,
}

/// What happens between a controller and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfStore {
    Away,
    Slow,
    AnswersLost,
    WatchBroken,
    /// The store forgets its history.
    Compaction,
}

/// Each as likely as it is often named.
const FAULTS: [Fault; 26] = [
    Fault::Relay(OfRelay::Crash),
    Fault::Relay(OfRelay::Crash),
    Fault::Relay(OfRelay::Crash),
    Fault::Relay(OfRelay::Stop),
    Fault::Relay(OfRelay::DiskLost),
    Fault::Cut(Cut::One),
    Fault::Cut(Cut::One),
    Fault::Cut(Cut::Sessions),
    Fault::Cut(Cut::Sessions),
    Fault::Cut(Cut::Everything),
    Fault::Cut(Cut::Everything),
    Fault::Controller(OfController::Crash),
    Fault::Controller(OfController::Crash),
    Fault::Controller(OfController::Stop),
    Fault::Store(OfStore::Away),
    Fault::Store(OfStore::Slow),
    Fault::Store(OfStore::AnswersLost),
    Fault::Store(OfStore::WatchBroken),
    Fault::Store(OfStore::Compaction),
    Fault::Deaf,
    Fault::Deaf,
    Fault::Drain,
    Fault::Rotation,
    Fault::Rotation,
    Fault::Rotation,
    Fault::Revocation,
];

/// Lets things go wrong for the stormy part of the run; returns when all of it is over and mended.
pub(crate) async fn rage(world: &Rc<World>, mut chance: Chance) {
    let end = Instant::now() + world.plan.stormy;
    let open = Rc::new(Cell::new(0u32));
    while Instant::now() < end {
        chance.pause(10, world.plan.fault_gap).await;
        let Some(&fault) = chance.pick(&FAULTS) else {
            return;
        };
        // Faults overlap, and end with the storm at the latest.
        let storm = Storm {
            world: Rc::clone(world),
            chance: chance.fork(),
            end,
        };
        let count = Rc::clone(&open);
        count.set(count.get() + 1);
        tokio::task::spawn_local(async move {
            storm.happen(fault).await;
            count.set(count.get() - 1);
        });
    }
    while open.get() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
}

struct Storm {
    world: Rc<World>,
    chance: Chance,
    end: Instant,
}

impl Storm {
    async fn happen(mut self, fault: Fault) {
        match fault {
            Fault::Relay(fault) => self.relay(fault).await,
            Fault::Cut(cut) => self.cut(cut).await,
            Fault::Controller(fault) => self.controller(fault).await,
            Fault::Store(fault) => self.store(fault).await,
            Fault::Deaf => self.deaf().await,
            Fault::Drain => self.drain().await,
            Fault::Rotation => {
                let site = self.any_site();
                crate::secrets::rotate(&self.world, &site, &mut self.chance).await;
            }
            Fault::Revocation => {
                let site = self.any_site();
                crate::secrets::revoke(&self.world, &site, &mut self.chance).await;
            }
        }
    }

    /// Lets a fault last for a while, but not longer than the storm.
    async fn last(&mut self, least: u64, most: u64) {
        let until = Instant::now() + self.chance.millis(least, most);
        tokio::time::sleep_until(until.min(self.end)).await;
    }

    fn any_relay(&mut self) -> Rc<Relay> {
        let index = self.chance.below(self.world.relays.len());
        Rc::clone(&self.world.relays[index])
    }

    fn any_site(&mut self) -> Rc<Site> {
        let index = self.chance.below(self.world.sites.len());
        Rc::clone(&self.world.sites[index])
    }

    async fn relay(&mut self, fault: OfRelay) {
        let relay = self.any_relay();
        if fault == OfRelay::Stop {
            let process = relay
                .state
                .borrow()
                .run
                .as_ref()
                .map(|run| run.process.clone());
            let Some(process) = process.filter(|process| !process.is_stopped()) else {
                return;
            };
            self.world.note(format_args!("{} is stopped", relay.id));
            let wires = || relay.control.iter().chain(&relay.data);
            process.stop();
            wires().for_each(|wire| wire.cut());
            self.last(500, 40_000).await;
            wires().for_each(|wire| wire.heal());
            process.resume();
            if let Some(run) = &mut relay.state.borrow_mut().run {
                run.serves_since = run.serves_since.map(|_| Instant::now());
            }
            self.world.note(format_args!("{} goes on", relay.id));
            return;
        }
        if !relay.is_up() {
            return;
        }
        relay.kill(&self.world);
        if fault == OfRelay::DiskLost {
            self.world.note(format_args!("{} loses its disk", relay.id));
            relay.state.borrow_mut().disk = crate::relay::Disk::default();
        }
        self.last(100, 20_000).await;
        relay.start(&self.world);
    }

    async fn cut(&mut self, cut: Cut) {
        let relay = self.any_relay();
        let wires: Vec<_> = match cut {
            Cut::One => {
                let index = self.chance.below(relay.control.len());
                vec![relay.control[index].clone()]
            }
            Cut::Sessions => relay.control.clone(),
            Cut::Everything => relay.control.iter().chain(&relay.data).cloned().collect(),
        };
        self.world
            .note(format_args!("{} is cut off: {cut:?}", relay.id));
        wires.iter().for_each(|wire| wire.cut());
        self.last(200, 40_000).await;
        wires.iter().for_each(|wire| wire.heal());
        self.world
            .note(format_args!("{} is no longer cut off: {cut:?}", relay.id));
    }

    async fn controller(&mut self, fault: OfController) {
        let site = self.any_site();
        if fault == OfController::Crash {
            site.kill(&self.world);
            self.last(200, 20_000).await;
            site.start(&self.world);
            return;
        }
        let Some(process) = site.process().filter(|process| !process.is_stopped()) else {
            return;
        };
        self.world.note(format_args!("{} is stopped", site.name));
        let relays = &self.world.relays;
        let wires =
            || (relays.iter()).flat_map(|it| [&it.control[site.index], &it.data[site.index]]);
        process.stop();
        wires().for_each(|wire| wire.cut());
        self.last(500, 35_000).await;
        let relays = &self.world.relays;
        (relays.iter())
            .flat_map(|it| [&it.control[site.index], &it.data[site.index]])
            .for_each(|wire| wire.heal());
        process.resume();
        self.world.note(format_args!("{} goes on", site.name));
    }

    async fn deaf(&mut self) {
        let (from, to) = (self.any_site(), self.any_site());
        let wire = self.world.between[from.index][to.index].clone();
        self.world
            .note(format_args!("{} does not hear {}", to.name, from.name));
        wire.cut();
        self.last(500, 40_000).await;
        wire.heal();
        self.world
            .note(format_args!("{} hears {} again", to.name, from.name));
    }

    async fn store(&mut self, fault: OfStore) {
        let site = self.any_site();
        let way = site.way.clone();
        self.world
            .note(format_args!("{}: the store is {fault:?}", site.name));
        match fault {
            OfStore::Away => {
                way.change(|trouble| trouble.away += 1);
                self.last(500, 30_000).await;
                way.change(|trouble| trouble.away -= 1);
            }
            OfStore::Slow => {
                let slow = 50 + self.chance.number() % 2_000;
                way.change(|trouble| trouble.slow = slow);
                self.last(500, 20_000).await;
                way.change(|trouble| trouble.slow = 0);
            }
            OfStore::AnswersLost => {
                way.change(|trouble| trouble.loses_answers = 2);
                self.last(500, 10_000).await;
                way.change(|trouble| trouble.loses_answers = 0);
            }
            OfStore::WatchBroken => way.break_watches(),
            OfStore::Compaction => {
                self.world.store.compact(self.world.store.revision());
            }
        }
        self.world.note(format_args!(
            "{}: the store is no longer {fault:?}",
            site.name
        ));
    }

    /// An operator drains a relay, and takes it back.
    async fn drain(&mut self) {
        let relay = self.any_relay();
        self.order(&relay, true).await;
        self.last(1_000, 15_000).await;
        self.order(&relay, false).await;
    }

    async fn order(&mut self, relay: &Relay, draining: bool) {
        // An operator tries until it is done.
        for _ in 0..1_000 {
            let site = self.any_site();
            if let Some(live) = site.live() {
                let asked = async {
                    match draining {
                        true => live.handle.drain(&relay.id, None).await,
                        false => live.handle.undrain(&relay.id).await,
                    }
                };
                let done = timeout(Duration::from_secs(5), asked).await;
                if matches!(done, Ok(Ok(()))) {
                    self.world
                        .note(format_args!("operator: {} drain {draining}", relay.id));
                    return;
                }
                if matches!(
                    done,
                    Ok(Err(turnfleet_controller::FleetError::UnknownNode(_)))
                ) {
                    return;
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}
