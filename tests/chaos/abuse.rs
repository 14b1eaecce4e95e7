//! An office that connects within a second, and then a scanner, a shared credential and a flood in a victim's name: what the
//! rules of abuse say of each, and when, while every rule that can ban does.

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
/// Rules that can ban.
const RULES: [&str; 7] = [
    "AUTHENTICATION_FAILURES",
    "PEER_FAN_OUT",
    "PORT_SCAN",
    "SHARED_CREDENTIAL",
    "QUOTA_EVASION",
    "RECONNECT_LOOP",
    "DENIED_PEERS",
];
const OFFICE: Ipv4Addr = Ipv4Addr::new(11, 72, 9, 9);
const COLLEAGUES: usize = 300;
const VICTIM: Ipv4Addr = Ipv4Addr::new(11, 73, 5, 5);

/// Names and values of the environment in which every rule bans.
fn strict() -> Vec<(&'static str, String)> {
    let name =
        |rule| -> &'static str { format!("TURNFLEET_CONTROLLER__ABUSE__{rule}__VERDICT").leak() };
    RULES.map(|rule| (name(rule), "ban".to_owned())).to_vec()
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

        let begun = Instant::now();
        let scanner = "@scanner:example.org";
        let mut caller = fleet.relays[0].caller(scanner);
        caller.allocate(AllocateOptions::default()).unwrap();
        scan(&mut caller);
        let scan_seen = seen(fleet, "peer_fan_out", scanner, begun);
        let scan_banned = banned(fleet, "peer_fan_out", begun);
        eventually("the scanner is thrown out", SOON, || {
            caller.refresh().is_err().then_some(())
        });

        let begun = Instant::now();
        let shared = "@shared:example.org";
        let credential = Credential::synapse(SECRET, shared);
        let sharers: Vec<_> = (1..=20u8)
            .map(|number| {
                let server = fleet.relays[usize::from(number) % RELAYS].server;
                let ip = Ipv4Addr::new(11, 72, 100 + number, 1);
                let mut caller = caller_at(ip, server, &credential);
                caller.allocate(AllocateOptions::default()).unwrap();
                caller
            })
            .collect();
        let shared_seen = seen(fleet, "shared_credential", shared, begun);
        let shared_banned = banned(fleet, "shared_credential", begun);

        let begun = Instant::now();
        flood(fleet.relays[1].server);
        let flood_seen = seen(fleet, "unanswered_challenges", "11.73.5.0/24", begun);

        // The office has been looked at all the while.
        let innocent = told(fleet).into_iter().filter(|event| {
            let fields = event["fields"].to_string();
            fields.contains("colleague") || fields.contains("11.72.9.")
        });
        let innocent: Vec<_> = innocent.collect();
        figures::print(
            "U2",
            json!({
                "office": COLLEAGUES,
                "office_ms": millis(office_took),
                "office_events": innocent.len(),
                "scan_seen_ms": millis(scan_seen),
                "scan_banned_ms": millis(scan_banned),
                "shared_seen_ms": millis(shared_seen),
                "shared_banned_ms": millis(shared_banned),
                "flood_seen_ms": millis(flood_seen),
                "promised_ms": millis(SEEN),
            }),
        );
        assert!(innocent.is_empty(), "{innocent:?}");
        let mut bans = bans(fleet);
        bans.sort();
        assert_eq!(bans, ["peer_fan_out", "shared_credential"]);
        for mut colleague in colleagues {
            colleague.refresh().unwrap();
        }
        drop(sharers);
        for (what, time) in [
            ("the scan is seen", scan_seen),
            ("the shared credential is seen", shared_seen),
            ("the flood is seen", flood_seen),
        ] {
            assert_time(what, time, SEEN);
        }
        assert_time("the scanner is banned", scan_banned, BANNED);
        assert_time("the credential is banned", shared_banned, BANNED);
    });
}
