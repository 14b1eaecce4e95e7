//! What the DNS responder says of a fleet, from the query's bytes to the answer's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::prelude::*;
use turnfleet_controller::config::{Config, DnsConfig, RawConfig, RawDns, RawNameServer};
use turnfleet_controller::dns::{Ignored, Manner, Outcome, Rcode, Zone};
use turnfleet_controller::fleet::{Ended, Listener, Transport};

use crate::stage::{Stage, identity};
use crate::trust::{DAY, certificate};

const ZONE: &str = "relays.example.org";
/// What a resolver that speaks EDNS takes.
const LARGE: u16 = 4096;

fn config() -> DnsConfig {
    let server = |name: &str, addresses: &[&str]| RawNameServer {
        name: name.to_owned(),
        addresses: addresses.iter().map(|&ip| ip.to_owned()).collect(),
    };
    let in_zone = ["198.51.100.1", "2001:db8::53"];
    let dns = RawDns {
        zone: Some(ZONE.to_owned()),
        name_servers: vec![
            server("ns1.relays.example.org", &in_zone),
            server("ns.example.net", &[]),
        ],
        ..RawDns::default()
    };
    let raw = RawConfig {
        dns,
        ..RawConfig::default()
    };
    Config::try_from(raw).unwrap().dns.unwrap()
}

fn zone(stage: &Stage) -> Zone {
    Zone::new(&config(), &stage.view(), 7)
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{name}.")).unwrap();
    query.add_query(Query::query(name, kind));
    query
}

fn with_edns(mut query: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    query.set_edns(edns);
    query
}

fn bytes(zone: &Zone, query: &[u8], manner: Manner, turn: u64) -> (Outcome, Vec<u8>) {
    let mut out = vec![7; 3];
    let outcome = zone.answer(query, manner, turn, &mut out).unwrap();
    (outcome, out)
}

/// The answer, which is an answer to `query` whatever it says.
#[track_caller]
fn answered(zone: &Zone, query: &Message, manner: Manner) -> Message {
    let (_, out) = bytes(zone, &query.to_vec().unwrap(), manner, 1);
    let answer = Message::from_vec(&out).unwrap();
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert!(answer.metadata.recursion_desired && !answer.metadata.recursion_available);
    assert_eq!(answer.edns.is_some(), query.edns.is_some());
    answer
}

#[track_caller]
fn ask(zone: &Zone, name: &str, kind: RecordType) -> Message {
    answered(zone, &with_edns(query(name, kind), LARGE), Manner::Datagram)
}

fn addresses(records: &[Record]) -> Vec<IpAddr> {
    let ip = |record: &Record| record.data.ip_addr();
    let mut ips: Vec<_> = records.iter().filter_map(ip).collect();
    ips.sort_unstable();
    ips
}

/// The addresses of `turn` there.
fn turn(zone: &Zone, domain: &str) -> Vec<IpAddr> {
    let answer = ask(zone, &format!("turn.{domain}"), RecordType::A);
    assert!(answer.metadata.authoritative);
    addresses(&answer.answers)
}

fn ips(numbers: &[u8]) -> Vec<IpAddr> {
    let ip = |number: &u8| IpAddr::from([192, 0, 2, *number]);
    numbers.iter().map(ip).collect()
}

/// Relays 0 and 1 in the north, 2 in the east.
fn two_regions() -> Stage {
    let mut stage = Stage::of(2);
    let mut east = identity(2);
    east.region = "east".to_owned();
    stage.join(2, east);
    stage
}

/// The code of the answer and who is responsible, where that is told.
fn verdict(answer: &Message) -> (ResponseCode, bool, Option<u32>) {
    let soa = answer.authorities.first().map(|record| {
        assert_eq!(record.record_type(), RecordType::SOA);
        record.ttl
    });
    (
        answer.metadata.response_code,
        answer.metadata.authoritative,
        soa,
    )
}

