//! What the shards of one relay share: the ports that are free, and the allocations and connections that count
//! against limits. Only Allocate, Connect, expiry and policy changes touch it, never a packet.
//!
//! Ports are granted for public addresses, so the ledger knows those only: wherever it asks for an address, it is the
//! relayed transport address as clients and peers see it.

mod shares;

pub use shares::UserUse;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::peer_filter::FleetRange;
use crate::policy::Limits;
use crate::ports::{PortPool, PortRequest};
use crate::quota::{Exceeded, QuotaBooks};
use crate::random::Random;
use crate::tenant::TenantId;
use crate::time::Instant;

/// Shared by all [`crate::Server`]s of one relay behind an `Arc`; one lock inside, held for a few hundred nanoseconds.
#[derive(Debug)]
pub struct Ledger {
    books: Mutex<Books>,
    /// Changes with who has a shaper.
    shapers_version: AtomicU64,
}

#[derive(Debug)]
struct Books {
    random: Random,
    /// One for each public address that ever had a grant: the relay's own, so a handful.
    pools: BTreeMap<IpAddr, PortPool>,
    held: Held,
    /// Tenants with at least one allocation: never more than there are allocations.
    accounts: BTreeMap<TenantId, Account>,
    quotas: QuotaBooks,
    refused_user_quota: u64,
    refused_total: u64,
    refused_ports: u64,
}

/// What the users of one tenant hold.
#[derive(Debug, Default)]
struct Account {
    allocations: u32,
    /// Users with at least one allocation.
    users: BTreeMap<Box<str>, Held>,
}

/// Who an allocation or a connection counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder<'a> {
    /// Whose user it is.
    pub tenant: TenantId,
    /// The user, where the credential names one.
    pub user: Option<&'a str>,
}

/// What counts against limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    allocations: u32,
    /// Peer data connections (RFC 6062); whoever has one has an allocation.
    connections: u32,
}

/// Ports of one public address from which relayed sockets may be opened. Both ends belong to the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedPorts {
    /// The public address that the grant was made for.
    pub public: IpAddr,
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// A relay that is a fleet of its own is granted what its clients may reach as peers.
impl From<FleetRange> for GrantedPorts {
    fn from(range: FleetRange) -> Self {
        Self {
            public: range.ip,
            first: range.first,
            last: range.last,
        }
    }
}

/// Which bound an allocation or a connection would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The user's own: 486 (RFC 8656 §7.2).
    UserQuota,
    /// The relay's share of what the user's tenant may have in the fleet: 486.
    TenantQuota,
    /// The relay's: 508.
    Total,
}

impl From<Exceeded> for Refused {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Tenant => Self::TenantQuota,
            Exceeded::User => Self::UserQuota,
        }
    }
}

/// What a ledger holds and has refused, for metrics and reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocations that live, of all shards.
    pub allocations: u32,
    /// Peer data connections, of all shards.
    pub connections: u32,
    /// Users that have at least one of them.
    pub users: u32,
    /// Ports granted on all addresses.
    pub ports_granted: u32,
    /// Ports in use or held in reserve, those of withdrawn grants included.
    pub ports_used: u32,
    /// Allocations refused because their user had enough.
    pub refused_user_quota: u64,
    /// Allocations refused because the relay had enough.
    pub refused_total: u64,
    /// Requests for a port that no free port fitted.
    pub refused_ports: u64,
    /// Ports that went out again within a minute of their last use.
    pub ports_reused_at_once: u64,
    /// Ports drawn that somebody else on the machine held.
    pub ports_unavailable: u64,
}

/// The ports of one public address. Both ends of a run belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortsInUse {
    /// The address.
    pub public: IpAddr,
    /// Ports in use or held in reserve, those of withdrawn grants included.
    pub used: u32,
    /// What is granted.
    pub open: Vec<(u16, u16)>,
    /// Where ports are in use that are not granted any more; less than 256 ports between them count as one run.
    pub withdrawn: Vec<(u16, u16)>,
}

