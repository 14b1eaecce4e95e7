//! A request on its way through the server, and the frame of its answer.

use crate::addr::FiveTuple;
use crate::table::AllocationId;
use crate::time::Now;
use crate::wire::{Class, Fingerprint, LongTermKey, Message, MessageWriter, Method, TransactionId};

/// The SOFTWARE of Allocate and Refresh responses (RFC 8656 §5).
const SOFTWARE: &str = concat!("Turnfleet ", env!("CARGO_PKG_VERSION"));

/// The methods that have requests. The variants are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestMethod {
    /// RFC 8489 §6.3.1.1.
    Binding,
    /// RFC 8656 §7.
    Allocate,
    /// RFC 8656 §8.
    Refresh,
    /// RFC 8656 §10.
    CreatePermission,
    /// RFC 8656 §12.
    ChannelBind,
}

impl RequestMethod {
    /// Every method, in the order of their declaration.
    pub const ALL: [Self; 5] = [
        Self::Binding,
        Self::Allocate,
        Self::Refresh,
        Self::CreatePermission,
        Self::ChannelBind,
    ];

    /// The metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.method().name()
    }

    /// `None` for the methods of indications (RFC 8656 §17).
    pub(super) fn of(method: Method) -> Option<Self> {
        match method {
            Method::Binding => Some(Self::Binding),
            Method::Allocate => Some(Self::Allocate),
            Method::Refresh => Some(Self::Refresh),
            Method::CreatePermission => Some(Self::CreatePermission),
            Method::ChannelBind => Some(Self::ChannelBind),
            Method::Send | Method::Data => None,
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Binding => Method::Binding,
            Self::Allocate => Method::Allocate,
            Self::Refresh => Method::Refresh,
            Self::CreatePermission => Method::CreatePermission,
            Self::ChannelBind => Method::ChannelBind,
        }
    }
}

/// One request, with what is known about its sender.
pub(super) struct Request<'a> {
    pub(super) now: Now,
    pub(super) from: FiveTuple,
    pub(super) method: RequestMethod,
    pub(super) message: Message<'a>,
    /// What the five-tuple identifies (RFC 8656 §5), pending allocations included.
    pub(super) allocation: Option<AllocationId>,
}

impl Request<'_> {
    pub(super) fn answer(&self) -> Answer {
        Answer {
            method: self.method,
            transaction_id: self.message.transaction_id(),
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
    /// The answer ends with FINGERPRINT where the request did.
    pub(super) fingerprint: bool,
}

impl Answer {
    /// Begins a success response.
    pub(super) fn success(self, out: &mut Vec<u8>) -> MessageWriter<'_> {
        self.begin(Class::SuccessResponse, out)
    }

    /// Ends a response, signed with the key that authenticated the request (RFC 8489 §9.2.4). Allocate and Refresh
    /// responses name the SOFTWARE (RFC 8656 §5), but not to a sender who has proved nothing: that answer is kept short.
    pub(super) fn finish(self, mut writer: MessageWriter<'_>, key: Option<&LongTermKey>) {
        if self.fingerprint {
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
        writer.finish_signed(key);
    }

    pub(super) fn begin(self, class: Class, out: &mut Vec<u8>) -> MessageWriter<'_> {
        MessageWriter::new(out, class, self.method.method(), self.transaction_id)
    }
}
