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
use super::session::Refusal;
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
    let mut mapped = reached.mapped;
    for (family, check) in [
        (AddressFamily::V4, ALLOCATE_V4),
        (AddressFamily::V6, ALLOCATE_V6),
    ] {
        match reached.way.allocate(identity, 0, Way::family(family)) {
            Ok(holding) => {
                let address = holding.allocated.relayed;
                mapped = mapped.or(Some(holding.allocated.mapped));
                report.pass(check, &reached.way.to_string(), format!("{address}"));
                relayed.push(address);
                judge_address(&reached.way, address.ip(), report);
                peers(&reached.way, holding, family, report);
            }
            Err(refusal) => judge_refusal(&reached.way, family, check, &refusal, report),
        }
    }
    // Where nothing is granted and no Binding answered, nobody has said it.
    let mapped = mapped.filter(|_| !relayed.is_empty())?;
    Some(Granted {
        way: reached.way.clone(),
        mapped,
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
    let mut ask = |peers: &[&'static str]| granted_of(peers, own, |peer| session.permit(peer));
    let forbidden = ask(FORBIDDEN[place]);
    let private = ask(PRIVATE[place]);
    let subject = way.to_string();
    if !forbidden.granted.is_empty() {
        let text = format!("it lets clients send to {}", forbidden.granted.join(", "));
        report.fail(PEERS_PRIVATE, &subject, text);
    } else if let Some((peer, refusal)) = forbidden.unknown.or(private.unknown) {
        let text = format!("a permission for {peer}: {refusal}, which says nothing of the peer");
        report.skip(PEERS_PRIVATE, &subject, text);
    } else if !private.granted.is_empty() {
        let text = format!(
            "it lets clients send to {}: is that wanted?",
            private.granted.join(", ")
        );
        report.warn(PEERS_PRIVATE, &subject, text);
    } else {
        let text = format!("{} and the like are refused", FORBIDDEN[place].join(", "));
        report.pass(PEERS_PRIVATE, &subject, text);
    }
}

/// What was said of some peers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Permissions {
    /// Those that have got permissions.
    granted: Vec<&'static str>,
    /// The first that was neither permitted nor refused for what it is, and what came instead.
    unknown: Option<(&'static str, Refusal)>,
}

/// Asks for permissions for `peers`. Relayed addresses of the fleet itself are open on their own ports.
fn granted_of(
    peers: &[&'static str],
    own: IpAddr,
    mut permit: impl FnMut(IpAddr) -> Result<(), Refusal>,
) -> Permissions {
    let mut said = Permissions::default();
    for text in peers.iter().copied() {
        let Ok(peer) = text.parse::<IpAddr>() else {
            continue;
        };
        if peer == own {
            continue;
        }
        match permit(peer) {
            Ok(()) => said.granted.push(text),
            // Any other code is about the allocation or the server, and the peer may be open another time.
            Err(Refusal::Code(ErrorCode::FORBIDDEN | ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)) => {}
            Err(refusal) => {
                said.unknown = Some((text, refusal));
                break;
            }
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_about_the_peer_are_refusals_of_it() {
        let own = IpAddr::from([192, 0, 2, 1]);
        let peers = &["127.0.0.1", "192.0.2.1", "10.0.0.1"];
        let mut asked = Vec::new();
        let said = granted_of(peers, own, |peer| {
            asked.push(peer);
            Err(Refusal::Code(ErrorCode::FORBIDDEN))
        });
        assert_eq!((said, asked.len()), (Permissions::default(), 2));
        for code in [
            ErrorCode::ALLOCATION_MISMATCH,
            ErrorCode::INSUFFICIENT_CAPACITY,
        ] {
            let said = granted_of(peers, own, |peer| {
                if peer.is_loopback() {
                    Ok(())
                } else {
                    Err(Refusal::Code(code))
                }
            });
            assert_eq!(said.granted, ["127.0.0.1"]);
            assert_eq!(said.unknown, Some(("10.0.0.1", Refusal::Code(code))));
        }
    }
}
