//! One request on its way: retransmission and giving up (RFC 8489 §6.2).

use std::time::Duration;

use super::event::Failure;
use super::request::Request;
use crate::time::Instant;
use crate::wire::{IntegrityKind, LongTermKey, Message, TransactionId};

/// The first interval between transmissions, doubled each time (RFC 8489 §6.2.1).
const RTO: Duration = Duration::from_millis(500);

/// How often a request is sent at most, "Rc" (RFC 8489 §6.2.1).
const MAX_SENDS: u8 = 7;

/// What is waited for after the last transmission: "Rm" times the RTO (RFC 8489 §6.2.1).
const LAST_WAIT: Duration = Duration::from_secs(8);

/// How long an answer may take on a stream, "Ti" (RFC 8489 §6.2.2): as long as all of the retransmissions.
const RELIABLE_WAIT: Duration = Duration::from_millis(39_500);

pub(super) struct Transaction {
    pub(super) id: TransactionId,
    pub(super) request: Request,
    /// Sent again byte for byte.
    pub(super) message: Box<[u8]>,
    /// What the request was signed with, and its answer must be signed with too.
    pub(super) signed_with: Option<Signature>,
    /// How often this request was made again with other credentials.
    pub(super) retries: u8,
    /// Whether an answer was discarded because it was not the server's.
    pub(super) violated: bool,
    /// Whether the message waits for being sent.
    pub(super) unsent: bool,
    sends: u8,
    due: Instant,
}

/// What signs requests: a key, and the attribute that is made with it.
#[derive(Clone)]
pub(super) struct Signature {
    pub(super) key: LongTermKey,
    pub(super) kind: IntegrityKind,
}

impl Signature {
    /// Whether `answer` is signed with this key, and by no weaker attribute.
    pub(super) fn signs(&self, answer: &Message<'_>) -> bool {
        let weaker = self.kind == IntegrityKind::Sha256 && answer.integrity() != Some(self.kind);
        !weaker && answer.verify_integrity(&self.key)
    }
}

impl Transaction {
    pub(super) fn new(
        now: Instant,
        id: TransactionId,
        request: Request,
        message: Box<[u8]>,
        signed_with: Option<Signature>,
        retries: u8,
        reliable: bool,
    ) -> Self {
        let (sends, wait) = if reliable {
            (MAX_SENDS, RELIABLE_WAIT)
        } else {
            (1, RTO)
        };
        Self {
            id,
            request,
            message,
            signed_with,
            retries,
            violated: false,
            unsent: true,
            sends,
            due: now.after(wait),
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Sends again where it is time to; `false` when it is time to give up.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if now < self.due {
            return true;
        }
        if self.sends >= MAX_SENDS {
            return false;
        }
        let wait = if self.sends + 1 == MAX_SENDS {
            LAST_WAIT
        } else {
            RTO * (1 << self.sends)
        };
        self.sends += 1;
        self.unsent = true;
        self.due = now.after(wait);
        true
    }

    pub(super) fn failure_without_answer(&self) -> Failure {
        if self.violated {
            Failure::IntegrityViolated
        } else {
            Failure::Timeout
        }
    }
}
