//! As whom the doctor asks: a secret by which it makes credentials, or credentials that were given.

use anyhow::Result;
use turnfleet_proto::credentials::{SharedSecret, mint};

use crate::credentials::unix_now;

/// How long the credentials of a run are good for; a run takes half a minute.
const TTL_SECONDS: i64 = 3600;

/// Where credentials come from.
#[derive(Clone)]
pub(super) enum Source {
    /// They are made as they are needed, for as many users as are needed.
    Secret(SharedSecret),
    /// One user's, as they are.
    Fixed {
        /// The username.
        username: String,
        /// The password.
        password: String,
    },
}

/// Whom the relays see.
#[derive(Clone)]
pub(super) struct Identity {
    /// Where the credentials come from.
    pub(super) source: Source,
    /// This machine's clock.
    now: i64,
    /// How far the clock of the relays is ahead of it, in seconds.
    pub(super) skew: i64,
}

impl Identity {
    /// An identity on a machine that has the right time.
    pub(super) fn new(source: Source) -> Result<Self> {
        Ok(Self {
            source,
            now: i64::try_from(unix_now()?)?,
            skew: 0,
        })
    }

    /// The username and the password of the user of this number.
    pub(super) fn of(&self, user: usize) -> (String, String) {
        self.ending_in(self.skew + TTL_SECONDS, user)
    }

    /// The same, good for so many seconds by this machine's clock; credentials that were given are what they are.
    pub(super) fn ending_in(&self, seconds: i64, user: usize) -> (String, String) {
        match &self.source {
            Source::Fixed { username, password } => (username.clone(), password.clone()),
            Source::Secret(secret) => {
                let expiry = u64::try_from(self.now + seconds).unwrap_or_default();
                let made = mint(secret, &format!("turnfleet-doctor-{user}"), expiry);
                (made.username, made.password)
            }
        }
    }

    /// Whether it can make credentials that end when it wants.
    pub(super) fn has_secret(&self) -> bool {
        match self.source {
            Source::Secret(_) => true,
            Source::Fixed { .. } => false,
        }
    }
}
