//! Scenarios told as text: what clients and peers do, and what becomes of it.
//!
//! Each line of `tests/scenarios/*.txt` is one step; what stands behind ` -> ` is the recorded result. A run compares, and
//! with `UPDATE_EXPECT=1` it records instead: the change is then reviewed as a diff. Ports are drawn from a fixed seed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use turnfleet_turn::policy::{Limits, RelayedHost};
use turnfleet_turn::wire::{
    AttributeType, ChannelData, ChannelNumber, ErrorCode, Message, MessageWriter, Method,
    ReservationToken,
};
use turnfleet_turn::{AddressFamily, Event, OpenError, PeerAddr, Transport};

use crate::support::{Answer, Caller, Net, Outcome, Setup, V4, V6, addr, data_indication, host};

/// A relay, and the clients by their names.
#[derive(Default)]
struct Stage {
    net: Option<Net>,
    cast: BTreeMap<String, Actor>,
    events_told: usize,
}

struct Actor {
    caller: Caller,
    last_request: Vec<u8>,
    relayed: Vec<SocketAddr>,
    token: Option<ReservationToken>,
}

#[test]
fn every_scenario_goes_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the scenarios are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 25, "{} scenarios", paths.len());
    let mut differences = String::new();
    for path in paths {
        let recorded = std::fs::read_to_string(&path).expect("a scenario is text");
        let played = play(&path, &recorded);
        if update {
            std::fs::write(&path, played).expect("the scenario can be written");
            continue;
        }
        for (number, (old, new)) in (1..).zip(recorded.lines().zip(played.lines())) {
            if old != new {
                let name = path.display();
                writeln!(
                    differences,
                    "{name}:{number}\n  recorded {old}\n  played   {new}"
                )
                .unwrap();
            }
        }
    }
    assert!(
        differences.is_empty(),
        "UPDATE_EXPECT=1 records these:\n{differences}"
    );
}

/// Plays a scenario and returns it with its results.
fn play(path: &Path, text: &str) -> String {
    let mut stage = Stage::default();
    let mut played = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let step = line.split(" -> ").next().unwrap_or_default().trim_end();
        played.push_str(step);
        if !step.is_empty() && !step.starts_with('#') {
            let result = stage
                .step(step)
                .unwrap_or_else(|| panic!("{}:{number}: cannot play {step:?}", path.display()));
            if !result.is_empty() {
                write!(played, " -> {result}").unwrap();
            }
        }
        played.push('\n');
    }
    played
}

impl Stage {
    /// `None` where the step is not understood.
    fn step(&mut self, step: &str) -> Option<String> {
        let words: Vec<&str> = step.split(' ').collect();
        if words[0] == "relay" {
            self.net = Some(relay(&words[1..])?);
            return Some(String::new());
        }
        let net = self.net.get_or_insert_with(Net::new);
        match words[..] {
            ["client", name, address, transport, ref rest @ ..] => {
                let username = rest.first().copied().unwrap_or("alice");
                let transport = Transport::ALL
                    .into_iter()
                    .find(|it| it.name() == transport)?;
                let caller = Caller::of(net, address, transport, username);
                let actor = Actor {
                    caller,
                    last_request: Vec::new(),
                    relayed: Vec::new(),
                    token: None,
                };
                self.cast.insert(name.into(), actor);
                Some(String::new())
            }
            ["user", name, ref passwords @ ..] => {
                net.keys.set(name, passwords);
                Some(String::new())
            }
            ["advance", duration] => {
                net.advance_seconds(duration.strip_suffix('s')?.parse().ok()?);
                Some(String::new())
            }
            ["drain", on] => {
                net.server.set_draining(on == "on");
                Some(String::new())
            }
            ["sockets", "say", error] => {
                net.open_errors.push_back(match error {
                    "taken" => OpenError::PortTaken,
                    "exhausted" => OpenError::Exhausted,
                    _ => return None,
                });
                Some(String::new())
            }
            ["held"] => Some(held(net)),
            ["events"] => {
                let told = std::mem::replace(&mut self.events_told, net.events.len());
                let lines: Vec<String> = net.events[told..].iter().map(event).collect();
                Some(lines.join("; "))
            }
            _ => self.play(&words),
        }
    }