#[test]
fn names_lead_to_the_listed_relays_of_their_region() {
    let mut stage = two_regions();
    assert_eq!(turn(&zone(&stage), ZONE), ips(&[0, 1, 2]));
    let (north, east) = (format!("north.{ZONE}"), format!("east.{ZONE}"));
    assert_eq!(turn(&zone(&stage), &north), ips(&[0, 1]));
    assert_eq!(turn(&zone(&stage), &east), ips(&[2]));
    stage.end(2, Ended::Goodbye);
    assert_eq!(turn(&zone(&stage), ZONE), ips(&[0, 1]));
    let stands_in = turn(&zone(&stage), &east);
    assert_eq!(stands_in, ips(&[0, 1]), "another region stands in");
    let gone = ask(
        &zone(&stage),
        &format!("relay-2.relay.{ZONE}"),
        RecordType::A,
    );
    assert_eq!(verdict(&gone), (ResponseCode::NXDomain, true, Some(30)));
}

#[test]
fn relays_of_a_tenant_are_nowhere_in_the_zone() {
    let mut stage = Stage::empty();
    for number in 0..3 {
        stage.join_for(number, identity(number), (number == 0).then_some("acme"));
    }
    let zone = zone(&stage);
    assert_eq!(turn(&zone, ZONE), ips(&[1, 2]));
    let own = ask(&zone, &format!("relay-0.relay.{ZONE}"), RecordType::A);
    assert_eq!(verdict(&own), (ResponseCode::NXDomain, true, Some(30)));
}

#[test]
fn relays_at_one_address_are_one_record() {
    let mut stage = Stage::of(2);
    let mut beside = identity(1);
    for listener in &mut beside.listeners {
        listener.address.set_port(listener.address.port() + 1);
    }
    stage.join(2, beside);
    assert_eq!(turn(&zone(&stage), ZONE), ips(&[0, 1]));
}

#[test]
fn services_lead_to_relays_by_name_with_their_addresses() {
    let mut stage = Stage::empty();
    let mut both = identity(1);
    both.listeners.push(Listener {
        transport: Transport::Udp,
        address: "[2001:db8::1]:3478".parse().unwrap(),
        local: None,
    });
    stage.join(1, both);
    let zone = zone(&stage);
    let services = [
        ("_turn._udp", 3478),
        ("_turn._tcp", 3478),
        ("_turns._tcp", 5349),
        ("_stun._udp", 3478),
        ("_stun._tcp", 3478),
        ("_stuns._tcp", 5349),
    ];
    for domain in ["", "turn.", "north.", "turn.north."] {
        for (service, port) in services {
            let answer = ask(&zone, &format!("{service}.{domain}{ZONE}"), RecordType::SRV);
            let RData::SRV(srv) = &answer.answers[0].data else {
                panic!("{answer}");
            };
            assert_eq!(srv.port, port, "{service}");
            let target = Name::from_ascii(format!("relay-1.relay.{ZONE}.")).unwrap();
            assert_eq!(srv.target, target);
            assert!(
                answer
                    .additionals
                    .iter()
                    .all(|record| record.name == target)
            );
            let both: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
            assert_eq!(addresses(&answer.additionals), both);
        }
        let answer = ask(&zone, &format!("{domain}{ZONE}"), RecordType::NAPTR);
        let mut tags: Vec<_> = answer.answers.iter().map(naptr).collect();
        tags.sort();
        assert_eq!(tags[0].0, "RELAY:turn.tcp");
        assert_eq!(tags.len(), 3);
        for (_, replacement) in tags {
            let found = ask(&zone, replacement.trim_end_matches('.'), RecordType::SRV);
            assert_eq!(found.answers.len(), 1, "{replacement}");
        }
    }
}

fn naptr(record: &Record) -> (String, String) {
    let RData::NAPTR(naptr) = &record.data else {
        panic!("{record}");
    };
    assert_eq!(*naptr.flags, *b"S");
    let tag = String::from_utf8(naptr.services.to_vec()).unwrap();
    (tag, naptr.replacement.to_string())
}

#[test]
fn a_service_leads_to_no_relay_whose_certificate_ends() {
    let mut stage = Stage::of(2);
    certificate(&mut stage, 0, 60 * DAY);
    certificate(&mut stage, 1, DAY - 1);
    let zone = zone(&stage);
    let relays = |service: &str| {
        let answer = ask(&zone, &format!("{service}.{ZONE}"), RecordType::SRV);
        addresses(&answer.additionals)
    };
    assert_eq!(relays("_turns._tcp"), ips(&[0]));
    assert_eq!(relays("_turn._tcp"), ips(&[0, 1]));
}

