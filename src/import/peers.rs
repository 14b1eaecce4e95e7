//! What coturn's lists of peers say, beside what the default filter here refuses: which entries have to be written, and
//! which peers coturn lets clients reach that the default filter does not.
//!
//! Coturn lets a peer through that is both allowed and denied; here the longer prefix decides. Blocks are nested or disjoint,
//! so it is enough to leave out each denied block that an allowed one covers.

use turnfleet_turn::peer_filter::{Cidr, PeerDenied, PeerFilter, Refused};

use super::parse::Source;
use super::ranges::{Range, Span, address, common, count, minus};

/// The lists, and the default filter.
#[derive(Debug)]
pub(super) struct PeerLists {
    allowed: Vec<Range>,
    denied: Vec<Range>,
    /// What coturn refuses whatever the lists say.
    built_in: Vec<Range>,
    refused: Vec<Refused>,
}

/// What becomes of an `allowed-peer-ip`.
#[derive(Debug)]
pub(super) struct Allowed {
    /// The entries that open it here.
    pub(super) entries: Vec<Cidr>,
    /// How many addresses the default filter refuses and the entries open.
    pub(super) opened: u128,
    /// How many addresses nothing opens here.
    pub(super) closed: u128,
}

/// What becomes of a `denied-peer-ip`.
#[derive(Debug)]
pub(super) enum Denied {
    /// Coturn's other list lets all of it through.
    Allowed,
    /// All of it is refused by default.
    Refused,
    /// Entries that close it.
    Entries(Vec<Cidr>),
}

/// Peers of one rule of the default filter that coturn lets clients reach.
#[derive(Debug)]
pub(super) struct Open {
    /// What the rule is called.
    pub(super) rule: &'static str,
    /// How many of the addresses are IPv4.
    pub(super) ipv4: u128,
    /// All of them.
    pub(super) blocks: Vec<Cidr>,
    /// Whether an entry can open them.
    pub(super) can_be_allowed: bool,
}

impl PeerLists {
    /// The lists of a file, without the lines that are no ranges.
    pub(super) fn of(source: &Source, is_on: impl Fn(&str) -> bool) -> Self {
        let list = |name: &str| -> Vec<Range> {
            let lines = source.settings.iter();
            let lines = lines.filter(|setting| setting.name == name);
            lines
                .filter_map(|setting| Range::parse(setting.value.as_deref()?))
                .collect()
        };
        let mut built_in = vec!["0.0.0.0/8", "::/128"];
        if !is_on("allow-loopback-peers") {
            built_in.extend(["127.0.0.0/8", "::1/128"]);
        }
        if is_on("no-multicast-peers") {
            built_in.extend(["224.0.0.0-255.255.255.255", "ff00::/8"]);
        }
        Self {
            allowed: list("allowed-peer-ip"),
            denied: list("denied-peer-ip"),
            built_in: built_in.into_iter().filter_map(Range::parse).collect(),
            refused: PeerFilter::default().refused(),
        }
    }

    /// What has to be written for an allowed range.
    pub(super) fn allow(&self, range: Range) -> Allowed {
        let refused = self.refused_spans(range.is_ipv4(), |_| true);
        let closed = self.refused_spans(range.is_ipv4(), |refused| !can_be_allowed(refused));
        let denied = blocks(&self.denied);
        let is_needed = |block: &Cidr| {
            let span = [Range::of(*block).span()];
            !common(&span, &refused).is_empty() || denied.iter().any(|outer| covers(outer, block))
        };
        let spans = [range.span()];
        let closed = count(&common(&spans, &closed));
        Allowed {
            entries: range.blocks().into_iter().filter(is_needed).collect(),
            opened: count(&common(&spans, &refused)).saturating_sub(closed),
            closed,
        }
    }

    /// What has to be written for a denied range.
    pub(super) fn deny(&self, range: Range) -> Denied {
        let allowed = blocks(&self.allowed);
        let mut entries = range.blocks();
        entries.retain(|block| !allowed.iter().any(|outer| covers(outer, block)));
        if entries.is_empty() {
            return Denied::Allowed;
        }
        let refused = self.refused_spans(range.is_ipv4(), |_| true);
        entries.retain(|block| !minus(&[Range::of(*block).span()], &refused).is_empty());
        if entries.is_empty() {
            Denied::Refused
        } else {
            Denied::Entries(entries)
        }
    }

    /// The peers that coturn lets clients reach, and neither the default filter nor an entry of the file here does.
    pub(super) fn open(&self) -> Vec<Open> {
        let mut open: Vec<Open> = Vec::new();
        for refused in &self.refused {
            let range = Range {
                first: refused.first,
                last: refused.last,
            };
            let is_ipv4 = range.is_ipv4();
            let mut rest = minus(&[range.span()], &spans(&self.built_in, is_ipv4));
            rest = minus(&rest, &spans(&self.denied, is_ipv4));
            rest = minus(&rest, &spans(&self.allowed, is_ipv4));
            if refused.rule == PeerDenied::Loopback || rest.is_empty() {
                continue;
            }
            let rule = refused.rule.name();
            let at = open.iter().position(|open| open.rule == rule);
            let at = at.unwrap_or_else(|| {
                open.push(Open {
                    rule,
                    ipv4: 0,
                    blocks: Vec::new(),
                    can_be_allowed: can_be_allowed(refused),
                });
                open.len() - 1
            });
            if is_ipv4 {
                open[at].ipv4 += count(&rest);
            }
            let ranges = rest.into_iter().map(|(first, last)| Range {
                first: address(first, is_ipv4),
                last: address(last, is_ipv4),
            });
            open[at]
                .blocks
                .extend(ranges.flat_map(|range| range.blocks()));
        }
        open
    }

    fn refused_spans(&self, is_ipv4: bool, of: impl Fn(&Refused) -> bool) -> Vec<Span> {
        let ranges = self.refused.iter().filter(|refused| of(refused));
        let ranges = ranges.map(|refused| Range {
            first: refused.first,
            last: refused.last,
        });
        let family = ranges.filter(|range| range.is_ipv4() == is_ipv4);
        family.map(|range| range.span()).collect()
    }
}

fn can_be_allowed(refused: &Refused) -> bool {
    refused.rule.permitted_by(refused.first).is_some()
}

fn covers(outer: &Cidr, inner: &Cidr) -> bool {
    outer.contains(inner.address()) && outer.prefix() <= inner.prefix()
}

fn blocks(ranges: &[Range]) -> Vec<Cidr> {
    ranges.iter().flat_map(Range::blocks).collect()
}

fn spans(ranges: &[Range], is_ipv4: bool) -> Vec<Span> {
    let family = ranges.iter().filter(|range| range.is_ipv4() == is_ipv4);
    family.map(Range::span).collect()
}
