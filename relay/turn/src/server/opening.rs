//! Between an Allocate request and its answer: relayed sockets are named, the driver opens them, and the allocation is
//! granted once all of them are open. A port that somebody else holds is replaced by another one.

use std::net::SocketAddr;

use super::Server;
use super::allocate::Asked;
use super::request::Request;
use crate::addr::AddressFamily;
use crate::allocation::{Allocation, Opening, Origin, Pending, Want};
use crate::command::{Command, OpenError, RelayedId, ShardId};
use crate::counters::Limit;
use crate::decision::Decision;
use crate::pace::Pace;
use crate::ports::PortRequest;
use crate::reject::Reject;
use crate::table::{AllocationId, RelayedSocket, RelayedUse};
use crate::time::{Instant, Now};
use crate::wire::ReservationToken;

/// A port taken from the ledger.
#[derive(Clone, Copy)]
struct Drawn {
    family: AddressFamily,
    request: PortRequest,
    host: u8,
    port: u16,
}

impl Server {
    /// Finds the relayed addresses that are asked for, and has their sockets opened. The allocation is admitted; it leaves
    /// again where nothing is to be had.
    pub(super) fn open_allocation(
        &mut self,
        request: &Request<'_>,
        mut allocation: Allocation,
        asked: Asked,
        reply: &mut Vec<u8>,
    ) -> Result<Decision, Reject> {
        let now = request.now.instant;
        match asked {
            // A shard that does not exist holds nothing: this one knows that as well.
            Asked::Reserved(token)
                if token.0[0] == self.config.shard.0 || token.0[0] >= self.config.shards =>
            {
                let Some(socket) = self.take_reservation(now, token) else {
                    self.ledger.leave(allocation.owner.holder());
                    return Err(Reject::InsufficientCapacity);
                };
                let id = self.table.insert(allocation);
                self.grant_reserved(now, id, socket, reply);
                Ok(Decision::Reply)
            }
            Asked::Reserved(token) => {
                let id = self.table.insert(allocation);
                self.claim(id, token);
                Ok(Decision::Pending)
            }
            Asked::Drawn {
                family,
                additional,
                port,
            } => {
                let server = request.from.server;
                let first = self.draw(now, family, port, server);
                let second = additional.then(|| self.draw(now, AddressFamily::V6, port, server));
                let drawn = match (first, second) {
                    (Ok(first), None) => vec![first],
                    (Ok(first), Some(Ok(second))) => vec![first, second],
                    (Ok(first), Some(Err(reject))) => {
                        allocation.refused_family = Some((AddressFamily::V6, reject.error_code()));
                        vec![first]
                    }
                    (Err(reject), Some(Ok(second))) => {
                        allocation.refused_family = Some((family, reject.error_code()));
                        vec![second]
                    }
                    (Err(reject), None | Some(Err(_))) => {
                        self.ledger.leave(allocation.owner.holder());
                        if reject == Reject::InsufficientCapacity {
                            let integrity = request.closing().integrity;
                            return Err(self.beyond_capacity(&request.from, integrity, asked));
                        }
                        return Err(reject);
                    }
                };
                let id = self.table.insert(allocation);
                for drawn in drawn {
                    let want = self.want(id, drawn);
                    self.pending_mut(id, |pending| pending.wants.push(want));
                }
                Ok(Decision::Pending)
            }
        }
    }

