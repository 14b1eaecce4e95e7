//! Allocate (RFC 8656 §7.2, RFC 6062 §5.1): what the request asks for, whether it may be had, and the answer. Sockets are opened in
//! between, see [`super::opening`].

use std::time::Duration;

use super::Server;
use super::auth::Credential;
use super::granting::write_success;
use super::request::Request;
use crate::addr::AddressFamily;
use crate::allocation::{Allocation, Answered, DEFAULT_LIFETIME, Owner, OwnerKey, Pending};
use crate::channels::Channels;
use crate::counters::{Flow, Limit};
use crate::decision::{Decision, DropReason};
use crate::ledger::Refused;
use crate::peer_filter::is_transition;
use crate::permissions::Permissions;
use crate::policy::TcpRelaying;
use crate::ports::PortRequest;
use crate::reject::Reject;
use crate::request_method::RequestMethod;
use crate::table::AllocationId;
use crate::tenant::TenantId;
use crate::time::Instant;
use crate::usage::{SentPorts, Traffic};
use crate::wire::{AttributeError, AttributeType, Message, ReservationToken};

/// REQUESTED-TRANSPORT, RFC 8656 §18.8.
const UDP: u8 = 17;

/// REQUESTED-TRANSPORT, RFC 6062 §4.1.
const TCP: u8 = 6;

/// What an Allocate request asks for, once it is known to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The port that an earlier allocation has reserved.
    Reserved(ReservationToken),
    /// A relayed address of one family, perhaps an IPv6 one besides.
    Drawn {
        family: AddressFamily,
        additional: bool,
        port: PortRequest,
    },
}

/// Which families the server has relayed hosts of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Server {
    /// RFC 8656 §7.2, in its order. The request is authentic (1).
    pub(super) fn handle_allocate(
        &mut self,
        request: &Request<'_>,
        credential: &Credential<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<Decision, Reject> {
        // (2) A five-tuple that has an allocation gets 437, unless the request is the one that made it.
        if let Some(id) = request.allocation {
            return self.repeat_allocate(request, credential, id, reply);
        }
        // §21.4: a client behind Teredo or 6to4 is not served.
        if is_transition(request.from.client.ip()) {
            return Err(Reject::Forbidden);
        }
        // (3) to (9), as far as the request itself decides them.
        let tcp = self.asks_for_tcp(request, credential.tenant)?;
        let asked = Asked::read(&request.message, self.families())?;
        let lifetime = match request.message.lifetime() {
            None => DEFAULT_LIFETIME,
            Some(Ok(seconds)) => self.granted_lifetime(Some(seconds)),
            Some(Err(_)) => return Err(Reject::BadRequest),
        };
        let lifetime = self.within_session(lifetime, Duration::ZERO);
        let closing = request.closing();
        if self.draining {
            return Err(self.beyond_capacity(&request.from, closing.integrity, asked));
        }
        if let Asked::Reserved(token) = asked {
            self.check_token(request.now.instant, token)?;
        }
        let owner = Owner {
            username: credential.username.into(),
            user: credential.user.clone(),
            tenant: credential.tenant,
            key: Box::new(OwnerKey {
                key: credential.key.clone(),
                id: credential.key_id,
                home: credential.home,
                expires_at: credential.expires_at,
            }),
        };
        // (10) The quota is the user's; (11) what the relay lacks another may have.
        self.admit(request, &owner, asked)?;
        let shapers = self.ledger.shapers(owner.tenant, owner.user());
        let allocation = Allocation {
            number: self.next_number,
            client: request.from,
            owner,
            answered: Box::new(Answered {
                transaction_id: request.message.transaction_id(),
                lifetime,
                token: None,
                refused_family: None,
            }),
            relayed: [None; 2],
            permissions: Permissions::new(),
            channels: Channels::new(),
            tcp,
            opened_at: request.now.instant,
            to_peers: Flow::default(),
            to_client: Flow::default(),
            tallied: Traffic::default(),
            shapers,
            sent_ports: SentPorts::default(),
            pending: Some(Box::new(Pending {
                closing,
                attempts: Pending::ATTEMPTS,
                wants: Vec::with_capacity(2),
            })),
        };
        self.next_number += 1;
        self.open_allocation(request, allocation, asked, reply)
    }

    /// §7.2 (2): the retransmission of an Allocate request gets the answer of the first one.
    fn repeat_allocate(
        &mut self,
        request: &Request<'_>,
        credential: &Credential<'_>,
        id: AllocationId,
        reply: &mut Vec<u8>,
    ) -> Result<Decision, Reject> {
        let allocation = self
            .table
            .allocation(id)
            .ok_or(Reject::AllocationMismatch)?;
        let same = allocation.answered.transaction_id == request.message.transaction_id()
            && credential.owns(&allocation.owner);
        if !same {
            return Err(Reject::AllocationMismatch);
        }
        if allocation.pending.is_some() {
            return Ok(Decision::Drop(DropReason::Retransmission));
        }
        write_success(allocation, request.closing(), reply);
        Ok(Decision::Reply)
    }

    /// (3) REQUESTED-TRANSPORT is there, and is UDP or, where TCP is relayed, TCP. (4) An unknown DONT-FRAGMENT was refused
    /// before.
    fn asks_for_tcp(&self, request: &Request<'_>, tenant: TenantId) -> Result<bool, Reject> {
        match request.message.requested_transport() {
            Some(Ok(UDP)) => Ok(false),
            Some(Ok(TCP)) if self.policy.tcp_relaying_of(tenant) != TcpRelaying::Off => Ok(true),
            Some(Ok(_)) => Err(Reject::UnsupportedTransport),
            Some(Err(_)) | None => Err(Reject::BadRequest),
        }
    }

    /// RFC 6062 §5.1: TCP relayed transport addresses are for clients on TCP or TLS, and what stands for a property of UDP
    /// gets 400, understood or not.
    pub(super) fn check_tcp_attributes(
        &self,
        request: &Request<'_>,
        tenant: TenantId,
    ) -> Result<(), Reject> {
        let allocates = request.method == RequestMethod::Allocate;
        if !allocates || self.asks_for_tcp(request, tenant) != Ok(true) {
            return Ok(());
        }
        let of_udp = [
            AttributeType::DONT_FRAGMENT,
            AttributeType::EVEN_PORT,
            AttributeType::RESERVATION_TOKEN,
        ];
        let has_any = of_udp.iter().any(|kind| request.message.has(*kind));
        if has_any || !request.from.transport.is_stream() {
            return Err(Reject::BadRequest);
        }
        Ok(())
    }

    /// §7.2 (5): whether the token may still be redeemed; another shard's tokens only it can judge.
    fn check_token(&self, now: Instant, token: ReservationToken) -> Result<(), Reject> {
        let owner = token.0[0];
        if owner >= self.config.shards || (owner == self.config.shard.0 && !self.holds(now, token))
        {
            return Err(Reject::InsufficientCapacity);
        }
        Ok(())
    }

    /// Counts the allocation against the limits; whoever ends it lets it leave.
    fn admit(&mut self, request: &Request<'_>, owner: &Owner, asked: Asked) -> Result<(), Reject> {
        let holder = owner.holder();
        let limits = self.policy.limits_of(owner.tenant);
        let reserves = asked.reserves();
        if reserves && self.reservations.held_by(holder) >= limits.allocations_per_user {
            self.counters.count_limit(Limit::Reservations);
            return Err(Reject::AllocationQuotaReached);
        }
        self.ledger
            .admit(holder, &limits)
            .map_err(|refused| match refused {
                Refused::UserQuota => {
                    self.counters.count_limit(Limit::AllocationsPerUser);
                    self.note_limited(request.from.client.ip(), owner);
                    Reject::AllocationQuotaReached
                }
                Refused::TenantQuota => {
                    self.counters.count_limit(Limit::TenantAllocations);
                    Reject::AllocationQuotaReached
                }
                Refused::Total => {
                    self.counters.count_limit(Limit::Allocations);
                    self.beyond_capacity(&request.from, request.closing().integrity, asked)
                }
            })
    }

    fn families(&self) -> Families {
        let has = |family| {
            let mut hosts = self.config.relayed_hosts.iter();
            hosts.any(|host| AddressFamily::of(host.local) == family)
        };
        Families {
            v4: has(AddressFamily::V4),
            v6: has(AddressFamily::V6),
        }
    }
}

