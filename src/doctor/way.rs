//! One way to a server: a transport and an address that a URI leads to, and how a client gets in there.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use turnfleet_turn::client::{AllocateOptions, Allocated};
use turnfleet_turn::{AddressFamily, Transport};

use super::identity::Identity;
use super::session::{Refusal, Session};
use crate::link::{Link, Tls};
use crate::resolve::Candidate;

/// How long a stream may take to be let in.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// As often a client follows a server that names another one.
const MAX_REDIRECTS: usize = 3;

/// A way that a URI leads to.
#[derive(Clone)]
pub(super) struct Way {
    /// The URI.
    pub(super) uri: String,
    /// Whether the URI is for allocations too, and not for Binding alone.
    pub(super) is_turn: bool,
    /// Where it leads.
    pub(super) candidate: Candidate,
    /// For TLS, how it is spoken.
    pub(super) tls: Option<Tls>,
}

/// What a client holds that got in.
pub(super) struct Holding {
    /// The client.
    pub(super) session: Session,
    /// Its allocation.
    pub(super) allocated: Allocated,
}

impl Way {
    /// The transport.
    pub(super) fn transport(&self) -> Transport {
        self.candidate.transport
    }

    /// A client that has said nothing yet.
    pub(super) fn open(
        &self,
        credential: (String, String),
        password_algorithms: bool,
    ) -> Result<Session> {
        let link = Link::to(self.candidate, self.tls.as_ref(), CONNECT_TIMEOUT)?;
        Session::new(link, self.transport(), credential, password_algorithms)
    }

    /// A client with an allocation for the user of this number.
    pub(super) fn allocate(
        &self,
        identity: &Identity,
        user: usize,
        options: AllocateOptions,
    ) -> Result<Holding, Refusal> {
        self.allocate_as(&identity.of(user), options)
    }

    /// A client with an allocation, wherever the server sends it: signed as clients of RFC 5389 do, and where that is not
    /// taken, as the server would have it.
    pub(super) fn allocate_as(
        &self,
        credential: &(String, String),
        options: AllocateOptions,
    ) -> Result<Holding, Refusal> {
        let mut way = self.clone();
        let mut password_algorithms = false;
        let mut redirects = 0;
        loop {
            let session = way.open(credential.clone(), password_algorithms);
            let mut session = session.map_err(|error| Refusal::Broken(format!("{error:#}")))?;
            match session.allocate(options) {
                Ok(allocated) => return Ok(Holding { session, allocated }),
                Err(Refusal::Elsewhere(server)) if redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    way.candidate.address = server;
                }
                Err(refusal) if refusal.is_unauthenticated() && !password_algorithms => {
                    password_algorithms = true;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// What an Allocate asks for to have a relayed address of this family.
    pub(super) fn family(family: AddressFamily) -> AllocateOptions {
        AllocateOptions {
            family: Some(family),
            ..AllocateOptions::default()
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.uri, self.candidate.address)
    }
}