    /// Takes a port of the family's hosts: of the address that the client reached where that is one of them, so that
    /// traffic leaves where it came in, and of the others in their order.
    fn draw(
        &mut self,
        now: Instant,
        family: AddressFamily,
        request: PortRequest,
        server: SocketAddr,
    ) -> Result<Drawn, Reject> {
        let hosts = || {
            let hosts = self.config.relayed_hosts.iter().zip(0..);
            hosts.filter(|(host, _)| AddressFamily::of(host.local) == family)
        };
        if hosts().next().is_none() {
            return Err(Reject::AddressFamilyNotSupported);
        }
        let reached = hosts().filter(|(host, _)| host.local == server.ip());
        let others = hosts().filter(|(host, _)| host.local != server.ip());
        for (host, index) in reached.chain(others) {
            if let Some(port) = self.ledger.draw(host.public, request, now) {
                return Ok(Drawn {
                    family,
                    request,
                    host: index,
                    port,
                });
            }
        }
        self.counters.count_limit(Limit::Ports);
        Err(Reject::InsufficientCapacity)
    }

    /// Has the driver open what was drawn.
    fn want(&mut self, id: AllocationId, drawn: Drawn) -> Want {
        let socket = self.open(id, drawn.host, drawn.port);
        let pair = drawn.request == PortRequest::EvenWithNext;
        Want {
            family: drawn.family,
            origin: Origin::Drawn(drawn.request),
            socket,
            next: pair.then(|| self.open(id, drawn.host, drawn.port + 1)),
        }
    }

    fn open(&mut self, allocation: AllocationId, host: u8, port: u16) -> Opening {
        let id = self.table.insert_relayed(RelayedSocket {
            host,
            port,
            used: RelayedUse::Opening(allocation),
            errors: Pace::default(),
        });
        let local = self.config.relayed_hosts[usize::from(host)].local;
        let local = SocketAddr::new(local, port);
        let owner = self.table.allocation(allocation);
        let listens = owner.is_some_and(|owner| owner.tcp);
        self.commands.push_back(if listens {
            Command::ListenRelayed { id, local }
        } else {
            Command::OpenRelayed { id, local }
        });
        Opening { id, open: false }
    }

    /// Asks another shard for the socket that it holds.
    fn claim(&mut self, allocation: AllocationId, token: ReservationToken) {
        let id = self.table.insert_relayed(RelayedSocket {
            host: 0,
            port: 0,
            used: RelayedUse::Opening(allocation),
            errors: Pace::default(),
        });
        let owner = ShardId(token.0[0]);
        self.commands
            .push_back(Command::ClaimReserved { id, owner, token });
        let want = Want {
            family: AddressFamily::V4,
            origin: Origin::Claimed,
            socket: Opening { id, open: false },
            next: None,
        };
        self.pending_mut(allocation, |pending| pending.wants.push(want));
    }

    /// The driver has opened a socket, or could not.
    pub(super) fn relayed_opened(
        &mut self,
        now: Now,
        socket: RelayedId,
        result: Result<SocketAddr, OpenError>,
    ) {
        let Some(used) = self.table.relayed(socket).map(|socket| socket.used) else {
            return;
        };
        if let Ok(local) = result {
            self.note_address(socket, local);
        }
        match used {
            RelayedUse::Opening(id) => match result {
                Ok(_) => self.socket_opened(now, id, socket),
                Err(error) => self.socket_refused(now, id, socket, error),
            },
            RelayedUse::Abandoned => match result {
                Ok(_) => self.close_socket(now.instant, socket),
                Err(error) => self.forget_socket(now.instant, socket, error),
            },
            RelayedUse::Allocated(_) | RelayedUse::Held(_) => {}
        }
    }

    /// A claimed socket did not arrive; its port is this shard's to give back.
    pub(super) fn claim_lost(&mut self, now: Now, socket: RelayedId, local: SocketAddr) {
        self.note_address(socket, local);
        self.relayed_opened(now, socket, Err(OpenError::NoReservation));
    }

    /// A claimed socket says where it is bound; that of an opened one is known.
    fn note_address(&mut self, socket: RelayedId, local: SocketAddr) {
        let mut hosts = self.config.relayed_hosts.iter().zip(0..);
        let host = hosts
            .find(|(host, _)| host.local == local.ip())
            .map(|(_, index)| index);
        if let (Some(socket), Some(host)) = (self.table.relayed_mut(socket), host)
            && socket.port == 0
        {
            socket.host = host;
            socket.port = local.port();
        }
    }

