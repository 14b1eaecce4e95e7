//! An office that connects within a second, and then scanners of hosts and of ports, a shared credential, a user who begins
//! anew all the time, and a flood in a victim's name: what the rules of abuse say of each, and when, while every rule that can
//! act does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::{Class, MessageWriter, Method, TransactionId};

use crate::api::TOKEN;
use crate::client::{Caller, Credential};
use crate::figures::{self, assert_time, millis};
use crate::fleet::{Fleet, RELAYS, SECRET, Special, with_special_fleet};
use crate::process::SOON;
use crate::tools::eventually;

/// An event is due so soon.
const SEEN: Duration = Duration::from_secs(10);
/// A ban waits for a second report.
const BANNED: Duration = Duration::from_secs(20);
/// Rules that can act, and how they do.
const RULES: [(&str, &str); 7] = [
    ("AUTHENTICATION_FAILURES", "ban"),
    ("PEER_FAN_OUT", "ban"),
    ("PORT_SCAN", "ban"),
    ("SHARED_CREDENTIAL", "ban"),
    ("QUOTA_EVASION", "ban"),
    ("RECONNECT_LOOP", "throttle"),
    ("DENIED_PEERS", "ban"),
];
const OFFICE: Ipv4Addr = Ipv4Addr::new(11, 72, 9, 9);
const COLLEAGUES: usize = 300;
const VICTIM: Ipv4Addr = Ipv4Addr::new(11, 73, 5, 5);

/// Names and values of the environment in which every rule acts.
fn strict() -> Vec<(&'static str, String)> {
    let name =
        |rule| -> &'static str { format!("TURNFLEET_CONTROLLER__ABUSE__{rule}__VERDICT").leak() };
    RULES
        .map(|(rule, verdict)| (name(rule), verdict.to_owned()))
        .to_vec()
}

/// Lets programs of the namespace use every address of 11.72.0.0/15.
#[track_caller]
fn settle() {
    let mut command = Command::new("/bin/ip");
    let status = command.args(["route", "add", "local", "11.72.0.0/15", "dev", "lo"]);
    assert!(status.status().unwrap().success());
}

fn caller_at(ip: impl Into<IpAddr>, server: SocketAddr, credential: &Credential) -> Caller {
    Caller::udp(UdpSocket::bind((ip.into(), 0)).unwrap(), server, credential)
}

/// The events of abuse that the leader still has.
fn told(fleet: &Fleet<'_>) -> Vec<Value> {
    let leader = &fleet.controllers[fleet.leader()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
    command.args(["fleet", "events", "--json", "--kind", "abuse"]);
    command.args(["--controller", &format!("http://{}:8080", leader.ip)]);
    let output = command.args(["--token", TOKEN]).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let events = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    events.collect()
}

/// When the event of `rule` about `whom` was there, since `begun`.
#[track_caller]
fn seen(fleet: &Fleet<'_>, rule: &str, whom: &str, begun: Instant) -> Duration {
    let kind = format!("abuse.{rule}");
    let fits = |event: &Value| {
        let fields = &event["fields"];
        event["kind"] == kind.as_str() && (fields["username"] == whom || fields["client"] == whom)
    };
    eventually(&kind, SOON, || told(fleet).iter().any(fits).then_some(()));
    begun.elapsed()
}

/// The rules that bans were placed by.
fn bans(fleet: &Fleet<'_>) -> Vec<String> {
    let answer = fleet.controllers[fleet.leader()].api.ask("/v1/bans");
    let answer = answer.unwrap_or_default();
    let bans = answer["bans"].as_array().cloned().unwrap_or_default();
    let by = bans.iter().filter_map(|ban| ban["by"].as_str());
    by.map(str::to_owned).collect()
}

#[track_caller]
fn banned(fleet: &Fleet<'_>, rule: &str, begun: Instant) -> Duration {
    eventually(&format!("a ban by {rule}"), SOON, || {
        bans(fleet).iter().any(|by| by == rule).then_some(())
    });
    begun.elapsed()
}

/// Everybody of the office at once, over all relays.
fn office(fleet: &Fleet<'_>) -> Vec<Caller> {
    let servers: Vec<_> = fleet.relays.iter().map(|relay| relay.server).collect();
    let enter = |number: usize| {
        let server = servers[number % RELAYS];
        let user = format!("@colleague{number}:example.org");
        let mut caller = caller_at(OFFICE, server, &Credential::synapse(SECRET, &user));
        caller.allocate(AllocateOptions::default()).unwrap();
        caller.permit("11.80.0.1:9".parse().unwrap()).unwrap();
        caller
    };
    std::thread::scope(|scope| {
        let groups = (0..10).map(|group| {
            let numbers = (group..COLLEAGUES).step_by(10);
            scope.spawn(move || numbers.map(enter).collect::<Vec<_>>())
        });
        let groups: Vec<_> = groups.collect();
        let groups = groups.into_iter().map(|group| group.join().unwrap());
        groups.flatten().collect()
    })
}

/// Asks for one host after the other, and says a word to each, until the relay has had enough.
fn scan(caller: &mut Caller) {
    for number in 0..1000u32 {
        let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 90, 0, 0)) + number);
        let peer = SocketAddr::new(host.into(), 161);
        if caller.permit(peer).is_err() {
            return;
        }
        caller.send(peer, "public");
    }
}