impl Asked {
    /// RFC 8656 §7.2, (5) to (9).
    fn read(message: &Message<'_>, families: Families) -> Result<Self, Reject> {
        let requested = message.requested_address_family();
        let additional = message.additional_address_family();
        let even_port = message.even_port();
        // (5) RESERVATION-TOKEN stands alone.
        if let Some(token) = message.reservation_token() {
            if even_port.is_some() || requested.is_some() || additional.is_some() {
                return Err(Reject::BadRequest);
            }
            return token.map(Self::Reserved).map_err(|_| Reject::BadRequest);
        }
        // (6) One family, or both.
        if requested.is_some() && additional.is_some() {
            return Err(Reject::BadRequest);
        }
        // (7) The family is one that the server has; without a word about it, it is IPv4.
        let family = match requested {
            None => AddressFamily::V4,
            Some(Ok(family)) => family,
            Some(Err(AttributeError::Family)) => return Err(Reject::AddressFamilyNotSupported),
            Some(Err(_)) => return Err(Reject::BadRequest),
        };
        if !families.have(family) {
            return Err(Reject::AddressFamilyNotSupported);
        }
        // (8) A pair of ports is reserved in one family only.
        let port = match even_port {
            None => PortRequest::Any,
            Some(Ok(false)) => PortRequest::Even,
            Some(Ok(true)) if additional.is_some() => return Err(Reject::BadRequest),
            Some(Ok(true)) => PortRequest::EvenWithNext,
            Some(Err(_)) => return Err(Reject::BadRequest),
        };
        // (9) The additional family is IPv6.
        let additional = match additional {
            None => false,
            Some(Ok(AddressFamily::V6)) => true,
            Some(_) => return Err(Reject::BadRequest),
        };
        Ok(Self::Drawn {
            family,
            additional,
            port,
        })
    }

    fn reserves(self) -> bool {
        match self {
            Self::Reserved(_) => false,
            Self::Drawn { port, .. } => port == PortRequest::EvenWithNext,
        }
    }
}

impl Families {
    pub(super) fn have(self, family: AddressFamily) -> bool {
        match family {
            AddressFamily::V4 => self.v4,
            AddressFamily::V6 => self.v6,
        }
    }
}