#[test]
fn the_ports_of_a_relay_share_its_weight_and_its_addresses() {
    let mut stage = Stage::of(1);
    let mut two = identity(1);
    two.listeners.push(Listener {
        transport: Transport::Udp,
        address: "192.0.2.1:443".parse().unwrap(),
        local: None,
    });
    stage.join(1, two);
    let service = format!("_turn._udp.{ZONE}");
    let answer = ask(&zone(&stage), &service, RecordType::SRV);
    let mut weights = BTreeMap::<_, Vec<u16>>::new();
    for record in &answer.answers {
        let RData::SRV(srv) = &record.data else {
            panic!("{answer}");
        };
        let of_target = weights.entry(srv.target.to_string()).or_default();
        of_target.push(srv.weight);
    }
    let weights: Vec<_> = weights.into_values().collect();
    assert_eq!(weights, [vec![1000], vec![500, 500]]);
    assert_eq!(addresses(&answer.additionals), ips(&[0, 1]));
}

#[test]
fn the_apex_tells_who_serves_the_zone() {
    let zone = zone(&Stage::of(1));
    let soa = ask(&zone, ZONE, RecordType::SOA);
    let RData::SOA(data) = &soa.answers[0].data else {
        panic!("{soa}");
    };
    assert_eq!((data.serial, data.minimum), (7, 30));
    assert_eq!(data.mname.to_string(), "ns1.relays.example.org.");
    assert_eq!(data.rname.to_string(), "hostmaster.relays.example.org.");
    let ns = ask(&zone, ZONE, RecordType::NS);
    assert_eq!(ns.answers.len(), 2);
    let glue: [IpAddr; 2] = ["198.51.100.1", "2001:db8::53"].map(|ip| ip.parse().unwrap());
    assert_eq!(addresses(&ns.additionals), glue);
    let server = ask(&zone, &format!("ns1.{ZONE}"), RecordType::A);
    assert_eq!(addresses(&server.answers), glue[..1]);
}

#[test]
fn what_is_not_there_is_denied_with_the_time_to_remember_it() {
    let zone = zone(&Stage::of(1));
    let (no_error, no_name) = (ResponseCode::NoError, ResponseCode::NXDomain);
    let denied = |name: &str, kind| verdict(&ask(&zone, &format!("{name}.{ZONE}"), kind));
    assert_eq!(
        denied("turn.mars", RecordType::A),
        (no_name, true, Some(30))
    );
    assert_eq!(denied("turn", RecordType::TXT), (no_error, true, Some(30)));
    assert_eq!(denied("turn", RecordType::AAAA), (no_error, true, Some(30)));
    // Names between others exist, RFC 8020.
    for name in ["_udp", "_tcp.turn", "relay", "_udp.north"] {
        assert_eq!(
            denied(name, RecordType::A),
            (no_error, true, Some(30)),
            "{name}"
        );
    }
    let none = ask(
        &self::zone(&Stage::empty()),
        &format!("turn.{ZONE}"),
        RecordType::A,
    );
    assert_eq!(
        verdict(&none),
        (no_error, true, Some(30)),
        "a fleet without relays"
    );
}

#[test]
fn nothing_is_denied_while_no_relay_is_listed() {
    let mut stage = Stage::of(1);
    stage.end(0, Ended::Goodbye);
    let zone = zone(&stage);
    let turn = format!("turn.{ZONE}");
    for (name, kind) in [
        (&turn, RecordType::A),
        (&format!("relay-0.relay.{ZONE}"), RecordType::A),
        (&format!("_turn._udp.{ZONE}"), RecordType::SRV),
    ] {
        let unknown = (ResponseCode::ServFail, false, None);
        assert_eq!(verdict(&ask(&zone, name, kind)), unknown, "{name}");
    }
    let soa = ask(&zone, ZONE, RecordType::SOA);
    assert_eq!(soa.answers.len(), 1);
}

