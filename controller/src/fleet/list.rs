//! The list of URIs that a caller is given.

use std::net::IpAddr;
use std::ops::Deref;

use turnfleet_proto::credentials::SharedSecret;

use super::placement::{Picks, UserKey};
use super::uris::{Family, Names, UriKind};
use super::view::{FleetView, NodeView};

/// The URIs of a list where the caller does not say how many: browsers warn at five and gather slowly.
const DEFAULT_URIS: usize = 4;
/// The relays of a list of no more than that.
const DEFAULT_RELAYS: usize = 2;
/// The most URIs of one list, whatever is asked for.
pub const MAX_URIS: usize = 8;

/// What a caller asks a list for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Whose users they are; empty for the default tenant, whose lists have no relay that is bound to another.
    pub tenant: &'a str,
    /// Whose list it is; the same user gets the same relays while the fleet is the same. May be empty.
    pub user: &'a str,
    /// The call that it is for: everybody in a room gets the same relays of a region, and data between two of them need not
    /// leave the relay.
    pub room: Option<&'a str>,
    /// Where the caller comes from; stands for an empty user, by its /24 or /56. Relays with both families show it the
    /// one that it came by first.
    pub client: Option<IpAddr>,
    /// The region to prefer; the controller's own where it is not named, or has no relay.
    pub region: Option<&'a str>,
    /// The kinds of URIs, in order of preference; empty for the default list.
    pub kinds: &'a [UriKind],
    /// Leaves `stun:` out of the default list.
    pub turn_only: bool,
    /// How many URIs, 1 to [`MAX_URIS`]; four where it is not said.
    pub count: Option<usize>,
    /// Which URIs carry names; as the configuration has it where it is not said.
    pub names: Option<Names>,
}

impl Ask<'_> {
    pub(super) fn key(&self) -> UserKey {
        UserKey::new(self.tenant, self.user, self.room, self.client)
    }

    fn uris(&self) -> usize {
        self.count.unwrap_or(DEFAULT_URIS).clamp(1, MAX_URIS)
    }

    fn relays(&self) -> usize {
        let count = self.uris();
        if self.kinds.is_empty() && count <= DEFAULT_URIS {
            DEFAULT_RELAYS
        } else {
            count
        }
    }
}

/// The URIs of one list: no URI twice, and no more than were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UriList<'v> {
    uris: [&'v str; MAX_URIS],
    len: usize,
}

impl<'v> Deref for UriList<'v> {
    type Target = [&'v str];

    fn deref(&self) -> &Self::Target {
        &self.uris[..self.len]
    }
}

impl FleetView {
    /// The URIs for `ask`. Empty where no node can serve, or none serves what is asked for.
    #[must_use]
    pub fn list(&self, ask: &Ask<'_>) -> UriList<'_> {
        self.offer(ask).0
    }

    /// As [`Self::list`], with the secret that a credential for these relays is minted with.
    #[must_use]
    pub fn offer(&self, ask: &Ask<'_>) -> (UriList<'_>, &SharedSecret) {
        let picks = self.picks(ask);
        let by_v6 = ask.client.map(Family::of) == Some(Family::V6);
        let mut making = Making {
            list: UriList::default(),
            count: ask.uris(),
            names: ask.names.unwrap_or(self.names),
            families: if by_v6 {
                [Family::V6, Family::V4]
            } else {
                [Family::V4, Family::V6]
            },
        };
        if ask.kinds.is_empty() {
            making.fill_by_default(&picks, ask.turn_only);
        } else {
            making.fill(&picks, ask.kinds);
        }
        (making.list, self.minting_secret_for(picks.nodes()))
    }

    /// The relays of that list, the first choice first.
    pub(super) fn picks(&self, ask: &Ask<'_>) -> Picks<'_> {
        let region = ask.region.unwrap_or(&self.region);
        self.candidates
            .pick(ask.tenant, ask.key(), region, ask.relays())
    }
}

/// A list in the making.
struct Making<'v> {
    list: UriList<'v>,
    count: usize,
    names: Names,
    families: [Family; 2],
}

impl<'v> Making<'v> {
    /// `stun:` and `turn:` by UDP of the first relay, `turn:` by UDP of the second, and a way through firewalls that let only
    /// TCP pass; then whatever else there is. A list of one has no use for `stun:`.
    fn fill_by_default(&mut self, picks: &Picks<'v>, turn_only: bool) {
        let (first, second) = (picks.nth(0), picks.nth(1));
        let of = |making: &Self, node: Option<&'v NodeView>, kind| making.preferred(node?, kind);
        if self.count > 1 && !turn_only {
            self.add(of(self, first, UriKind::Stun));
        }
        self.add(of(self, first, UriKind::Udp));
        self.add(of(self, second, UriKind::Udp));
        self.add(of(self, first, UriKind::Tls).or_else(|| of(self, first, UriKind::Tcp)));
        for family in self.families {
            for kind in [UriKind::Tcp, UriKind::Tls, UriKind::Udp] {
                for node in picks.nodes() {
                    self.add(self.uri(node, kind, family));
                }
            }
        }
    }

    /// The kinds in the caller's order, each of two relays before the next kind, then those of further relays; at last what
    /// the same relays have by the other family.
    fn fill(&mut self, picks: &Picks<'v>, kinds: &[UriKind]) {
        let pairs = || (0..MAX_URIS).step_by(2).map(|place| [place, place + 1]);
        let other_family = self.families[1];
        for preferred in [true, false] {
            for pair in pairs() {
                for kind in kinds {
                    for node in pair.into_iter().filter_map(|place| picks.nth(place)) {
                        self.add(if preferred {
                            self.preferred(node, *kind)
                        } else {
                            self.uri(node, *kind, other_family)
                        });
                    }
                }
            }
        }
    }

    fn preferred(&self, node: &'v NodeView, kind: UriKind) -> Option<&'v str> {
        let [first, second] = self.families;
        self.uri(node, kind, first)
            .or_else(|| self.uri(node, kind, second))
    }

    /// The URI of `node` for `kind`, where it has a listener for it that works.
    fn uri(&self, node: &'v NodeView, kind: UriKind, family: Family) -> Option<&'v str> {
        let uri = node.uris.of(kind, family, self.names);
        uri.filter(|_| node.serves(kind.transport()))
    }

    fn add(&mut self, uri: Option<&'v str>) {
        if let Some(uri) = uri
            && self.list.len < self.count
            && !self.list.contains(&uri)
        {
            self.list.uris[self.list.len] = uri;
            self.list.len += 1;
        }
    }
}
