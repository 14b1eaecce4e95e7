//! Ports held in reserve for a RESERVATION-TOKEN (RFC 8656 §7.2): open sockets that belong to nobody for 30 seconds.
//!
//! The first byte of a token is the shard that holds the port, so that any shard knows whom to ask for it.

use std::collections::HashMap;

use super::Server;
use crate::allocation::RESERVATION_LIFETIME;
use crate::command::RelayedId;
use crate::expiry::ExpiryQueue;
use crate::ledger::Holder;
use crate::random::KeyedHash;
use crate::table::RelayedUse;
use crate::tenant::TenantId;
use crate::time::Instant;
use crate::wire::ReservationToken;

/// A user of a tenant.
type User = (TenantId, Box<str>);

/// What is held, by token and by user. As many as there are ports at most.
#[derive(Debug)]
pub(super) struct Reservations {
    by_token: HashMap<ReservationToken, Reservation, KeyedHash>,
    by_user: HashMap<User, u32, KeyedHash>,
    /// By the socket's place.
    expiry: ExpiryQueue,
}

#[derive(Debug)]
struct Reservation {
    socket: RelayedId,
    user: Option<User>,
    expires_at: Instant,
}

impl Reservations {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self {
            by_token: HashMap::with_hasher(hash.clone()),
            by_user: HashMap::with_hasher(hash),
            expiry: ExpiryQueue::new(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.expiry.poll_timeout()
    }

    /// How many `holder` has; those of nobody are not counted.
    pub(super) fn held_by(&self, holder: Holder<'_>) -> u32 {
        let user = holder.user.map(|user| (holder.tenant, user.into()));
        let held = user.and_then(|user: User| self.by_user.get(&user));
        held.copied().unwrap_or(0)
    }

    fn insert(&mut self, token: ReservationToken, reservation: Reservation) {
        let Reservation {
            socket, expires_at, ..
        } = reservation;
        self.expiry.arm(socket.slot(), expires_at);
        if let Some(user) = &reservation.user {
            *self.by_user.entry(user.clone()).or_default() += 1;
        }
        self.by_token.insert(token, reservation);
    }

    fn remove(&mut self, token: ReservationToken) -> Option<RelayedId> {
        let reservation = self.by_token.remove(&token)?;
        self.expiry.disarm(reservation.socket.slot());
        if let Some(user) = reservation.user
            && let Some(held) = self.by_user.get_mut(&user)
        {
            *held -= 1;
            if *held == 0 {
                self.by_user.remove(&user);
            }
        }
        Some(reservation.socket)
    }
}

impl Server {
    /// Holds an open socket for whoever presents the token.
    pub(super) fn reserve(
        &mut self,
        now: Instant,
        socket: RelayedId,
        user: Option<User>,
    ) -> ReservationToken {
        let mut token = ReservationToken(self.random.bytes());
        token.0[0] = self.config.shard.0;
        if let Some(socket) = self.table.relayed_mut(socket) {
            socket.used = RelayedUse::Held(token);
        }
        let reservation = Reservation {
            socket,
            user,
            expires_at: now.after(RESERVATION_LIFETIME),
        };
        self.reservations.insert(token, reservation);
        self.counters.reservations += 1;
        token
    }

    /// Whether this shard holds a port for `token`.
    pub(super) fn holds(&self, now: Instant, token: ReservationToken) -> bool {
        let reservation = self.reservations.by_token.get(&token);
        reservation.is_some_and(|reservation| reservation.expires_at > now)
    }

    /// Redeems a token: the socket is whoever's who asks.
    pub(super) fn take_reservation(
        &mut self,
        now: Instant,
        token: ReservationToken,
    ) -> Option<RelayedId> {
        if !self.holds(now, token) {
            return None;
        }
        self.counters.reservations -= 1;
        self.reservations.remove(token)
    }

    /// Closes the sockets that nobody has asked for in time.
    pub(super) fn expire_reservations(&mut self, now: Instant) {
        while let Some(slot) = self.reservations.expiry.pop_due(now) {
            if let Some(socket) = self.table.relayed_at(slot) {
                self.close_reserved(now, socket);
            }
        }
    }

    /// Closes every held socket.
    pub(super) fn close_reservations(&mut self, now: Instant) {
        let held = self.reservations.by_token.values();
        let held: Vec<RelayedId> = held.map(|reservation| reservation.socket).collect();
        for socket in held {
            self.close_reserved(now, socket);
        }
    }

    /// Closes one held socket; nothing where it is not held.
    pub(super) fn close_reserved(&mut self, now: Instant, socket: RelayedId) {
        let used = self.table.relayed(socket).map(|socket| socket.used);
        if let Some(RelayedUse::Held(token)) = used {
            self.reservations.remove(token);
            self.counters.reservations -= 1;
            self.close_socket(now, socket);
        }
    }
}
