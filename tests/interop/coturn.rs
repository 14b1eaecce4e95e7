//! coturn's `turnutils_uclient` and `turnutils_stunclient` against both relays of a fleet: what is sent is received.

use std::net::SocketAddr;
use std::process::{Command, Output};

use crate::client::{Credential, unix_now};
use crate::fleet::{Fleet, Relay};
use crate::tools;

pub(crate) const UCLIENT: &str = "/usr/bin/turnutils_uclient";
const STUNCLIENT: &str = "/usr/bin/turnutils_stunclient";
const SECRET: &str = "north-by-northwest";

/// The tool draws channel numbers that RFC 8656 has abolished.
pub(crate) const OLD_CHANNELS: [&str; 2] = ["--set", "relay.rfc5766_channel_numbers=true"];

/// Runs the tool against `server` until it is done.
pub(crate) fn uclient(server: SocketAddr, arguments: &[&str]) -> Output {
    uclient_by(Command::new(UCLIENT), server, arguments)
}

/// As [`uclient`], by way of `command`: the tool itself, or one that runs the rest of its line elsewhere.
pub(crate) fn uclient_by(mut command: Command, server: SocketAddr, arguments: &[&str]) -> Output {
    command
        .args(arguments)
        .args(["-p", &server.port().to_string(), &server.ip().to_string()])
        .output()
        .unwrap()
}

/// Runs the tool between allocations of its own, by every transport at once, and compares the counts: it exits with 0 even
/// when packets are lost.
#[track_caller]
fn relays_everything(arguments: &[&str], mode: &[&str]) {
    on_every_relay(arguments, |relay| {
        std::thread::scope(|scope| {
            scope.spawn(|| compare(relay.udp, 4, &[], mode));
            scope.spawn(|| compare(relay.tcp, 4, &["-t"], mode));
            // The tool loses records that arrive together, so it is given time between them.
            scope.spawn(|| compare(relay.tls, 4, &["-t", "-S", "-z", "100"], mode));
        });
    });
}

fn compare(server: SocketAddr, clients: u64, transport: &[&str], mode: &[&str]) {
    assert_counts(server, clients, clients, transport, mode);
}

/// Whether each of `clients` has sent its messages, and those of `heard` of them have come back.
fn assert_counts(server: SocketAddr, clients: u64, heard: u64, transport: &[&str], mode: &[&str]) {
    let number = clients.to_string();
    let fixed = [
        "-y", "-n", "50", "-m", &number, "-l", "160", "-u", "alice", "-W", SECRET,
    ];
    let all = [&fixed[..], transport, mode].concat();
    let output = uclient(server, &all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (sent, received) = totals(&text).unwrap_or_else(|| panic!("{all:?}: {output:?}"));
    let wanted = (clients * 50, heard * 50);
    assert_eq!((sent, received), wanted, "{all:?}\n{text}");
}

/// The counts of the tool's last summary line, `tot_send_msgs=A, tot_recv_msgs=B`.
pub(crate) fn totals(text: &str) -> Option<(u64, u64)> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("tot_send_msgs="))?;
    let number = |key: &str| {
        let digits = line.split(key).nth(1)?;
        digits
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    Some((number("tot_send_msgs=")?, number("tot_recv_msgs=")?))
}

/// Runs `check` against every relay of a fleet with `arguments` at once.
#[track_caller]
fn on_every_relay(arguments: &[&str], check: impl Fn(&Relay) + Sync) {
    if !tools::present(&[UCLIENT, STUNCLIENT]) {
        return;
    }
    let fleet = Fleet::up(&[&["--shared-secret", SECRET], arguments].concat());
    let relays = fleet.relays();
    assert_eq!(relays.len(), 2);
    std::thread::scope(|scope| {
        for relay in &relays {
            scope.spawn(|| check(relay));
        }
    });
}

#[test]
fn channels() {
    relays_everything(&OLD_CHANNELS, &[]);
}

#[test]
fn send_indications_by_default() {
    relays_everything(&[], &["-s"]);
}

/// As [`relays_everything`], by TCP between the relay and peers (RFC 6062).
#[track_caller]
fn relays_tcp(mode: &[&str]) {
    on_every_relay(&[], |relay| {
        std::thread::scope(|scope| {
            scope.spawn(|| compare(relay.tcp, 6, &["-T"], mode));
            scope.spawn(|| compare(relay.tls, 6, &["-T", "-S", "-z", "100"], mode));
        });
    });
}

#[test]
fn tcp_relayed_addresses() {
    relays_tcp(&[]);
}

#[test]
fn tcp_relayed_addresses_of_ipv6() {
    relays_tcp(&["-x"]);
}

#[test]
fn tcp_relayed_addresses_of_ipv4_by_name() {
    relays_tcp(&["-X"]);
}

/// The tool says that it leaves DONT-FRAGMENT out, which an allocation over TCP must not have.
#[test]
fn tcp_relayed_addresses_unfragmented() {
    relays_tcp(&["-g"]);
}

/// Half of the tool's clients are peers, on loopback, that connect to the relayed addresses of the others (RFC 6062 §5.3).
/// They send as much, but look at what comes without ever taking it, so half of what is sent counts as lost. Over TLS they
/// try to shake hands before they connect, and give up.
#[test]
fn peers_connect_to_tcp_relayed_addresses() {
    on_every_relay(&["--danger-allow-loopback-peers"], |relay| {
        let v6 = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), relay.tcp.port());
        std::thread::scope(|scope| {
            scope.spawn(|| assert_counts(relay.tcp, 6, 3, &["-t"], &["-P"]));
            scope.spawn(|| assert_counts(v6, 6, 3, &["-t"], &["-P", "-x"]));
        });
    });
}

#[test]
fn ipv6_relayed_addresses() {
    relays_everything(&OLD_CHANNELS, &["-x"]);
}

#[test]
fn dual_allocations() {
    relays_everything(&OLD_CHANNELS, &["-Z"]);
}

#[test]
fn bindings_are_answered() {
    on_every_relay(&[], |relay| {
        let (ip, port) = (relay.udp.ip().to_string(), relay.udp.port().to_string());
        let output = Command::new(STUNCLIENT).args(["-p", &port, &ip]).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("UDP reflexive addr"), "{output:?}");
    });
}

#[test]
fn a_synapse_credential_is_good_with_its_own_password_and_until_a_minute_past_its_end() {
    on_every_relay(&[], |relay| {
        let talk = |Credential { username, password }: &Credential| {
            let fixed = ["-y", "-s", "-n", "1", "-m", "1"];
            let own = ["-u", username.as_str(), "-w", password];
            uclient(relay.udp, &[&fixed[..], &own].concat())
        };
        let good = Credential::synapse(SECRET, "@alice:example.org");
        let ended = format!("{}:@alice:example.org", unix_now() - 60);
        let wrong = Credential {
            password: "wrong".to_owned(),
            ..good.clone()
        };
        for refused in [wrong, Credential::sign(SECRET, &ended)] {
            let output = talk(&refused);
            assert!(!output.status.success(), "{output:?}");
        }
        let output = talk(&good);
        let (sent, received) = totals(&String::from_utf8_lossy(&output.stdout)).unwrap();
        assert!(sent > 0 && sent == received, "{output:?}");
    });
}
