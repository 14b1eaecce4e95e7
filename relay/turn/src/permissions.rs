//! The permissions of one allocation (RFC 8656 §9): peer IP addresses, each with an expiry.
//!
//! Most allocations have a handful, kept in place; more of them spill into a map, so that a look-up costs the same
//! however many there are. Whether a permission may be had is not decided here.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::random::KeyedHash;
use crate::time::Instant;
use crate::usage::Bytes;

/// How many permissions stand in the allocation itself.
const IN_PLACE: usize = 3;

/// Peer IP addresses and the instants at which their permissions end.
#[derive(Debug)]
pub(crate) struct Permissions {
    store: Store,
    /// No permission ends before this instant; it may be earlier than the first end.
    earliest: Instant,
}

#[derive(Debug)]
enum Store {
    InPlace([Option<(IpAddr, Permission)>; IN_PLACE]),
    Spilled(HashMap<IpAddr, Permission, KeyedHash>),
}

/// One permission. What went through it is counted here because the path of packets looks it up anyway.
#[derive(Clone, Copy, Debug)]
struct Permission {
    expires_at: Instant,
    /// Since it was taken last.
    moved: Bytes,
}

impl Permission {
    fn new(expires_at: Instant) -> Self {
        Self {
            expires_at,
            moved: Bytes::default(),
        }
    }
}