/// Says a word to one port of a host after the other.
fn scan_ports(caller: &mut Caller) {
    let host = Ipv4Addr::new(11, 90, 7, 7);
    caller.permit(SocketAddr::new(host.into(), 1)).unwrap();
    for port in 1..=1024 {
        caller.send(SocketAddr::new(host.into(), port), "open?");
    }
}

/// Opens and ends allocations until one is refused, and gives the code.
fn begin_anew(server: SocketAddr, credential: &Credential) -> u16 {
    let from = Ipv4Addr::new(11, 72, 200, 1);
    for _ in 0..4000 {
        // A hundred a second: the controllers keep the last twenty thousand events.
        std::thread::park_timeout(Duration::from_millis(10));
        let mut caller = caller_at(from, server, credential);
        match caller.allocate(AllocateOptions::default()) {
            Ok(_) => caller.end().unwrap(),
            Err(code) => return code.code(),
        };
    }
    panic!("nothing was refused");
}

/// Requests in the name of the victim, who hears the answers and says nothing.
fn flood(server: SocketAddr) {
    let sockets = [(); 8].map(|()| UdpSocket::bind((VICTIM, 0)).unwrap());
    for number in 0..4000u32 {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let mut message = Vec::new();
        let mut writer = MessageWriter::new(
            &mut message,
            Class::Request,
            Method::Allocate,
            TransactionId(id),
        );
        writer.requested_transport(17);
        writer.finish();
        let socket = &sockets[usize::try_from(number).unwrap() % sockets.len()];
        socket.send_to(&message, server).unwrap();
        if number % 40 == 0 {
            // The relay's socket holds a few hundred of them.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// What was measured, and how soon it is promised.
type Measured = Vec<(&'static str, Duration, Duration)>;

/// One user asks for host after host, another one sends to port after port of one host.
fn scanners(fleet: &Fleet<'_>) -> Measured {
    let begun = Instant::now();
    let scanner = "@scanner:example.org";
    let mut caller = fleet.relays[0].caller(scanner);
    caller.allocate(AllocateOptions::default()).unwrap();
    scan(&mut caller);
    let hosts_seen = seen(fleet, "peer_fan_out", scanner, begun);
    let hosts_banned = banned(fleet, "peer_fan_out", begun);
    eventually("the scanner is thrown out", SOON, || {
        caller.refresh().is_err().then_some(())
    });

    let begun = Instant::now();
    let prober = "@prober:example.org";
    let mut caller = fleet.relays[2].caller(prober);
    caller.allocate(AllocateOptions::default()).unwrap();
    scan_ports(&mut caller);
    let ports_seen = seen(fleet, "port_scan", prober, begun);
    let ports_banned = banned(fleet, "port_scan", begun);
    vec![
        ("scan_seen_ms", hosts_seen, SEEN),
        ("scan_banned_ms", hosts_banned, BANNED),
        ("ports_seen_ms", ports_seen, SEEN),
        ("ports_banned_ms", ports_banned, BANNED),
    ]
}

/// Nobody is banned for beginning anew: it is refused as one beyond its quota, and at the other relays, too.
fn restless(fleet: &Fleet<'_>) -> Measured {
    let begun = Instant::now();
    let user = "@restless:example.org";
    let credential = Credential::synapse(SECRET, user);
    assert_eq!(begin_anew(fleet.relays[0].server, &credential), 486);
    let throttled = begun.elapsed();
    assert_eq!(begin_anew(fleet.relays[1].server, &credential), 486);
    seen(fleet, "reconnect_loop", user, begun);
    // It has to open six hundred first.
    vec![("loop_throttled_ms", throttled, BANNED + SEEN)]
}

/// One credential on twenty addresses, each of a network of its own.
fn sharers(fleet: &Fleet<'_>) -> Measured {
    let begun = Instant::now();
    let user = "@shared:example.org";
    let credential = Credential::synapse(SECRET, user);
    let sharers = (1..=20u8).map(|number| {
        let server = fleet.relays[usize::from(number) % RELAYS].server;
        let ip = Ipv4Addr::new(11, 72, 100 + number, 1);
        let mut caller = caller_at(ip, server, &credential);
        caller.allocate(AllocateOptions::default()).unwrap();
        caller
    });
    let sharers: Vec<_> = sharers.collect();
    let is_seen = seen(fleet, "shared_credential", user, begun);
    let is_banned = banned(fleet, "shared_credential", begun);
    drop(sharers);
    vec![
        ("shared_seen_ms", is_seen, SEEN),
        ("shared_banned_ms", is_banned, BANNED),
    ]
}

#[test]
fn u02_abuse_is_told_in_time_and_an_office_is_let_be() {
    let controllers = strict();
    let special = Special {
        controllers: &controllers,
        ..Special::default()
    };
    with_special_fleet(&special, |fleet| {
        settle();
        let begun = Instant::now();
        let colleagues = office(fleet);
        let office_took = begun.elapsed();

        let mut measured = scanners(fleet);
        measured.extend(sharers(fleet));
        measured.extend(restless(fleet));
        let begun = Instant::now();
        flood(fleet.relays[1].server);
        let flood_seen = seen(fleet, "unanswered_challenges", "11.73.5.0/24", begun);
        measured.push(("flood_seen_ms", flood_seen, SEEN));

        // The office has been looked at all the while.
        let innocent = told(fleet).into_iter().filter(|event| {
            let fields = event["fields"].to_string();
            fields.contains("colleague") || fields.contains("11.72.9.")
        });
        let innocent: Vec<_> = innocent.collect();
        let mut figures = json!({
            "office": COLLEAGUES,
            "office_ms": millis(office_took),
            "office_events": innocent.len(),
            "promised_ms": millis(SEEN),
        });
        for (name, time, _) in &measured {
            figures[name] = millis(*time).into();
        }
        figures::print("U2", figures);
        assert!(innocent.is_empty(), "{innocent:?}");
        let mut bans = bans(fleet);
        bans.sort();
        assert_eq!(bans, ["peer_fan_out", "port_scan", "shared_credential"]);
        for mut colleague in colleagues {
            colleague.refresh().unwrap();
        }
        for (name, time, promised) in measured {
            assert_time(name, time, promised);
        }
    });
}