    /// What clients and peers do.
    fn play(&mut self, words: &[&str]) -> Option<String> {
        let net = self.net.as_mut()?;
        match *words {
            [name, "becomes", username, password] => {
                let caller = &mut self.cast.get_mut(name)?.caller;
                caller.username = username.into();
                caller.password = password.into();
                Some(String::new())
            }
            [name, "leaves"] => {
                let client = self.cast.get(name)?.caller.five_tuple;
                net.server.handle_client_closed(net.now, client);
                net.obey();
                Some(String::new())
            }
            ["peer", peer, "sends", text, "to", name] => {
                let is_ipv4 = addr(peer).is_ipv4();
                let mut relayed = self.cast.get(name)?.relayed.iter();
                let relayed = relayed.find(|relayed| relayed.is_ipv4() == is_ipv4)?;
                let same = |bound: &&SocketAddr| {
                    bound.port() == relayed.port() && bound.is_ipv4() == is_ipv4
                };
                let to = net.sockets.keys().find(same).unwrap_or(relayed);
                let to = *to;
                let outcome = net.peer_sends(peer, to, unquoted(text)?);
                Some(self.tell(outcome))
            }
            [name, verb, ref rest @ ..] => {
                let token_of = |name: &str| self.cast.get(name).and_then(|actor| actor.token);
                let tokens: BTreeMap<String, ReservationToken> = self
                    .cast
                    .keys()
                    .filter_map(|name| Some((name.clone(), token_of(name)?)))
                    .collect();
                let actor = self.cast.get_mut(name)?;
                let outcome = actor.act(net, verb, rest, &tokens)?;
                Some(self.tell(outcome))
            }
            _ => None,
        }
    }

    fn tell(&self, outcome: Outcome) -> String {
        match outcome {
            Outcome::Reply(bytes) => answer(&Answer(bytes)),
            Outcome::Pending => "pending".into(),
            Outcome::Spliced(..) | Outcome::ToShard(_) => panic!("TCP is not relayed here"),
            Outcome::Dropped(reason) => format!("drop {}", reason.name()),
            Outcome::Relayed(from, to, payload) => {
                format!(
                    "relay {from} to {to} \"{}\"",
                    String::from_utf8_lossy(&payload)
                )
            }
            Outcome::Delivered(to, packet) => {
                let mut cast = self.cast.iter();
                let name = cast.find(|(_, actor)| actor.caller.five_tuple == to);
                format!("{} {}", name.map_or("?", |(name, _)| name), framed(&packet))
            }
        }
    }
}

impl Actor {
    fn act(
        &mut self,
        net: &mut Net,
        verb: &str,
        rest: &[&str],
        tokens: &BTreeMap<String, ReservationToken>,
    ) -> Option<Outcome> {
        let caller = &mut self.caller;
        let packet = match (verb, rest) {
            ("binding", []) => caller.unsigned(Method::Binding, |_| {}),
            ("allocate", options) => caller.signed(Method::Allocate, |writer| {
                writer.requested_transport(17);
                for option in options {
                    write_option(writer, option, tokens);
                }
            }),
            ("refresh", options) => caller.signed(Method::Refresh, |writer| {
                for option in options {
                    write_option(writer, option, tokens);
                }
            }),
            ("permit", peers) => caller.signed(Method::CreatePermission, |writer| {
                for peer in peers {
                    let ip = peer.parse().expect("permissions are for IP addresses");
                    writer.xor_peer_address(PeerAddr(SocketAddr::new(ip, 0)));
                }
            }),
            ("bind", [number, "to", peer]) => {
                let number = ChannelNumber(hex(number)?);
                let peer = PeerAddr(addr(peer));
                caller.signed(Method::ChannelBind, |writer| {
                    writer.channel_number(number).xor_peer_address(peer);
                })
            }
            ("sends", [text, "to", peer]) => {
                let (text, peer) = (unquoted(text)?, PeerAddr(addr(peer)));
                caller.indication(Method::Send, |writer| {
                    writer.xor_peer_address(peer).data(text);
                })
            }
            ("sends", [text, "on", number]) => {
                let mut packet = Vec::new();
                let stream = caller.five_tuple.transport.is_stream();
                ChannelData::write(
                    ChannelNumber(hex(number)?),
                    unquoted(text)?,
                    stream,
                    &mut packet,
                );
                packet
            }
            ("repeats", []) => self.last_request.clone(),
            _ => return None,
        };
        let outcome = net.client_sends(caller.five_tuple, &packet);
        self.last_request = packet;
        if let Outcome::Reply(bytes) = &outcome {
            self.learn(bytes);
        }
        Some(outcome)
    }

    /// Remembers nonce, relayed addresses and token as a client would.
    fn learn(&mut self, bytes: &[u8]) {
        let message = Message::parse(bytes).unwrap();
        if let Some(Ok(nonce)) = message.nonce() {
            self.caller.nonce = nonce.to_vec();
        }
        if message.has(AttributeType::XOR_RELAYED_ADDRESS) {
            self.relayed = message
                .xor_relayed_addresses()
                .map(Result::unwrap)
                .collect();
            self.token = message.reservation_token().map(Result::unwrap);
        }
    }
}

