//! The methods that have requests, as metrics tell them apart.

use crate::wire::Method;

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
    /// RFC 6062 §5.2.
    Connect,
    /// RFC 6062 §5.4.
    ConnectionBind,
}

impl RequestMethod {
    /// Every method, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Binding,
        Self::Allocate,
        Self::Refresh,
        Self::CreatePermission,
        Self::ChannelBind,
        Self::Connect,
        Self::ConnectionBind,
    ];

    /// The metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.method().name()
    }

    /// `None` for the methods of indications (RFC 8656 §17).
    pub(crate) fn of(method: Method) -> Option<Self> {
        match method {
            Method::Binding => Some(Self::Binding),
            Method::Allocate => Some(Self::Allocate),
            Method::Refresh => Some(Self::Refresh),
            Method::CreatePermission => Some(Self::CreatePermission),
            Method::ChannelBind => Some(Self::ChannelBind),
            Method::Connect => Some(Self::Connect),
            Method::ConnectionBind => Some(Self::ConnectionBind),
            Method::Send | Method::Data | Method::ConnectionAttempt => None,
        }
    }

    pub(crate) fn method(self) -> Method {
        match self {
            Self::Binding => Method::Binding,
            Self::Allocate => Method::Allocate,
            Self::Refresh => Method::Refresh,
            Self::CreatePermission => Method::CreatePermission,
            Self::ChannelBind => Method::ChannelBind,
            Self::Connect => Method::Connect,
            Self::ConnectionBind => Method::ConnectionBind,
        }
    }
}
