//! What the core borrows for the length of one call: the keys of those who may come.

use std::ops::Range;

use crate::time::Now;
use crate::wire::LongTermKey;

/// What a `handle_*` call borrows from its caller.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The keys that requests are checked against.
    pub keys: &'a dyn KeySource,
}

/// Where candidate keys come from: the relay's policy snapshot, a table of static users, an application's own accounts.
pub trait KeySource {
    /// Adds the keys that may have signed a request of `username`, the likeliest first. Nothing is added for a username
    /// that nobody has; the core then spends the same effort on a key that fits nobody.
    fn candidates(&self, username: &str, now: Now, out: &mut Candidates);
}

/// One key that may have signed the request, and what it stands for.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The long-term key, RFC 8489 §9.2.2.
    pub key: LongTermKey,
    /// The part of the username that names the user for limits; `None` where the credential names nobody.
    pub user: Option<Range<usize>>,
    /// Seconds since the Unix epoch at which the credential ends; `None` for static users.
    pub expires_at: Option<u64>,
}

/// A bounded list of candidates: each one costs an HMAC, so their number is the price of a bad password.
#[derive(Debug, Default)]
pub struct Candidates {
    list: Vec<Candidate>,
}

impl Candidates {
    /// At most this many keys are tried for one request.
    pub const MAX: usize = 40;

    /// Adds a candidate; `false` where the list is full and the candidate was not taken.
    pub fn push(&mut self, candidate: Candidate) -> bool {
        let room = self.list.len() < Self::MAX;
        if room {
            self.list.push(candidate);
        }
        room
    }

    /// The candidates in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    /// Empties the list, keeping its memory for the next request.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}
