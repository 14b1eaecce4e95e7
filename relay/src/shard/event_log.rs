//! The story of allocations in the log: one INFO line for each that was opened, closed or refused, and for each peer that
//! was, with target `turnfleet::event`.
//!
//! Those of allocations go to the controller, too, where a control session tells them.
//!
//! With privacy, addresses and usernames are replaced by keyed hashes: lines about the same client can still be put
//! together while the process lives, and nobody can tell who it was. What begins and ends goes to the journal, too,
//! whatever is logged.

use std::fmt::{self, Display, Write as _};
use std::io;
use std::net::SocketAddr;

use ring::hmac;
use ring::rand::SystemRandom;
use turnfleet_turn::{Event, ShardId, TenantId};

use super::telling::{ShardTeller, Teller};
use crate::journal::Recorder;
use crate::policy::TenantNames;

/// Refusals that are logged in one second by one shard: they cost an attacker nothing.
const REFUSALS_A_SECOND: u32 = 50;
/// Other lines that are logged in one second by one shard: a client may open and close as fast as it likes.
const LINES_A_SECOND: u32 = 1000;
/// Bytes of a hash that are written.
const HASH_LEN: usize = 8;

/// How events are written.
#[derive(Clone, Debug)]
pub struct EventLog {
    key: Option<hmac::Key>,
    journal: Option<Recorder>,
    teller: Option<Teller>,
}

impl EventLog {
    /// Writes addresses and usernames as they are.
    #[must_use]
    pub fn open() -> Self {
        Self {
            key: None,
            journal: None,
            teller: None,
        }
    }

    /// Writes keyed hashes in place of addresses and usernames; the key is drawn here and never leaves the process.
    pub fn private() -> io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| io::Error::other("the system gave no randomness"))?;
        Ok(Self {
            key: Some(key),
            ..Self::open()
        })
    }

    /// Tells `journal` what begins and ends, too.
    pub(crate) fn with_journal(self, journal: Option<Recorder>) -> Self {
        Self { journal, ..self }
    }

    /// Tells `teller` what happens to allocations, too, as it is.
    #[must_use]
    pub(crate) fn with_teller(self, teller: Teller) -> Self {
        Self {
            teller: Some(teller),
            ..self
        }
    }

    /// `value`, or its hash.
    fn shown(&self, value: impl Display) -> String {
        let text = value.to_string();
        let Some(key) = &self.key else { return text };
        let tag = hmac::sign(key, text.as_bytes());
        let mut hash = String::with_capacity(2 * HASH_LEN);
        for byte in &tag.as_ref()[..HASH_LEN] {
            let _ = write!(hash, "{byte:02x}");
        }
        hash
    }
}

/// The event log of one shard.
pub(super) struct ShardEventLog {
    log: EventLog,
    shard: ShardId,
    refusals: Rate,
    others: Rate,
    teller: ShardTeller,
}

impl ShardEventLog {
    pub(super) fn new(log: EventLog, shard: ShardId) -> Self {
        Self {
            teller: ShardTeller::new(log.teller.clone(), shard.0),
            log,
            shard,
            refusals: Rate::default(),
            others: Rate::default(),
        }
    }

    /// Writes `event`, which happened in second `unix`; `false` where it was left out because there are too many. What a controller's
    /// probe does is in that one's metrics, and in the journal, which leaves out nobody.
    pub(super) fn write(&mut self, event: &Event, unix: u64, tenants: &TenantNames) -> bool {
        if let Some(journal) = &self.log.journal {
            journal.record(self.shard, event, unix);
        }
        if event.tenant() == Some(TenantId::PROBE) {
            return true;
        }
        if !tracing::enabled!(target: "turnfleet::event", tracing::Level::INFO) {
            return true;
        }
        let admitted = match event {
            Event::Refused { .. } | Event::PeerDenied { .. } => {
                self.refusals.admits(unix, REFUSALS_A_SECOND)
            }
            Event::Opened { .. }
            | Event::Closed { .. }
            | Event::Evicting { .. }
            | Event::PeerConnected { .. } => self.others.admits(unix, LINES_A_SECOND),
        };
        if !admitted {
            return false;
        }
        self.write_line(event, tenants);
        true
    }

    /// Sends `event`, which happened in second `unix`, on to the controller.
    pub(super) fn tell(&mut self, event: Event, unix: u64, tenants: &TenantNames) {
        if event.tenant() != Some(TenantId::PROBE) {
            self.teller.tell(event, unix, tenants);
        }
    }

    /// How many allocations may be told of at this moment that they will be evicted.
    pub(super) fn room_for_evicting(&self) -> usize {
        self.teller.room_for_evicting()
    }

    fn write_line(&self, event: &Event, tenants: &TenantNames) {
        let tenant = event.tenant().and_then(|tenant| tenants.of(tenant));
        /// What every line tells, and the fields of this one.
        macro_rules! line {
            ($message:literal, $($field:tt)*) => {
                tracing::info!(
                    target: "turnfleet::event",
                    shard = self.shard.0,
                    allocation = event.allocation(),
                    transport = event.client().transport.name(),
                    client = self.log.shown(event.client().client),
                    server = %event.client().server,
                    username = event.username().map(|name| self.log.shown(name)),
                    tenant,
                    $($field)*
                    $message
                )
            };
        }
        match event {
            Event::Opened {
                relayed_transport,
                relayed,
                ..
            } => line!(
                "allocation opened",
                relayed_transport = relayed_transport.name(),
                relayed = %Addresses(relayed),
            ),
            Event::Closed {
                reason,
                duration,
                bytes_to_peers,
                bytes_to_client,
                ..
            } => line!(
                "allocation closed",
                reason = reason.name(),
                seconds = duration.as_secs(),
                bytes_to_peers,
                bytes_to_client,
            ),
            Event::Evicting { deadline, .. } => line!("allocation evicting", deadline,),
            Event::Refused { code, .. } => line!("allocation refused", code,),
            Event::PeerConnected {
                peer, opened_by, ..
            } => line!(
                "peer connected",
                peer = self.log.shown(peer),
                opened_by = opened_by.name(),
            ),
            Event::PeerDenied { peer, rule, .. } => {
                // The entry would show what the hash of the peer hides.
                let allow = rule.permitted_by(*peer).filter(|_| self.log.key.is_none());
                line!(
                    "peer refused",
                    peer = self.log.shown(peer),
                    rule = rule.name(),
                    allow = allow.map(tracing::field::display),
                );
            }
        }
    }
}

/// How much happened in the second in which something happened last.
#[derive(Default)]
pub(super) struct Rate {
    second: u64,
    count: u32,
}

impl Rate {
    /// Whether one more in second `unix` is within `most`.
    pub(super) fn admits(&mut self, unix: u64, most: u32) -> bool {
        if self.second != unix {
            *self = Self {
                second: unix,
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}

/// One or two relayed addresses.
struct Addresses<'a>(&'a [SocketAddr]);

impl Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_log_shows_the_same_hash_for_the_same_address_and_never_the_address() {
        let log = EventLog::private().unwrap();
        let address: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let shown = log.shown(address);
        assert_eq!(shown, log.shown(address));
        assert_ne!(shown, log.shown("192.0.2.1:5001"));
        assert!(!shown.contains("192"), "{shown}");
        assert_eq!(EventLog::open().shown(address), "192.0.2.1:5000");
    }

    #[test]
    fn lines_are_logged_at_a_bounded_rate() {
        let mut rate = Rate::default();
        let logged = (0..1000).filter(|_| rate.admits(7, 50)).count();
        assert_eq!(logged, 50);
        assert!(rate.admits(8, 50));
    }
}
