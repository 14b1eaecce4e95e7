//! What a relay grants: relayed addresses of both families, and permissions that it ought to refuse.

use std::net::{IpAddr, SocketAddr};

use turnfleet_turn::AddressFamily;
use turnfleet_turn::wire::ErrorCode;

use super::catalogue::{
    ALLOCATE_V4, ALLOCATE_V6, CREDENTIALS_ACCEPTED, Check, PEERS_PRIVATE, RELAY_ADDRESS,
};
use super::identity::Identity;
use super::reach::{Reached, special};
use super::report::Report;
use super::session::{Refusal, Session};
use super::way::{Holding, Way};

/// Addresses of a family that a relay has to refuse as peers, ...
const FORBIDDEN: [&[&str]; 2] = [&["127.0.0.1", "169.254.169.254"], &["::1", "fe80::1"]];
/// ... and those that only an operator who wants it lets through.
const PRIVATE: [&[&str]; 2] = [&["10.0.0.1", "172.16.0.1", "192.168.0.1"], &["fd00::1"]];

/// A way on which allocations are granted.
#[derive(Clone)]
pub(super) struct Granted {
    /// The way.
    pub(super) way: Way,
    /// This machine's address as the server sees it.
    pub(super) mapped: SocketAddr,
    /// Relayed addresses that were granted, by which the families are known.
    pub(super) relayed: Vec<SocketAddr>,
}

impl Granted {
    /// Whether there are relayed addresses of this family.
    pub(super) fn has(&self, family: AddressFamily) -> bool {
        let mut families = self.relayed.iter().map(|it| AddressFamily::of(it.ip()));
        families.any(|it| it == family)
    }
}

/// Asks for an allocation of each family. `None` where none is granted.
pub(super) fn allocate(reached: &Reached, identity: &Identity, report: &Report) -> Option<Granted> {
    let mut relayed = Vec::new();
    for (family, check) in [
        (AddressFamily::V4, ALLOCATE_V4),
        (AddressFamily::V6, ALLOCATE_V6),
    ] {
        match reached.way.allocate(identity, 0, Way::family(family)) {
            Ok(holding) => {
                let address = holding.allocated.relayed;
                report.pass(check, &reached.way.to_string(), format!("{address}"));
                relayed.push(address);
                judge_address(&reached.way, address.ip(), report);
                peers(&reached.way, holding, family, report);
            }
            Err(refusal) => judge_refusal(&reached.way, family, check, &refusal, report),
        }
    }
    (!relayed.is_empty()).then(|| Granted {
        way: reached.way.clone(),
        mapped: reached.mapped,
        relayed,
    })
}

fn judge_refusal(
    way: &Way,
    family: AddressFamily,
    check: &'static Check,
    refusal: &Refusal,
    report: &Report,
) {
    let subject = way.to_string();
    let Refusal::Code(code) = refusal else {
        return report.fail(check, &subject, refusal.to_string());
    };
    match (*code, family) {
        (ErrorCode::UNAUTHENTICATED, _) => report.fail(
            CREDENTIALS_ACCEPTED,
            &subject,
            "it refuses credentials (401) that another relay takes",
        ),
        (ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED, AddressFamily::V6) => {
            report.warn(check, &subject, "it has no IPv6 relayed addresses (440)");
        }
        (ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED, AddressFamily::V4) => {
            report.fail_with(
                check,
                &subject,
                "it has no IPv4 relayed addresses (440)",
                "give the relay an IPv4 address to listen on: most peers have no other",
            );
        }
        (ErrorCode::ALLOCATION_QUOTA_REACHED, _) => report.fail_with(
            check,
            &subject,
            "the user has as many allocations as the quota lets it (486)",
            "raise the quota of allocations for each user, or wait until those that are there have ended",
        ),
        (ErrorCode::INSUFFICIENT_CAPACITY, _) => report.fail_with(
            check,
            &subject,
            "the relay has no free port, or drains (508)",
            "widen the relay port range, add relays, or end the drain (turnfleet fleet undrain)",
        ),
        (_, _) => report.fail(check, &subject, refusal.to_string()),
    }
}

/// A relayed address that nobody could send to, granted by a server that everybody can reach.
fn judge_address(way: &Way, relayed: IpAddr, report: &Report) {
    let server = way.candidate.address.ip();
    if let (Some(kind), None) = (special(relayed), special(server)) {
        report.fail(
            RELAY_ADDRESS,
            &way.to_string(),
            format!(
                "relayed addresses are at {relayed}, which is {kind}, and clients come to {server}"
            ),
        );
    }
}

/// Asks for permissions that ought to be refused.
fn peers(way: &Way, holding: Holding, family: AddressFamily, report: &Report) {
    let place = match family {
        AddressFamily::V4 => 0,
        AddressFamily::V6 => 1,
    };
    let mut session = holding.session;
    let own = holding.allocated.relayed.ip();
    let forbidden = granted_of(&mut session, FORBIDDEN[place], own);
    let private = granted_of(&mut session, PRIVATE[place], own);
    let subject = way.to_string();
    match (forbidden, private) {
        (Err(refusal), _) | (_, Err(refusal)) => {
            report.skip(PEERS_PRIVATE, &subject, refusal.to_string());
        }
        (Ok(forbidden), _) if !forbidden.is_empty() => report.fail(
            PEERS_PRIVATE,
            &subject,
            format!("it lets clients send to {}", forbidden.join(", ")),
        ),
        (_, Ok(private)) if !private.is_empty() => report.warn(
            PEERS_PRIVATE,
            &subject,
            format!(
                "it lets clients send to {}: is that wanted?",
                private.join(", ")
            ),
        ),
        (Ok(_), Ok(_)) => report.pass(
            PEERS_PRIVATE,
            &subject,
            format!("{} and the like are refused", FORBIDDEN[place].join(", ")),
        ),
    }
}

/// Which of `peers` have got permissions. Relayed addresses of the fleet itself are open on their own ports.
fn granted_of(
    session: &mut Session,
    peers: &[&'static str],
    own: IpAddr,
) -> Result<Vec<&'static str>, Refusal> {
    let mut granted = Vec::new();
    for text in peers.iter().copied() {
        let Ok(peer) = text.parse::<IpAddr>() else {
            continue;
        };
        if peer == own {
            continue;
        }
        match session.permit(peer) {
            Ok(()) => granted.push(text),
            Err(Refusal::Code(_)) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(granted)
}
