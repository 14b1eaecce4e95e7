//! What each rule counts of a signal, what speaks against abuse, and the words of the evidence.

use std::fmt;
use std::time::Duration;

use turnfleet_turn::usage::Spread;

use super::exempt::Fleetwide;
use super::memory::Amount;
use super::rule::Rule;
use super::signals::{NetworkSignals, Signals, UserSignals};
use super::subject::Subject;

/// Bytes that a peer of a call sends back at least: the shortest answer to a connectivity check of ICE has as many.
const BYTES_OF_AN_ANSWER: u64 = 32;
/// A call has private addresses of peers among its candidates, which the policy refuses, but never so many for each other one.
const DENIED_OF_A_CALL: u64 = 4;
/// How much more is needed where a call is the likelier reason.
const BENEFIT_OF_DOUBT: u64 = 10;
/// How many times the threshold is told without a second look. Where calls begin, peers are asked for before they answer, and
/// private ones first.
const PLAIN: u64 = 3;
/// The same of ports, where each peer has a few: those of relays have the ports of many.
const PLAIN_PORTS: u64 = 10;
/// With so many ports for each peer there is no call.
const PORTS_OF_NO_CALL: u32 = 16;
/// Networks that addresses are of where a credential is shared: one who moves stays within those of a provider or two.
const NETWORKS_OF_MANY: u32 = 3;

/// What a rule sees of one subject at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) rule: Rule,
    pub(super) subject: Subject,
    pub(super) told: Amount,
    /// How many times the threshold is needed.
    pub(super) doubt: u64,
    /// How many times the threshold needs no second look.
    pub(super) plain: u64,
    facts: Facts,
}

/// What the evidence says beside the count.
#[derive(Clone, Copy, Debug)]
enum Facts {
    Relays(u32),
    Challenges { all: u64, relays: u32 },
    BytesBack(u64),
    Refused(u64),
    OtherPeers(u64),
    Nothing,
}

/// What was counted within the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) count: u64,
    /// Why nobody is to be banned for it, where that is so.
    pub(super) holds_back: Option<&'static str>,
    pub(super) evidence: String,
}

/// Everything that any rule sees.
pub(super) fn readings<'s>(
    signals: &'s Signals,
    fleet: &'s Fleetwide,
) -> impl Iterator<Item = Reading> + 's {
    let claims = signals.claims.iter().map(|(user, failures)| Reading {
        rule: Rule::FailuresOfUser,
        subject: Subject::Claim(user.clone()),
        told: Amount::Times(*failures),
        doubt: 1,
        plain: 1,
        facts: Facts::Nothing,
    });
    let networks = signals.networks.iter().flat_map(|(network, seen)| {
        let subject = Subject::Network(*network);
        of_network(seen).map(move |(rule, told, facts)| Reading {
            rule,
            subject: subject.clone(),
            told,
            doubt: 1,
            plain: 1,
            facts,
        })
    });
    let users = signals
        .users
        .iter()
        .flat_map(move |((tenant, user), seen)| {
            let is_static = *tenant == 0 && fleet.static_users.contains(user);
            let subject = Subject::User {
                tenant: *tenant,
                user: user.clone(),
            };
            of_user(seen)
                // Its password was given to many by the operator.
                .filter(move |(rule, ..)| !is_static || *rule != Rule::SharedCredential)
                .map(move |(rule, told, [doubt, plain], facts)| Reading {
                    rule,
                    subject: subject.clone(),
                    told,
                    doubt,
                    plain,
                    facts,
                })
        });
    claims.chain(networks).chain(users)
}

fn of_network(seen: &NetworkSignals) -> impl Iterator<Item = (Rule, Amount, Facts)> + use<> {
    let challenges = Facts::Challenges {
        all: seen.challenges,
        relays: seen.nodes,
    };
    [
        (
            Rule::AuthenticationFailures,
            Amount::Times(seen.failures),
            Facts::Relays(seen.nodes),
        ),
        (
            Rule::UnansweredChallenges,
            Amount::Times(seen.unanswered),
            challenges,
        ),
        (
            Rule::QuotaEvasion,
            Amount::Different([seen.limited_users, Spread::default()]),
            Facts::Refused(seen.limited),
        ),
    ]
    .into_iter()
}