impl Permissions {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::InPlace([None; IN_PLACE]),
            earliest: Instant(u64::MAX),
        }
    }

    /// Whether a live permission for `ip` exists.
    pub(crate) fn allow(&self, ip: IpAddr, now: Instant) -> bool {
        self.expiry(ip).is_some_and(|expires_at| expires_at > now)
    }

    /// What goes through the live permission for `ip` is counted here; `None` where there is none.
    pub(crate) fn live(&mut self, ip: IpAddr, now: Instant) -> Option<&mut Bytes> {
        let permission = match &mut self.store {
            Store::InPlace(list) => {
                let known = list.iter_mut().flatten().find(|(known, _)| *known == ip);
                known.map(|(_, permission)| permission)
            }
            Store::Spilled(map) => map.get_mut(&ip),
        };
        permission
            .filter(|permission| permission.expires_at > now)
            .map(|permission| &mut permission.moved)
    }

    /// What went through each permission since the last call.
    pub(crate) fn take_moved(&mut self, mut taken: impl FnMut(IpAddr, Bytes)) {
        match &mut self.store {
            Store::InPlace(list) => {
                for (ip, permission) in list.iter_mut().flatten() {
                    taken(*ip, std::mem::take(&mut permission.moved));
                }
            }
            Store::Spilled(map) => {
                for (ip, permission) in map.iter_mut() {
                    taken(*ip, std::mem::take(&mut permission.moved));
                }
            }
        }
    }

    /// Whether `ip` has a permission, live or not swept yet.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        self.expiry(ip).is_some()
    }

    /// The number of permissions, those included that ended since the last sweep.
    pub(crate) fn len(&self) -> usize {
        match &self.store {
            Store::InPlace(list) => list.iter().flatten().count(),
            Store::Spilled(map) => map.len(),
        }
    }

    /// Before this instant no permission ends; the end of time where there is none.
    pub(crate) fn earliest(&self) -> Instant {
        self.earliest
    }

    /// Installs or refreshes a permission; `true` where it was installed.
    pub(crate) fn install(&mut self, ip: IpAddr, expires_at: Instant, hash: &KeyedHash) -> bool {
        self.earliest = self.earliest.min(expires_at);
        let Store::InPlace(list) = &mut self.store else {
            return self.install_spilled(ip, expires_at);
        };
        if let Some(known) = list.iter_mut().flatten().find(|(known, _)| *known == ip) {
            known.1.expires_at = expires_at;
            return false;
        }
        if let Some(free) = list.iter_mut().find(|place| place.is_none()) {
            *free = Some((ip, Permission::new(expires_at)));
            return true;
        }
        let mut map = HashMap::with_capacity_and_hasher(2 * IN_PLACE, hash.clone());
        map.extend(list.iter().flatten().copied());
        map.insert(ip, Permission::new(expires_at));
        self.store = Store::Spilled(map);
        true
    }

    /// Removes what has ended at `now`, and returns how many that were. Costs nothing before [`Self::earliest`].
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        if now < self.earliest {
            return 0;
        }
        let before = self.len();
        match &mut self.store {
            Store::InPlace(list) => {
                for place in list.iter_mut() {
                    place.take_if(|(_, permission)| permission.expires_at <= now);
                }
            }
            Store::Spilled(map) => map.retain(|_, permission| permission.expires_at > now),
        }
        self.settle(before)
    }

    /// Removes every permission for which `keep` is false, and returns how many that were.
    pub(crate) fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) -> usize {
        let before = self.len();
        match &mut self.store {
            Store::InPlace(list) => {
                for place in list.iter_mut() {
                    place.take_if(|(ip, _)| !keep(*ip));
                }
            }
            Store::Spilled(map) => map.retain(|ip, _| keep(*ip)),
        }
        self.settle(before)
    }

    fn expiry(&self, ip: IpAddr) -> Option<Instant> {
        match &self.store {
            Store::InPlace(list) => list
                .iter()
                .flatten()
                .find_map(|(known, permission)| (*known == ip).then_some(permission.expires_at)),
            Store::Spilled(map) => map.get(&ip).map(|permission| permission.expires_at),
        }
    }

    fn install_spilled(&mut self, ip: IpAddr, expires_at: Instant) -> bool {
        match &mut self.store {
            Store::InPlace(_) => false,
            Store::Spilled(map) => match map.get_mut(&ip) {
                Some(known) => {
                    known.expires_at = expires_at;
                    false
                }
                None => map.insert(ip, Permission::new(expires_at)).is_none(),
            },
        }
    }

    /// Recomputes `earliest` after a removal, and returns how many of `before` are gone.
    fn settle(&mut self, before: usize) -> usize {
        let earliest = match &self.store {
            Store::InPlace(list) => list.iter().flatten().map(|(_, it)| it.expires_at).min(),
            Store::Spilled(map) => map.values().map(|it| it.expires_at).min(),
        };
        self.earliest = earliest.unwrap_or(Instant(u64::MAX));
        before - self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, n))
    }

    #[test]
    fn a_permission_ends_at_its_expiry_whether_it_stands_in_place_or_has_spilled() {
        for count in [1, 3, 4, 40] {
            let mut permissions = Permissions::new();
            for n in 0..count {
                let hash = KeyedHash::with_seed(1);
                assert!(permissions.install(ip(n), Instant(100 + u64::from(n)), &hash));
            }
            assert_eq!(permissions.len(), usize::from(count));
            assert!(permissions.allow(ip(0), Instant(99)));
            assert!(!permissions.allow(ip(0), Instant(100)));
            assert!(!permissions.allow(ip(count), Instant(0)));
            assert_eq!(permissions.sweep(Instant(99)), 0);
            assert_eq!(permissions.sweep(Instant(100)), 1);
            assert_eq!(permissions.sweep(Instant(1000)), usize::from(count) - 1);
            assert_eq!(permissions.len(), 0);
            assert_eq!(permissions.earliest(), Instant(u64::MAX));
        }
    }

    #[test]
    fn a_refreshed_permission_is_not_a_second_one() {
        let hash = KeyedHash::with_seed(1);
        let mut permissions = Permissions::new();
        for n in 0..5 {
            assert!(permissions.install(ip(n), Instant(100), &hash));
            assert!(!permissions.install(ip(n), Instant(200), &hash));
        }
        assert_eq!(permissions.len(), 5);
        assert_eq!(permissions.sweep(Instant(150)), 0);
        assert_eq!(permissions.earliest(), Instant(200));
    }
}
