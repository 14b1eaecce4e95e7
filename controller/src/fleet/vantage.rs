//! Where nodes are probed from, and what each of these places sees of one node.

use std::time::Duration;

use turnfleet_turn::Instant;

use super::node::Transport;
use super::placement::hash;

/// Failed probes in a row that make one place see a node as failed.
const FAILED_PROBES: u32 = 2;
/// A place that has said nothing for so long has no say.
const STALE: Duration = Duration::from_secs(10);
/// More places than a fleet has controllers; the words of further ones are not kept.
const MAX_VANTAGES: usize = 8;

/// A place that nodes are probed from: a controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vantage(pub u32);

impl Vantage {
    /// This controller.
    pub const HERE: Self = Self(0);

    /// The controller of that name.
    pub(super) fn of(controller: &str) -> Self {
        let hash = hash(controller.as_bytes());
        Self(u32::try_from(hash >> 32).unwrap_or(1).max(1))
    }
}

/// The transports by which a place has ever reached a node, whichever it was. By any other it may be the firewall of the place
/// itself that lets nothing through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach(u8);

impl Reach {
    pub(super) fn add(&mut self, transport: Transport) {
        self.0 |= 1 << (transport as u8);
    }

    pub(super) fn has(self, transport: Transport) -> bool {
        self.0 & (1 << (transport as u8)) != 0
    }
}

/// What the places see of one node. Only words that count come here.
#[derive(Clone, Debug, Default)]
pub(super) struct Sights(Vec<Sight>);

#[derive(Clone, Copy, Debug)]
struct Sight {
    vantage: Vantage,
    /// Failed probes in a row.
    failed: u32,
    heard: Instant,
}

impl Sights {
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn note(&mut self, now: Instant, vantage: Vantage, good: bool) {
        let known = self.0.iter().position(|sight| sight.vantage == vantage);
        let place = match known {
            Some(place) => place,
            None if self.0.len() < MAX_VANTAGES => {
                self.0.push(Sight {
                    vantage,
                    failed: 0,
                    heard: now,
                });
                self.0.len() - 1
            }
            None => return,
        };
        let sight = &mut self.0[place];
        sight.heard = now;
        sight.failed = if good {
            0
        } else {
            sight.failed.saturating_add(1)
        };
    }

    /// Whether nobody's last word was good.
    pub(super) fn all_doubt(&self, now: Instant) -> bool {
        self.all(now, 1)
    }

    /// Whether every place that has a say failed twice in a row.
    pub(super) fn all_fail(&self, now: Instant) -> bool {
        self.all(now, FAILED_PROBES)
    }

    /// How many places failed twice in a row.
    pub(super) fn failing(&self, now: Instant) -> usize {
        let failing = |sight: &&Sight| sight.failed >= FAILED_PROBES;
        self.fresh(now).filter(failing).count()
    }

    /// Whether a place has said since `since` that the node works.
    pub(super) fn is_seen_since(&self, since: Instant) -> bool {
        let seen = |sight: &Sight| sight.failed == 0 && sight.heard > since;
        self.0.iter().any(seen)
    }

    fn all(&self, now: Instant, failed: u32) -> bool {
        let mut fresh = self.fresh(now).peekable();
        fresh.peek().is_some() && fresh.all(|sight| sight.failed >= failed)
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = &Sight> {
        self.0
            .iter()
            .filter(move |sight| now.since(sight.heard) < STALE)
    }
}
