//! What the path through a relay carries: how large datagrams may be, how long they take, and how many are lost. Both ends
//! are here, so that one clock tells the time.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use turnfleet_relay::datagram::set_dont_fragment;
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::{AddressFamily, Transport};

use super::allocation::Granted;
use super::catalogue::{PATH_LOSS, PATH_MTU};
use super::identity::Identity;
use super::pairs::{chosen, introduce};
use super::reach::millis;
use super::report::Report;
use super::session::Session;
use super::way::{Holding, Way};

/// Sizes of IP packets between client and relay that are tried, the least first.
const SIZES: [usize; 5] = [576, 1200, 1280, 1400, 1500];
/// Less than this breaks what is sent in packets of a usual size: DTLS handshakes, and video.
const LEAST: usize = 1200;
/// Every IPv6 link carries this.
const USUAL: usize = 1280;
/// Headers: UDP, STUN, the attribute of the data, and DONT-FRAGMENT.
const HEADERS: usize = 8 + 20 + 4 + 4;
/// How often each size is sent, and how long it may take.
const TRIES: usize = 4;
const PATIENCE: Duration = Duration::from_millis(400);

/// Packets by which loss is measured, and the time between two of them.
const PACKETS: u32 = 50;
const PACE: Duration = Duration::from_millis(20);
/// How long the last may take.
const TAIL: Duration = Duration::from_millis(1500);
/// Of a packet of sound, with its number in front.
const PAYLOAD: usize = 160;

/// Looks at the paths by UDP where there is one, and by the first transport otherwise.
pub(super) fn look(granted: &[Granted], identity: &Identity, report: &Report) {
    let (family, ways) = chosen(granted);
    let Some(granted) = ways.first() else {
        return;
    };
    let subject = granted.way.to_string();
    match hold(&granted.way, identity, family) {
        Ok((mut caller, mut callee, has_df)) => {
            loss(&mut caller, &mut callee, &subject, report);
            if granted.way.transport() == Transport::Udp {
                mtu(&mut caller, &mut callee, has_df, &subject, report);
            }
        }
        Err(why) => report.skip(PATH_LOSS, &subject, why),
    }
}

/// Two ends that may send to each other, and whether the relay sends data in one piece where it is asked to.
fn hold(
    way: &Way,
    identity: &Identity,
    family: AddressFamily,
) -> Result<(Holding, Holding, bool), String> {
    let options = AllocateOptions {
        dont_fragment: true,
        ..Way::family(family)
    };
    let whole = way.allocate(identity, 1, options);
    let has_df = whole.is_ok();
    let caller = whole.or_else(|_| way.allocate(identity, 1, Way::family(family)));
    let mut caller = caller.map_err(|refusal| refusal.to_string())?;
    let callee = way.allocate(identity, 2, Way::family(family));
    let mut callee = callee.map_err(|refusal| refusal.to_string())?;
    introduce(&mut caller, &mut callee)?;
    Ok((caller, callee, has_df))
}

fn mtu(caller: &mut Holding, callee: &mut Holding, has_df: bool, subject: &str, report: &Report) {
    for holding in [&*caller, &*callee] {
        if let Some(socket) = holding.session.link().datagrams() {
            let is_v6 = socket.local_addr().is_ok_and(|local| local.is_ipv6());
            if let Err(error) = set_dont_fragment(socket.as_fd(), is_v6, true) {
                let text = format!("this system fragments datagrams: {error}");
                return report.skip(PATH_MTU, subject, text);
            }
        }
    }
    let place = callee.allocated.relayed;
    let ip = if caller.allocated.mapped.is_ipv6() {
        40
    } else {
        20
    };
    let peer = if place.is_ipv6() { 24 } else { 12 };
    let mut largest = None;
    for size in SIZES {
        let data = vec![0xd0; (size - ip - HEADERS - peer) & !3];
        if !carries(
            &mut caller.session,
            place,
            &mut callee.session,
            &data,
            has_df,
        ) {
            break;
        }
        largest = Some(size);
    }
    match largest {
        None => report.skip(PATH_MTU, subject, "nothing arrives, whatever its size"),
        Some(size) if size < LEAST => report.fail(
            PATH_MTU,
            subject,
            format!("packets of {size} bytes arrive in one piece, and those of {LEAST} do not"),
        ),
        Some(size) if size < USUAL => report.warn(
            PATH_MTU,
            subject,
            format!("packets of {size} bytes arrive in one piece, and those of {USUAL} do not"),
        ),
        Some(size) => report.pass(
            PATH_MTU,
            subject,
            format!("packets of {size} bytes arrive in one piece"),
        ),
    }
}

fn carries(
    from: &mut Session,
    place: SocketAddr,
    to: &mut Session,
    data: &[u8],
    has_df: bool,
) -> bool {
    for _ in 0..TRIES {
        let sent = if has_df {
            from.send_whole(place, data)
        } else {
            from.send(place, data)
        };
        if sent.is_err() {
            return false;
        }
        let until = Instant::now() + PATIENCE;
        while let Some((_, heard)) = to.hear(until) {
            if heard.len() == data.len() {
                return true;
            }
        }
    }
    false
}

fn loss(caller: &mut Holding, callee: &mut Holding, subject: &str, report: &Report) {
    let place = callee.allocated.relayed;
    let mut sent = Vec::new();
    let mut times = vec![None; usize::try_from(PACKETS).unwrap_or_default()];
    let began = Instant::now();
    for number in 0..PACKETS {
        let mut data = number.to_be_bytes().to_vec();
        data.resize(PAYLOAD, 0);
        sent.push(Instant::now());
        if caller.session.send(place, &data).is_err() {
            break;
        }
        let until = began + PACE * (number + 1);
        hear(&mut callee.session, until, &sent, &mut times);
    }
    let until = Instant::now() + TAIL;
    while times.contains(&None) && Instant::now() < until {
        hear(&mut callee.session, until, &sent, &mut times);
    }
    let mut arrived: Vec<Duration> = times.iter().flatten().copied().collect();
    arrived.sort_unstable();
    let (Some(median), Some(longest)) = (arrived.get(arrived.len() / 2), arrived.last()) else {
        let text = "no packet arrives, as relay.pairs explains";
        return report.skip(PATH_LOSS, subject, text);
    };
    let lost = times.len() - arrived.len();
    let percent = lost * 100 / times.len();
    let text = format!(
        "{lost} of {PACKETS} packets are lost; through the relay and back half take less than {}, the slowest {}",
        millis(*median),
        millis(*longest)
    );
    match percent {
        0..2 => report.pass(PATH_LOSS, subject, text),
        2..20 => report.warn(PATH_LOSS, subject, text),
        _ => report.fail(PATH_LOSS, subject, text),
    }
}

/// Takes the next packet that comes before `until`, and the time that it took; waits for all of that time where a packet
/// comes before it.
fn hear(session: &mut Session, until: Instant, sent: &[Instant], times: &mut [Option<Duration>]) {
    while let Some((_, heard)) = session.hear(until) {
        let number = heard.first_chunk::<4>().map(|it| u32::from_be_bytes(*it));
        let place = number.and_then(|number| usize::try_from(number).ok());
        let Some(place) = place else {
            continue;
        };
        if let (Some(at), Some(time)) = (sent.get(place), times.get_mut(place)) {
            time.get_or_insert(at.elapsed());
        }
        if !times.contains(&None) {
            return;
        }
    }
}