    fn socket_opened(&mut self, now: Now, id: AllocationId, socket: RelayedId) {
        let entry = self.table.relayed(socket);
        let Some(address) = entry.and_then(|socket| self.public_address(socket)) else {
            // A claimed socket on an address that this shard does not know.
            self.commands
                .push_back(Command::CloseRelayed { id: socket });
            self.socket_refused(now, id, socket, OpenError::NoReservation);
            return;
        };
        let complete = self.pending_mut(id, |pending| {
            for want in &mut pending.wants {
                if want.socket.id == socket {
                    want.socket.open = true;
                    want.family = AddressFamily::of(address.ip());
                } else if let Some(next) = &mut want.next
                    && next.id == socket
                {
                    next.open = true;
                }
            }
            pending.wants.iter().all(Want::is_open)
        });
        if complete == Some(true) {
            self.grant(now, id);
        }
    }

    /// One want fails with its socket, unless another port can take its place.
    fn socket_refused(&mut self, now: Now, id: AllocationId, socket: RelayedId, error: OpenError) {
        let taken = self.pending_mut(id, |pending| {
            let concerned = |want: &Want| want.sockets().any(|opening| opening.id == socket);
            let place = pending.wants.iter().position(concerned)?;
            Some(pending.wants.swap_remove(place))
        });
        self.forget_socket(now.instant, socket, error);
        let Some(want) = taken.flatten() else {
            return;
        };
        for opening in want.sockets().filter(|opening| opening.id != socket) {
            self.abandon(now.instant, opening);
        }
        if error == OpenError::PortTaken && self.try_again(now.instant, id, want) {
            return;
        }
        if error != OpenError::NoReservation {
            self.counters.count_limit(Limit::Sockets);
        }
        if let Some(allocation) = self.table.allocation_mut(id) {
            allocation.refused_family =
                Some((want.family, Reject::InsufficientCapacity.error_code()));
        }
        match self.pending_mut(id, |pending| {
            (
                pending.wants.is_empty(),
                pending.wants.iter().all(Want::is_open),
            )
        }) {
            Some((true, _)) => self.deny(id, want.origin),
            Some((false, true)) => self.grant(now, id),
            Some((false, false)) | None => {}
        }
    }

    /// Draws another port for `want`; `false` where there is none, or this has been tried often enough.
    fn try_again(&mut self, now: Instant, id: AllocationId, want: Want) -> bool {
        let Origin::Drawn(request) = want.origin else {
            return false;
        };
        let more = self.pending_mut(id, |pending| {
            pending.attempts = pending.attempts.saturating_sub(1);
            pending.attempts > 0
        });
        let Some(server) = self
            .table
            .allocation(id)
            .map(|allocation| allocation.client.server)
        else {
            return false;
        };
        if more != Some(true) {
            return false;
        }
        let Ok(drawn) = self.draw(now, want.family, request, server) else {
            return false;
        };
        let want = self.want(id, drawn);
        self.pending_mut(id, |pending| pending.wants.push(want));
        true
    }

    /// Forgets a socket that could not be opened, and gives its port back.
    fn forget_socket(&mut self, now: Instant, socket: RelayedId, error: OpenError) {
        let Some(socket) = self.table.remove_relayed(socket) else {
            return;
        };
        match (error, self.public_address(&socket)) {
            (OpenError::PortTaken, Some(address)) => self.ledger.mark_unavailable(address, now),
            (_, Some(_)) => self.release_port(now, &socket),
            (_, None) => {}
        }
    }

    fn pending_mut<T>(
        &mut self,
        id: AllocationId,
        change: impl FnOnce(&mut Pending) -> T,
    ) -> Option<T> {
        let allocation = self.table.allocation_mut(id)?;
        allocation.pending.as_deref_mut().map(change)
    }
}