fn of_user(seen: &UserSignals) -> impl Iterator<Item = (Rule, Amount, [u64; 2], Facts)> + use<> {
    let answered = |peers: u64| match seen.bytes_back >= BYTES_OF_AN_ANSWER.saturating_mul(peers) {
        true => BENEFIT_OF_DOUBT,
        false => 1,
    };
    let back = Facts::BytesBack(seen.bytes_back);
    let of_a_call = seen.denied <= DENIED_OF_A_CALL.saturating_mul(seen.new_peers);
    let denied_doubt = if of_a_call { BENEFIT_OF_DOUBT } else { 1 };
    let (peers, ports) = (seen.peers.estimate(), seen.endpoints.estimate());
    let plain_ports = match ports >= PORTS_OF_NO_CALL.saturating_mul(peers) {
        true => 1,
        false => PLAIN_PORTS,
    };
    [
        (
            Rule::PeerFanOut,
            Amount::Times(seen.new_peers),
            [answered(seen.new_peers), PLAIN],
            back,
        ),
        (
            Rule::PortScan,
            Amount::Different([seen.endpoints, seen.peers]),
            [answered(ports.into()), plain_ports],
            back,
        ),
        (
            Rule::SharedCredential,
            Amount::Different([seen.addresses, seen.networks]),
            [1, 1],
            Facts::Nothing,
        ),
        (
            Rule::ReconnectLoop,
            Amount::Times(seen.opened),
            [1, 1],
            Facts::Relays(seen.nodes),
        ),
        (
            Rule::DeniedPeers,
            Amount::Times(seen.denied),
            [denied_doubt, PLAIN],
            Facts::OtherPeers(seen.new_peers),
        ),
    ]
    .into_iter()
}

impl Reading {
    /// What it comes to, with `amount` within `window`.
    pub(super) fn measured(&self, amount: &Amount, window: Duration) -> Measured {
        let (things, beside) = match amount {
            Amount::Times(times) => (*times, 0),
            Amount::Different([things, beside]) => (things.estimate().into(), beside.estimate()),
        };
        let count = match self.rule {
            // Both are told to within a tenth or so where there are many.
            Rule::PortScan => things.saturating_sub((beside + beside / 4).into()),
            Rule::AuthenticationFailures
            | Rule::FailuresOfUser
            | Rule::UnansweredChallenges
            | Rule::PeerFanOut
            | Rule::SharedCredential
            | Rule::QuotaEvasion
            | Rule::ReconnectLoop
            | Rule::DeniedPeers => things,
        };
        let is_of_few = self.rule == Rule::SharedCredential && beside < NETWORKS_OF_MANY;
        let words = self.words(things, beside);
        Measured {
            count,
            holds_back: is_of_few.then_some("one who moves has addresses of few networks, too"),
            evidence: format!("{words} within {} s{}", window.as_secs(), self.facts),
        }
    }

    fn words(&self, things: u64, beside: u32) -> String {
        match self.rule {
            Rule::AuthenticationFailures => format!("{things} requests with bad credentials"),
            Rule::FailuresOfUser => {
                format!("{things} requests with bad credentials named this user")
            }
            Rule::UnansweredChallenges => format!("{things} challenges unanswered"),
            Rule::PeerFanOut => format!("{things} peers asked for"),
            Rule::PortScan => format!("about {things} ports of about {beside} peers"),
            Rule::SharedCredential => {
                format!("about {things} addresses in about {beside} networks")
            }
            Rule::QuotaEvasion => format!("about {things} users of this network at their limits"),
            Rule::ReconnectLoop => format!("{things} allocations opened"),
            Rule::DeniedPeers => format!("{things} peers refused by the policy"),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |relays| match relays {
            1 => "at one relay".to_owned(),
            relays => format!("at {relays} relays"),
        };
        match self {
            Self::Relays(relays) => write!(f, ", {}", at(*relays)),
            Self::Challenges { all, relays } => write!(f, ", of {all}, {}", at(*relays)),
            Self::BytesBack(bytes) => {
                write!(f, ", whose peers sent {bytes} bytes in the last minute")
            }
            Self::Refused(times) => write!(f, ", refused {times} times in the last minute"),
            Self::OtherPeers(peers) => write!(f, ", beside {peers} that it allows"),
            Self::Nothing => Ok(()),
        }
    }
}
