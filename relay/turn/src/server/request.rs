//! A request on its way through the server, and the frame of its answer.

use crate::addr::FiveTuple;
use crate::allocation::Closing;
use crate::context::Context;
use crate::policy::Policy;
use crate::request_method::RequestMethod;
use crate::table::AllocationId;
use crate::time::Now;
use crate::wire::{
    AttributeType, Class, Fingerprint, IntegrityKind, LongTermKey, Message, MessageWriter,
    TransactionId,
};

/// The SOFTWARE of Allocate and Refresh responses (RFC 8656 §5).
const SOFTWARE: &str = concat!("Turnfleet ", env!("CARGO_PKG_VERSION"));

/// One request, with what is known about its sender.
pub(super) struct Request<'a> {
    pub(super) now: Now,
    pub(super) from: FiveTuple,
    pub(super) method: RequestMethod,
    pub(super) message: Message<'a>,
    /// What the five-tuple identifies (RFC 8656 §5), pending allocations included.
    pub(super) allocation: Option<AllocationId>,
    pub(super) context: Context<'a>,
}

impl Request<'_> {
    /// The realm that its sender is challenged with, and credentials are good in.
    pub(super) fn realm<'r>(&'r self, policy: &'r Policy) -> &'r str {
        let asked = self.message.realm().and_then(Result::ok);
        let keys = self.context.keys;
        keys.realm(self.context.server_name, asked)
            .unwrap_or(&policy.realm)
    }

    pub(super) fn answer(&self) -> Answer {
        Answer {
            method: self.method,
            transaction_id: self.message.transaction_id(),
            closing: self.closing(),
        }
    }

    /// RFC 8489 §9.2.4: a request that takes up the offered password algorithms has both of their attributes, and is answered
    /// with MESSAGE-INTEGRITY-SHA256; one that has neither with MESSAGE-INTEGRITY. §7: FINGERPRINT is answered with one.
    pub(super) fn closing(&self) -> Closing {
        let chooses = self.message.has(AttributeType::PASSWORD_ALGORITHM);
        Closing {
            integrity: if chooses {
                IntegrityKind::Sha256
            } else {
                IntegrityKind::Sha1
            },
            fingerprint: self.message.fingerprint() != Fingerprint::Absent,
        }
    }

    /// Whether its refusal is worth a line in the log: an Allocate request from a known sender, or from one who tried.
    pub(super) fn is_notable(&self, authentic: bool) -> bool {
        self.method == RequestMethod::Allocate && (authentic || self.message.has_integrity())
    }
}

/// What an answer repeats of its request: enough to answer later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) method: RequestMethod,
    pub(super) transaction_id: TransactionId,
    pub(super) closing: Closing,
}

impl Answer {
    /// Begins a success response.
    pub(super) fn success(self, out: &mut Vec<u8>) -> MessageWriter<'_> {
        self.begin(Class::SuccessResponse, out)
    }

    /// Ends a response, signed with the key that authenticated the request (RFC 8489 §9.2.4). Allocate and Refresh
    /// responses name the SOFTWARE (RFC 8656 §5), but not to a sender who has proved nothing: that answer is kept short.
    pub(super) fn finish(self, mut writer: MessageWriter<'_>, key: Option<&LongTermKey>) {
        if self.closing.fingerprint {
            writer.with_fingerprint();
        }
        let Some(key) = key else {
            return writer.finish();
        };
        if matches!(
            self.method,
            RequestMethod::Allocate | RequestMethod::Refresh
        ) {
            writer.software(SOFTWARE);
        }
        writer.finish_signed_by(self.closing.integrity, key);
    }

    pub(super) fn begin(self, class: Class, out: &mut Vec<u8>) -> MessageWriter<'_> {
        MessageWriter::new(out, class, self.method.method(), self.transaction_id)
    }
}