#[test]
fn what_is_not_ours_to_answer_is_refused_without_a_record() {
    let zone = zone(&Stage::of(1));
    let refused = |query: Message| {
        let answer = answered(&zone, &query, Manner::Datagram);
        assert!(!answer.metadata.authoritative);
        assert!(answer.answers.is_empty() && answer.authorities.is_empty());
        answer.metadata.response_code
    };
    let elsewhere = ["example.org", "example.com", "xrelays.example.org"];
    for name in elsewhere {
        assert_eq!(refused(query(name, RecordType::A)), ResponseCode::Refused);
    }
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(refused(query(ZONE, kind)), ResponseCode::Refused);
    }
    let mut chaos = query(ZONE, RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(refused(chaos), ResponseCode::Refused);
    let mut later = with_edns(query(ZONE, RecordType::SOA), LARGE);
    later.edns.as_mut().unwrap().set_version(1);
    let answer = answered(&zone, &later, Manner::Datagram);
    // Its number is that of BADSIG as well.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(answer.edns.map(|edns| edns.version()), Some(0));
}

#[test]
fn whoever_asks_for_everything_gets_one_small_record() {
    let zone = zone(&Stage::of(20));
    let answer = ask(&zone, &format!("turn.{ZONE}"), RecordType::ANY);
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
    let none = ask(&zone, &format!("nobody.{ZONE}"), RecordType::ANY);
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
    let between = ask(&zone, &format!("_udp.{ZONE}"), RecordType::ANY);
    assert_eq!(
        verdict(&between),
        (ResponseCode::NoError, true, Some(30)),
        "a name without records"
    );
}

#[test]
fn the_letters_of_the_question_come_back_as_they_were() {
    let zone = zone(&Stage::of(2));
    let mixed = format!("tUrN.NORTH.{}", ZONE.to_uppercase());
    let answer = ask(&zone, &mixed, RecordType::A);
    assert_eq!(answer.queries[0].name.to_string(), format!("{mixed}."));
    assert_eq!(answer.answers.len(), 2);
    for record in &answer.answers {
        assert_eq!(record.name.to_string(), format!("{mixed}."));
    }
}

#[test]
fn a_datagram_is_as_long_as_the_asker_takes_and_a_connection_has_it_all() {
    let mut stage = Stage::empty();
    for number in 0..20 {
        let mut long = identity(number);
        long.region = "a-region-with-a-name-that-takes-a-lot-of-room-in-every-answer".to_owned();
        stage.join(number, long);
    }
    let zone = zone(&stage);
    let service = format!("_turn._udp.{ZONE}");
    let plain = query(&service, RecordType::SRV);
    let cut = answered(&zone, &plain, Manner::Datagram);
    let whole = answered(&zone, &plain, Manner::Stream);
    let (_, sent) = bytes(&zone, &plain.to_vec().unwrap(), Manner::Datagram, 1);
    if cut.metadata.truncation {
        assert!(cut.answers.is_empty() && cut.additionals.is_empty());
    }
    assert!(sent.len() <= 512, "{}", sent.len());
    assert!(!whole.metadata.truncation);
    assert_eq!((whole.answers.len(), whole.additionals.len()), (8, 8));
    for payload in [0, 512, 1232, u16::MAX] {
        let asked = with_edns(plain.clone(), payload);
        let (_, sent) = bytes(&zone, &asked.to_vec().unwrap(), Manner::Datagram, 1);
        let most = usize::from(payload.clamp(512, 1232));
        assert!(sent.len() <= most, "{} for {payload}", sent.len());
    }
    let referred = answered(&zone, &plain, Manner::Refer);
    assert!(referred.metadata.truncation && referred.answers.is_empty());
}

