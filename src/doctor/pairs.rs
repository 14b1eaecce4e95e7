//! Two allocations that talk to each other through their relayed addresses, as two people in a call do, in each pair of
//! transports.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use turnfleet_turn::{AddressFamily, Transport};

use super::allocation::Granted;
use super::catalogue::{RELAY_ADDRESS, RELAY_PAIRS, RELAY_PORTS};
use super::identity::Identity;
use super::report::Report;
use super::session::{Refusal, Session};
use super::way::{Holding, Way};

/// How often a word is sent, since UDP may lose it, ...
const TRIES: usize = 4;
/// ... and how long each may take.
const PATIENCE: Duration = Duration::from_millis(400);

/// The family that calls are tried with, and a way of each transport on which it is granted.
pub(super) fn chosen(granted: &[Granted]) -> (AddressFamily, Vec<&Granted>) {
    let has = |family: AddressFamily| granted.iter().any(|it| it.has(family));
    let family = if has(AddressFamily::V4) {
        AddressFamily::V4
    } else {
        AddressFamily::V6
    };
    let of = |transport: Transport| {
        let mut ways = granted.iter();
        ways.find(|it| it.way.transport() == transport && it.has(family))
    };
    (family, Transport::ALL.into_iter().filter_map(of).collect())
}

/// Has each pair of transports exchange a word both ways.
pub(super) fn pairs(granted: &[Granted], identity: &Identity, report: &Report) {
    let (family, ways) = chosen(granted);
    let hold = |user: usize| -> Vec<(Transport, Result<Holding, Refusal>)> {
        let each = ways.iter();
        each.map(|it| {
            let options = Way::family(family);
            let held = it.way.allocate(identity, user, options);
            (it.way.transport(), held)
        })
        .collect()
    };
    let (mut callers, mut callees) = (hold(1), hold(2));
    for (place, (one, caller)) in callers.iter_mut().enumerate() {
        for (other, callee) in &mut callees[place..] {
            let subject = format!("{one} and {other}");
            let talked = match (&mut *caller, callee) {
                (Ok(caller), Ok(callee)) => exchange(caller, callee),
                (Err(refusal), _) | (_, Err(refusal)) => Err(refusal.to_string()),
            };
            match talked {
                Ok(()) => report.pass(RELAY_PAIRS, &subject, "they talk both ways"),
                // One cause has one finding.
                Err(why) if report.has_failed(&[RELAY_ADDRESS, RELAY_PORTS]) => {
                    let text = format!("{why}, as relay.address or relay.ports explains");
                    report.skip(RELAY_PAIRS, &subject, text);
                }
                Err(why) => report.fail(RELAY_PAIRS, &subject, why),
            }
        }
    }
}

fn exchange(caller: &mut Holding, callee: &mut Holding) -> Result<(), String> {
    let (one, other) = (caller.allocated.relayed, callee.allocated.relayed);
    introduce(caller, callee)?;
    if !delivers(&mut caller.session, other, &mut callee.session) {
        return Err(format!("what {one} sends to {other} does not arrive"));
    }
    if !delivers(&mut callee.session, one, &mut caller.session) {
        return Err(format!("what {other} sends to {one} does not arrive"));
    }
    Ok(())
}

/// Permits each to the other.
pub(super) fn introduce(caller: &mut Holding, callee: &mut Holding) -> Result<(), String> {
    let (one, other) = (caller.allocated.relayed, callee.allocated.relayed);
    for (session, peer) in [(&mut caller.session, other), (&mut callee.session, one)] {
        let permitted = session.permit(peer.ip());
        permitted.map_err(|why| format!("a permission for the relayed address {peer}: {why}"))?;
    }
    Ok(())
}

/// Whether a word gets from one to the other, whose relayed address is `place`.
fn delivers(from: &mut Session, place: SocketAddr, to: &mut Session) -> bool {
    let word = format!("turnfleet doctor to {place}");
    for _ in 0..TRIES {
        if from.send(place, word.as_bytes()).is_err() {
            return false;
        }
        let until = Instant::now() + PATIENCE;
        while let Some((_, heard)) = to.hear(until) {
            if heard == word.as_bytes() {
                return true;
            }
        }
    }
    false
}
