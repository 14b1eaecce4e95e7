//! Addresses, ports and listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::{Table, Value};

use crate::import::draft::{Draft, Given, Key, Part};
use crate::import::report::{Kind, Outcome};

type Judged = Result<Outcome, String>;

const MAX_PORT: i64 = 65_535;
const MAX_SHARDS: i64 = 64;
/// Coturn's ports, which are ours too.
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
const RELAY_PORTS: (i64, i64) = (49_152, MAX_PORT);

pub(in crate::import) fn listening_port(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let port = given.number(1, MAX_PORT)?;
    Ok(draft.set(Part::Up, "port", port, given.setting))
}

pub(in crate::import) fn tls_listening_port(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let port = given.number(1, MAX_PORT)?;
    Ok(draft.set(Part::Up, "tls-port", port, given.setting))
}

pub(in crate::import) fn listening_ip(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let ip = given.address()?;
    Ok(draft.push(Part::Up, "listen-ip", ip, given.setting))
}

pub(in crate::import) fn relay_ip(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let ip = given.address()?;
    let listening = draft.source.settings.iter();
    let mut listening = listening.filter(|setting| setting.name == "listening-ip");
    let option = given.option;
    if listening.any(|setting| Given { setting, option }.address() == Ok(ip)) {
        return Ok(Outcome::new(Kind::Default, "it is a listening-ip too"));
    }
    let words = "relayed addresses are those that the relay listens on: it is none of \
         listening-ip";
    Ok(Outcome::new(Kind::NoEquivalent, words))
}

pub(in crate::import) fn external_ip(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let text = given.text()?.trim();
    let are_addresses = text.split('/').all(|ip| ip.parse::<IpAddr>().is_ok());
    if !are_addresses || text.split('/').count() > 2 {
        return Err("an IP address, or EXTERNAL/LOCAL".to_owned());
    }
    Ok(draft.push(Part::Up, "public-ip", text, given.setting))
}

pub(in crate::import) fn relay_threads(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let threads = given.number(0, i64::MAX)?;
    let shards = threads.clamp(1, MAX_SHARDS);
    let outcome = draft.set(Part::Relay, "shards", shards, given.setting);
    Ok(if threads == shards {
        outcome
    } else {
        outcome.noting(&format!("{shards}, of 1 to {MAX_SHARDS}"))
    })
}

/// Both ends make one key; where one is missing, coturn's own default stands for it.
pub(in crate::import) fn relay_ports(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let own = given.number(1, MAX_PORT)?;
    let other = |name: &str, default: i64| {
        let text = draft.value_of(name).unwrap_or_default();
        let digits = text.split(|c: char| !c.is_ascii_digit()).next();
        digits
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(default)
    };
    let (first, last) = match given.option.name {
        "min-port" => (own, other("max-port", RELAY_PORTS.1)),
        _ => (other("min-port", RELAY_PORTS.0), own),
    };
    if first > last {
        return Err("min-port to be no more than max-port".to_owned());
    }
    let range = format!("{first}-{last}");
    Ok(draft.set(Part::Up, "relay-ports", range, given.setting))
}

pub(in crate::import) fn aux_server(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let place: SocketAddr = given
        .text()?
        .parse()
        .map_err(|_| "IP:PORT or [IP]:PORT".to_owned())?;
    draft.more_listeners.push((place, given.setting.clone()));
    Ok(Outcome::new(Kind::Translated, "relay.listeners"))
}

pub(in crate::import) fn no_udp(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(without(draft, "udp", given))
}

pub(in crate::import) fn no_tcp(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(without(draft, "tcp", given))
}

pub(in crate::import) fn no_tls(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(without(draft, "tls", given))
}

fn without(draft: &mut Draft<'_>, transport: &'static str, given: &Given<'_>) -> Outcome {
    draft.without.push((transport, given.setting.clone()));
    Outcome::new(Kind::Translated, "relay.listeners")
}

pub(in crate::import) fn no_tcp_relay(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(draft.set(
        Part::Controller,
        "tenant.tcp_relaying",
        false,
        given.setting,
    ))
}

pub(in crate::import) fn default_family(_: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(match given.text()? {
        "ipv4" => Outcome::new(Kind::Default, given.option.why),
        _ => Outcome::new(Kind::NoEquivalent, "a client that does not ask gets IPv4"),
    })
}

/// The addresses that coturn listens on without being told, and the listeners where they are not the usual ones.
pub(super) fn finish(draft: &mut Draft<'_>) {
    if !draft.has("listening-ip") {
        every_address(draft);
    }
    if draft.without.is_empty() && draft.more_listeners.is_empty() {
        return;
    }
    let more = std::mem::take(&mut draft.more_listeners);
    let without = std::mem::take(&mut draft.without);
    let mut places = usual_listeners(draft);
    places.extend(
        more.iter()
            .flat_map(|(place, _)| [("udp", *place), ("tcp", *place)]),
    );
    places.retain(|(transport, _)| without.iter().all(|(without, _)| without != transport));
    if places.is_empty() {
        let remark = "every transport is switched off: nobody reaches the relay";
        draft.remarks.push(remark.to_owned());
    }
    let listeners = places.into_iter().map(|(transport, place)| {
        let mut table = Table::new();
        table.insert("transport".to_owned(), Value::String(transport.to_owned()));
        table.insert("address".to_owned(), Value::String(place.to_string()));
        Value::Table(table)
    });
    let value = Value::Array(listeners.collect());
    let mut from: Vec<_> = without.into_iter().map(|(_, setting)| setting).collect();
    from.extend(more.into_iter().map(|(_, setting)| setting));
    draft.keys.push(Key {
        part: Part::Relay,
        name: "listeners",
        value,
        from,
    });
}

fn every_address(draft: &mut Draft<'_>) {
    let mut every = vec![Value::String(Ipv4Addr::UNSPECIFIED.to_string())];
    let remark = if draft.place.has_ipv6 {
        every.push(Value::String(Ipv6Addr::UNSPECIFIED.to_string()));
        "no listening-ip: the relay listens on all global addresses of the machine, or on \
         the private one of its default route"
    } else {
        "no listening-ip: the relay listens on all global IPv4 addresses of the machine, \
         or on the private one of its default route. This machine has no global IPv6 \
         address; where the relay will have one, add \"::\" to listen-ip"
    };
    draft.remarks.push(remark.to_owned());
    draft.keys.push(Key {
        part: Part::Up,
        name: "listen-ip",
        value: Value::Array(every),
        from: Vec::new(),
    });
}

/// What `turnfleet up` would listen on.
fn usual_listeners(draft: &Draft<'_>) -> Vec<(&'static str, SocketAddr)> {
    let port = |name, default| {
        let written = draft.written(name).and_then(Value::as_integer);
        written
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(default)
    };
    let (plain, tls) = (port("port", PORT), port("tls-port", TLS_PORT));
    let ips = draft.written("listen-ip").and_then(Value::as_array);
    let ips = ips.into_iter().flatten().filter_map(Value::as_str);
    let ips: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
    [("udp", plain), ("tcp", plain), ("tls", tls)]
        .into_iter()
        .flat_map(|(transport, port)| {
            ips.iter()
                .map(move |ip| (transport, SocketAddr::new(*ip, port)))
        })
        .collect()
}
