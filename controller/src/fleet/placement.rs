//! Which relays a user is given.

use std::net::IpAddr;
use std::sync::Arc;

use turnfleet_proto::TurnUri;

use super::view::{FleetView, NodeView};

/// The most URIs of one list, whatever is asked for.
pub const MAX_URIS: usize = 8;

/// What a caller asks a list for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Whose list it is; the same user gets the same relays while the fleet is the same. May be empty.
    pub user: &'a str,
    /// Where the caller comes from; stands for an empty user, by its /24 or /56.
    pub client: Option<IpAddr>,
    /// The region to prefer; the controller's own where it is not named.
    pub region: Option<&'a str>,
    /// The kinds of URIs, in order of preference; empty for the default list.
    pub kinds: &'a [UriKind],
    /// How many URIs, 1 to [`MAX_URIS`]; four where it is not said.
    pub count: Option<usize>,
}

/// A kind of URI in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UriKind {
    /// `stun:`, by UDP.
    Stun,
    /// `turn:` with `transport=udp`.
    Udp,
    /// `turn:` with `transport=tcp`.
    Tcp,
    /// `turns:` with `transport=tcp`.
    Tls,
}

/// The nodes that lists may name, prepared for many picks.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates(pub(super) Vec<Arc<NodeView>>);

impl FleetView {
    /// The URIs for `ask`: empty only where no node can serve.
    #[must_use]
    pub fn list(&self, ask: &Ask<'_>) -> Vec<TurnUri> {
        let _ = (ask, &self.candidates.0);
        Vec::new()
    }
}