fn relay(words: &[&str]) -> Option<Net> {
    let mut hosts: Vec<RelayedHost> = Vec::new();
    let mut setup = Setup::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("v4", "") => hosts.push(host(V4, V4)),
            ("v6", "") => hosts.push(host(V6, V6)),
            ("nat", local) => hosts.push(host(local, V4)),
            ("rfc5766", "") => setup.rfc5766_channel_numbers = true,
            ("ports", range) => {
                let (first, last) = range.split_once('-')?;
                setup.ports = (first.parse().ok()?, last.parse().ok()?);
            }
            (limit, value) => set_limit(&mut setup.limits, limit, value)?,
        }
    }
    if !hosts.is_empty() {
        setup.hosts = hosts;
    }
    Some(Net::with(setup))
}

fn set_limit(limits: &mut Limits, limit: &str, value: &str) -> Option<()> {
    let value: u16 = value.parse().ok()?;
    match limit {
        "user" => limits.allocations_per_user = value.into(),
        "total" => limits.allocations = value.into(),
        "permissions" => limits.permissions_per_allocation = value,
        "channels" => limits.channels_per_allocation = value,
        "lifetime" => limits.max_lifetime = std::time::Duration::from_secs(value.into()),
        _ => return None,
    }
    Some(())
}

fn write_option(
    writer: &mut MessageWriter<'_>,
    option: &str,
    tokens: &BTreeMap<String, ReservationToken>,
) {
    let family = |text| match text {
        "v4" => AddressFamily::V4,
        "v6" => AddressFamily::V6,
        _ => panic!("{text:?} is no family"),
    };
    match option.split_once('=').unwrap_or((option, "")) {
        ("lifetime", seconds) => writer.lifetime(seconds.parse().expect("a number of seconds")),
        ("family", name) => writer.requested_address_family(family(name)),
        ("additional", name) => writer.additional_address_family(family(name)),
        ("even", "") => writer.even_port(false),
        ("pair", "") => writer.even_port(true),
        ("token", name) => writer.reservation_token(tokens[name]),
        _ => panic!("{option:?} is no option"),
    };
}

fn answer(answer: &Answer) -> String {
    let message = answer.message();
    let mut text = answer.code().to_string();
    for relayed in answer.relayed() {
        write!(text, " relayed={relayed}").unwrap();
    }
    if let Some(Ok(lifetime)) = message.lifetime() {
        write!(text, " lifetime={lifetime}s").unwrap();
    }
    if let Some(Ok(mapped)) = message.xor_mapped_address() {
        write!(text, " mapped={mapped}").unwrap();
    }
    if message.reservation_token().is_some() {
        text.push_str(" token");
    }
    if let Some(Ok((family, code))) = message.address_error_code() {
        write!(text, " without={family:?}:{}", ErrorCode::code(code)).unwrap();
    }
    if message.nonce().is_some() {
        text.push_str(" nonce");
    }
    text
}

fn framed(packet: &[u8]) -> String {
    if let Ok(data) = ChannelData::parse(packet) {
        let payload = String::from_utf8_lossy(&packet[data.payload.range()]);
        return format!("gets \"{payload}\" on {:#06x}", data.number.0);
    }
    let (peer, payload) = data_indication(packet);
    format!("gets \"{}\" from {peer}", String::from_utf8_lossy(&payload))
}

fn held(net: &Net) -> String {
    let (usage, counters) = (net.usage(), net.server.counters());
    format!(
        "allocations={} ports={} sockets={} permissions={} channels={} reservations={}",
        usage.allocations,
        usage.ports_used,
        net.sockets.len(),
        counters.permissions,
        counters.channels,
        counters.reservations
    )
}

fn event(event: &Event) -> String {
    match event {
        Event::Opened {
            allocation,
            username,
            relayed,
            ..
        } => {
            format!("opened {allocation} of {username} at {relayed:?}")
        }
        Event::Closed {
            allocation,
            reason,
            duration,
            bytes_to_peers,
            bytes_to_client,
            ..
        } => format!(
            "closed {allocation} {} after {}s with {bytes_to_peers} bytes out and {bytes_to_client} in",
            reason.name(),
            duration.as_secs()
        ),
        Event::Refused { username, code, .. } => {
            format!(
                "refused {} with {code}",
                username.as_deref().unwrap_or("nobody")
            )
        }
        Event::Evicting {
            allocation,
            deadline,
            ..
        } => format!("evicting {allocation} at {deadline}"),
        Event::PeerConnected {
            peer, opened_by, ..
        } => format!("connected {peer} by {}", opened_by.name()),
        Event::PeerDenied { peer, rule, .. } => format!("denied {peer}: {}", rule.name()),
    }
}

fn hex(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn unquoted(text: &str) -> Option<&[u8]> {
    Some(text.strip_prefix('"')?.strip_suffix('"')?.as_bytes())
}