impl Ledger {
    /// A ledger without ports; `seed` drives the choice among free ports.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            books: Mutex::new(Books {
                random: Random::new(seed),
                pools: BTreeMap::new(),
                held: Held::default(),
                accounts: BTreeMap::new(),
                quotas: QuotaBooks::default(),
                refused_user_quota: 0,
                refused_total: 0,
                refused_ports: 0,
            }),
            shapers_version: AtomicU64::new(0),
        }
    }

    /// Replaces the granted ranges. Ports in use outside of them stay with their allocations and are not drawn again.
    pub fn set_granted(&self, granted: &[GrantedPorts]) {
        let mut books = self.lock();
        for grant in granted {
            books.pools.entry(grant.public).or_default();
        }
        for (&public, pool) in &mut books.pools {
            let own = granted.iter().filter(|grant| grant.public == public);
            pool.set_granted(own.map(|grant| grant.first..=grant.last));
        }
    }

    /// Counts one more allocation of `holder`. Every success is followed by one [`Ledger::leave`] with the same holder.
    ///
    /// # Errors
    /// The bound that is reached; the user's own is looked at first.
    pub fn admit(&self, holder: Holder<'_>, limits: &Limits) -> Result<(), Refused> {
        let mut books = self.lock();
        let count = books.held_by(holder).map_or(0, |held| held.allocations);
        if let Some(user) = holder.user
            && count >= limits.allocations_per_user
        {
            books.refused_user_quota += 1;
            books.quotas.refused(holder.tenant, user);
            return Err(Refused::UserQuota);
        }
        if books.held.allocations >= limits.allocations {
            books.refused_total += 1;
            return Err(Refused::Total);
        }
        let of_tenant = books.accounts.get(&holder.tenant);
        let of_tenant = of_tenant.map_or(0, |account| account.allocations);
        let user = holder.user.map(|user| (user, count));
        let within = books.quotas.check((holder.tenant, of_tenant), user);
        within.map_err(Refused::from)?;
        books.held.allocations += 1;
        let account = books.accounts.entry(holder.tenant).or_default();
        account.allocations += 1;
        if let Some(user) = holder.user {
            match account.users.get_mut(user) {
                Some(held) => held.allocations += 1,
                None => {
                    let held = Held {
                        allocations: 1,
                        connections: 0,
                    };
                    account.users.insert(user.into(), held);
                }
            }
        }
        Ok(())
    }

    /// Counts one allocation less. Its connections have left before.
    pub fn leave(&self, holder: Holder<'_>) {
        let mut books = self.lock();
        let books = &mut *books;
        books.held.allocations = books.held.allocations.saturating_sub(1);
        let Some(account) = books.accounts.get_mut(&holder.tenant) else {
            return;
        };
        account.allocations = account.allocations.saturating_sub(1);
        if let Some(user) = holder.user
            && let Some(held) = account.users.get_mut(user)
        {
            held.allocations -= 1;
            if held.allocations == 0 {
                account.users.remove(user);
                books.quotas.left(holder.tenant, user);
            }
        }
        if account.allocations == 0 {
            books.accounts.remove(&holder.tenant);
        }
    }

    /// Counts one more peer data connection of `holder`. Every success is followed by one [`Ledger::leave_connection`] with
    /// the same holder.
    ///
    /// # Errors
    /// The bound that is reached; the user's own is looked at first.
    pub fn admit_connection(&self, holder: Holder<'_>, limits: &Limits) -> Result<(), Refused> {
        let mut books = self.lock();
        let total = books.held.connections;
        let mut of_user = books.held_by(holder);
        let count = of_user.as_deref().map_or(0, |held| held.connections);
        if holder.user.is_some() && count >= limits.connections_per_user {
            return Err(Refused::UserQuota);
        }
        if total >= limits.connections {
            return Err(Refused::Total);
        }
        if let Some(held) = &mut of_user {
            held.connections += 1;
        }
        books.held.connections += 1;
        Ok(())
    }

    /// Counts one peer data connection less.
    pub fn leave_connection(&self, holder: Holder<'_>) {
        let mut books = self.lock();
        books.held.connections = books.held.connections.saturating_sub(1);
        if let Some(held) = books.held_by(holder) {
            held.connections = held.connections.saturating_sub(1);
        }
    }

    /// The allocations of each tenant that has any, by ascending number.
    #[must_use]
    pub fn allocations_by_tenant(&self) -> Vec<(TenantId, u32)> {
        let books = self.lock();
        let accounts = books.accounts.iter();
        accounts
            .map(|(tenant, account)| (*tenant, account.allocations))
            .collect()
    }

    /// Takes a free port of `public`; `None` where no free one fits. With [`PortRequest::EvenWithNext`] the next higher
    /// port is taken too. Each port taken is given back by one [`Ledger::release`] or [`Ledger::mark_unavailable`].
    pub fn draw(&self, public: IpAddr, request: PortRequest, now: Instant) -> Option<u16> {
        let mut books = self.lock();
        let books = &mut *books;
        let pool = books.pools.get_mut(&public);
        let port = pool.and_then(|pool| pool.draw(request, &mut books.random, now));
        if port.is_none() {
            books.refused_ports += 1;
        }
        port
    }

    /// Gives back one port.
    pub fn release(&self, relayed: SocketAddr, now: Instant) {
        if let Some(pool) = self.lock().pools.get_mut(&relayed.ip()) {
            pool.release(relayed.port(), now);
        }
    }

    /// Gives back one port that the operating system would not open because somebody else holds it: it is the last to
    /// be tried again.
    pub fn mark_unavailable(&self, relayed: SocketAddr, now: Instant) {
        if let Some(pool) = self.lock().pools.get_mut(&relayed.ip()) {
            pool.mark_unavailable(relayed.port(), now);
        }
    }

    /// What is held, and what was refused since the start.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let books = self.lock();
        let mut usage = Usage {
            allocations: books.held.allocations,
            connections: books.held.connections,
            users: u32::try_from(books.users()).unwrap_or(u32::MAX),
            refused_user_quota: books.refused_user_quota,
            refused_total: books.refused_total,
            refused_ports: books.refused_ports,
            ..Usage::default()
        };
        for pool in books.pools.values() {
            usage.ports_granted += pool.granted();
            usage.ports_used += pool.used();
            usage.ports_reused_at_once += pool.reused_at_once();
            usage.ports_unavailable += pool.unavailable();
        }
        usage
    }

    /// The ports of each address that ever had a grant.
    #[must_use]
    pub fn ports(&self) -> Vec<PortsInUse> {
        let books = self.lock();
        let ports = |(&public, pool): (&IpAddr, &PortPool)| PortsInUse {
            public,
            used: pool.used(),
            open: pool.open_runs(),
            withdrawn: pool.withdrawn_runs(),
        };
        books.pools.iter().map(ports).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // Each operation leaves the books in order before anything in it could panic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn held_by(&mut self, holder: Holder<'_>) -> Option<&mut Held> {
        let account = self.accounts.get_mut(&holder.tenant)?;
        account.users.get_mut(holder.user?)
    }

    fn users(&self) -> usize {
        self.accounts
            .values()
            .map(|account| account.users.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::{GrantedPorts, Holder, Ledger, Refused, TenantId};
    use crate::policy::Limits;
    use crate::ports::PortRequest;
    use crate::time::Instant;

    fn limits(allocations_per_user: u32, allocations: u32) -> Limits {
        Limits {
            allocations_per_user,
            allocations,
            ..Limits::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn user(user: &str) -> Holder<'_> {
        Holder {
            user: Some(user),
            ..Holder::default()
        }
    }

    #[test]
    fn a_user_may_hold_so_many_allocations_and_nobody_pays_for_another() {
        let ledger = Ledger::new([0; 32]);
        let limits = limits(2, 100);
        for _ in 0..2 {
            assert_eq!(ledger.admit(user("alice"), &limits), Ok(()));
        }
        assert_eq!(
            ledger.admit(user("alice"), &limits),
            Err(Refused::UserQuota)
        );
        assert_eq!(ledger.admit(user("bob"), &limits), Ok(()));
        ledger.leave(user("alice"));
        assert_eq!(ledger.admit(user("alice"), &limits), Ok(()));

        for name in ["alice", "alice", "bob"] {
            ledger.leave(user(name));
        }
        let usage = ledger.usage();
        assert_eq!(
            (usage.allocations, usage.users, usage.refused_user_quota),
            (0, 0, 1)
        );
    }

    #[test]
    fn an_allocation_without_a_user_counts_for_the_relay_alone() {
        let ledger = Ledger::new([0; 32]);
        let limits = limits(0, 3);
        for _ in 0..3 {
            assert_eq!(ledger.admit(Holder::default(), &limits), Ok(()));
        }
        assert_eq!(
            ledger.admit(Holder::default(), &limits),
            Err(Refused::Total)
        );
        assert_eq!(
            ledger.admit(user("alice"), &limits),
            Err(Refused::UserQuota)
        );
        ledger.leave(Holder::default());
        assert_eq!(ledger.admit(Holder::default(), &limits), Ok(()));
        let usage = ledger.usage();
        assert_eq!(
            (usage.allocations, usage.users, usage.refused_total),
            (3, 0, 1)
        );
    }

    #[test]
    fn users_of_two_tenants_with_one_name_count_apart_and_each_tenant_is_counted() {
        let ledger = Ledger::new([0; 32]);
        let limits = limits(1, 100);
        let of = |tenant, user| Holder {
            tenant: TenantId(tenant),
            user,
        };
        for tenant in [0, 7] {
            assert_eq!(ledger.admit(of(tenant, Some("alice")), &limits), Ok(()));
            let second = ledger.admit(of(tenant, Some("alice")), &limits);
            assert_eq!(second, Err(Refused::UserQuota));
        }
        assert_eq!(ledger.admit(of(7, None), &limits), Ok(()));
        let counted = ledger.allocations_by_tenant();
        assert_eq!(counted, [(TenantId(0), 1), (TenantId(7), 2)]);
        assert_eq!(ledger.usage().users, 2);
        ledger.leave(of(7, None));
        ledger.leave(of(7, Some("alice")));
        assert_eq!(ledger.allocations_by_tenant(), [(TenantId(0), 1)]);
    }

    #[test]
    fn connections_count_for_their_user_and_for_the_relay() {
        let ledger = Ledger::new([0; 32]);
        let limits = Limits {
            connections_per_user: 2,
            connections: 3,
            ..Limits::default()
        };
        for name in ["alice", "bob"] {
            assert_eq!(ledger.admit(user(name), &limits), Ok(()));
        }
        for _ in 0..2 {
            assert_eq!(ledger.admit_connection(user("alice"), &limits), Ok(()));
        }
        let third = ledger.admit_connection(user("alice"), &limits);
        assert_eq!(third, Err(Refused::UserQuota));
        assert_eq!(ledger.admit_connection(user("bob"), &limits), Ok(()));
        for holder in [user("bob"), Holder::default()] {
            let refused = ledger.admit_connection(holder, &limits);
            assert_eq!(refused, Err(Refused::Total));
        }
        ledger.leave_connection(user("alice"));
        let admitted = ledger.admit_connection(Holder::default(), &limits);
        assert_eq!(admitted, Ok(()));
        assert_eq!(ledger.usage().connections, 3);
    }

    #[test]
    fn ports_belong_to_the_address_that_they_were_granted_for() {
        let ledger = Ledger::new([0; 32]);
        let (one, other) = (ip("192.0.2.1"), ip("2001:db8::1"));
        let now = Instant(0);
        let grant = |public, first, last| GrantedPorts {
            public,
            first,
            last,
        };
        ledger.set_granted(&[grant(one, 50000, 50001), grant(one, 50004, 50004)]);
        assert_eq!(ledger.draw(other, PortRequest::Any, now), None);
        assert_eq!(
            ledger.draw(one, PortRequest::EvenWithNext, now),
            Some(50000)
        );
        assert_eq!(ledger.draw(one, PortRequest::EvenWithNext, now), None);
        assert_eq!(ledger.draw(one, PortRequest::Even, now), Some(50004));
        assert_eq!(ledger.draw(one, PortRequest::Any, now), None);

        ledger.set_granted(&[grant(other, 50000, 50000)]);
        assert_eq!(ledger.draw(other, PortRequest::Any, now), Some(50000));
        ledger.release(SocketAddr::new(one, 50000), now);
        ledger.mark_unavailable(SocketAddr::new(one, 50001), now);
        assert_eq!(ledger.draw(one, PortRequest::Any, now), None);
        let usage = ledger.usage();
        assert_eq!(
            (usage.ports_granted, usage.ports_used, usage.refused_ports),
            (1, 2, 4)
        );
        assert_eq!(usage.ports_unavailable, 1);
    }
}