#[test]
fn every_relay_is_named_in_turn_and_eight_at_a_time() {
    let zone = zone(&Stage::of(40));
    let asked = query(&format!("turn.{ZONE}"), RecordType::A)
        .to_vec()
        .unwrap();
    let mut seen = BTreeMap::<IpAddr, u32>::new();
    for turn in 0..1000 {
        let (_, out) = bytes(&zone, &asked, Manner::Datagram, turn);
        let named = addresses(&Message::from_vec(&out).unwrap().answers);
        assert_eq!(named.len(), 8);
        for ip in named {
            *seen.entry(ip).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 40);
    // Each has a fifth of the answers.
    assert!(
        seen.values().all(|count| (150..250).contains(count)),
        "{seen:?}"
    );
}

#[test]
fn what_is_no_query_is_told_so_in_a_header_or_not_answered() {
    let zone = zone(&Stage::of(1));
    let good = query(ZONE, RecordType::SOA).to_vec().unwrap();
    let told = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut asked = good.clone();
        change(&mut asked);
        let mut out = Vec::new();
        let outcome = zone.answer(&asked, Manner::Datagram, 0, &mut out);
        if let Ok(Outcome { kind: None, .. }) = outcome {
            assert_eq!(out.len(), 12);
            assert_eq!(out[..2], asked[..2]);
        }
        outcome.map(|outcome| outcome.rcode)
    };
    assert_eq!(told(&|_| {}), Ok(Rcode::NoError));
    assert_eq!(told(&|asked| asked.truncate(11)), Err(Ignored::Short));
    assert_eq!(told(&|asked| asked[2] |= 0x80), Err(Ignored::Response));
    for opcode in [1, 2, 4, 5, 6, 15] {
        assert_eq!(
            told(&|asked| asked[2] |= opcode << 3),
            Ok(Rcode::NotImp),
            "{opcode}"
        );
    }
    let malformed: [fn(&mut Vec<u8>); 8] = [
        |asked| asked[2] |= 0x02,
        |asked| asked[5] = 0,
        |asked| asked[5] = 2,
        |asked| asked[7] = 1,
        |asked| asked[9] = 1,
        |asked| asked[11] = 1,
        |asked| asked.truncate(20),
        |asked| asked.push(0),
    ];
    for (place, change) in malformed.into_iter().enumerate() {
        assert_eq!(told(&change), Ok(Rcode::FormErr), "{place}");
    }
    let pointing = |asked: &mut Vec<u8>| asked[12..14].copy_from_slice(&[0xc0, 0x0c]);
    assert_eq!(told(&pointing), Ok(Rcode::FormErr));
    let twice = |asked: &mut Vec<u8>| {
        asked[11] = 2;
        let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        asked.extend([opt, opt].concat());
    };
    assert_eq!(told(&twice), Ok(Rcode::FormErr));
}

#[test]
fn a_region_whose_name_is_no_domain_has_none_and_harms_no_other() {
    let mut stage = Stage::of(1);
    let mut odd = identity(1);
    odd.region = "a..b".to_owned();
    stage.join(1, odd);
    let mut dotted = identity(2);
    dotted.region = "eu.West".to_owned();
    stage.join(2, dotted);
    let zone = zone(&stage);
    assert_eq!(turn(&zone, ZONE), ips(&[0, 1, 2]));
    assert_eq!(turn(&zone, &format!("eu.west.{ZONE}")), ips(&[2]));
    assert_eq!(turn(&zone, &format!("north.{ZONE}")), ips(&[0]));
}

fn a_zone() -> Zone {
    zone(&two_regions())
}

/// Whatever comes in, what goes out is an answer to it and not much longer.
#[track_caller]
fn holds(zone: &Zone, asked: &[u8]) {
    let mut out = Vec::new();
    for manner in [Manner::Datagram, Manner::Refer, Manner::Stream] {
        match zone.answer(asked, manner, 3, &mut out) {
            Err(Ignored::Short) => assert!(asked.len() < 12),
            Err(Ignored::Response) => assert!(asked[2] & 0x80 != 0),
            Ok(_) => {
                assert!(out[..2] == asked[..2] && out[2] & 0x80 != 0);
                assert!(manner == Manner::Stream || out.len() <= 1232);
                assert!(manner != Manner::Refer || out.len() <= asked.len());
                let answer = Message::from_vec(&out).expect("an answer can be read");
                assert!(answer.answers.len() <= 8);
                continue;
            }
        }
        assert!(out.is_empty());
    }
}

proptest! {
    #[test]
    fn garbage_is_answered_in_kind(asked in prop::collection::vec(any::<u8>(), 0..600)) {
        holds(&a_zone(), &asked);
    }

    #[test]
    fn damaged_queries_are_answered_in_kind(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
        kind in any::<u16>(),
    ) {
        let name = format!("_turn._udp.north.{ZONE}");
        let asked = with_edns(query(&name, RecordType::from(kind)), LARGE);
        let mut asked = asked.to_vec().unwrap();
        for (place, byte) in damage {
            let place = place.index(asked.len());
            asked[place] = byte;
        }
        if cuts {
            asked.truncate(cut.index(asked.len() + 1));
        }
        holds(&a_zone(), &asked);
    }
}
