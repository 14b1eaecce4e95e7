//! What the core borrows for the length of one call: the keys of those who may come, and what TLS says of who comes.

use std::ops::Range;

use crate::tenant::TenantId;
use crate::time::Now;
use crate::wire::{LongTermKey, PasswordAlgorithm};

/// What a `handle_*` call borrows from its caller.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The keys that requests are checked against.
    pub keys: &'a dyn KeySource,
    /// The name of the server that the client's TLS handshake has asked for, in lower case; `None` where there was none.
    pub server_name: Option<&'a str>,
}

impl<'a> Context<'a> {
    /// For a client that has named no server.
    #[must_use]
    pub fn new(keys: &'a dyn KeySource) -> Self {
        Self {
            keys,
            server_name: None,
        }
    }
}

/// Whom a request says it is from. Of these only the username is signed by all who mint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The USERNAME.
    pub username: &'a str,
    /// The REALM: that of the policy, or what [`KeySource::realm`] gave.
    pub realm: &'a str,
    /// As in [`Context`].
    pub server_name: Option<&'a str>,
}

/// Where candidate keys come from: the relay's policy snapshot, a table of static users, an application's own accounts.
pub trait KeySource {
    /// Adds the keys that may have signed a request of `identity`, the likeliest first, made by the algorithm that `out`
    /// names. Nothing is added for a username that nobody has; the core then spends the same effort on a key that fits
    /// nobody.
    fn candidates(&self, identity: Identity<'_>, now: Now, out: &mut Candidates);

    /// The realm that a request is challenged with, where it is not the policy's: that of the tenant to whom the server's
    /// name belongs, or the REALM that the request has `asked` for. Credentials of another realm are nobody's.
    fn realm(&self, _server_name: Option<&str>, _asked: Option<&str>) -> Option<&str> {
        None
    }

    /// A request was signed with a key of this [`Candidate::key_id`]: for those who count what is still used. On the path of
    /// every authentic request, so it may not wait.
    fn used(&self, _key_id: u32, _now: Now) {}
}

/// One key that may have signed the request, and what it stands for.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The long-term key, RFC 8489 §9.2.2, made by the algorithm that is asked for.
    pub key: LongTermKey,
    /// The part of the username that names the user for limits; `None` where the credential names nobody.
    pub user: Option<Range<usize>>,
    /// Whose user it is.
    pub tenant: TenantId,
    /// Whose user the credential makes it wherever it is shown. It is another tenant where only the server's name or the
    /// realm, which clients choose, speaks for [`Self::tenant`]: a ban of either holds then.
    pub home: TenantId,
    /// Seconds since the Unix epoch at which the credential ends; `None` for static users.
    pub expires_at: Option<u64>,
    /// Names what the key was made from, for [`KeySource::used`] and [`crate::policy::Policy::revoked_keys`]; zero for what
    /// is never asked for.
    pub key_id: u32,
}

/// A bounded list of candidates: each one costs an HMAC, so their number is the price of a bad password.
#[derive(Debug, Default)]
pub struct Candidates {
    algorithm: PasswordAlgorithm,
    list: Vec<Candidate>,
}

impl Candidates {
    /// At most this many keys are tried for one request: a static user's, 32 of a tenant's secrets, 32 of the fleet's and 32
    /// of a region's.
    pub const MAX: usize = 97;

    /// An empty list for keys that `algorithm` has made.
    #[must_use]
    pub fn of(algorithm: PasswordAlgorithm) -> Self {
        Self {
            algorithm,
            list: Vec::new(),
        }
    }

    /// What the keys are to be made by: what the request asks for (RFC 8489 §9.2.4).
    #[must_use]
    pub fn algorithm(&self) -> PasswordAlgorithm {
        self.algorithm
    }

    /// Adds a candidate; `false` where it was not taken, because the list is full or another algorithm has made the key.
    pub fn push(&mut self, candidate: Candidate) -> bool {
        let taken = self.list.len() < Self::MAX && candidate.key.algorithm() == self.algorithm;
        if taken {
            self.list.push(candidate);
        }
        taken
    }

    /// Adds the key of a user who has a password in `realm`, without an end; `false` where the list is full.
    pub fn push_password(&mut self, username: &str, realm: &str, password: &str) -> bool {
        self.push(Candidate {
            key: LongTermKey::derive_with(self.algorithm, username, realm, password),
            user: Some(0..username.len()),
            tenant: TenantId::DEFAULT,
            home: TenantId::DEFAULT,
            expires_at: None,
            key_id: 0,
        })
    }

    /// The candidates in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    /// Empties the list for keys that `algorithm` has made, keeping its memory for the next request.
    pub(crate) fn restart(&mut self, algorithm: PasswordAlgorithm) {
        self.algorithm = algorithm;
        self.list.clear();
    }
}
