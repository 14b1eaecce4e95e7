//! coturn's `turnutils_uclient` and `turnutils_stunclient` against both relays of a fleet: what is sent is received.

use std::net::SocketAddr;
use std::process::{Command, Output};

use crate::client::{Credential, unix_now};
use crate::fleet::{Fleet, Relay};
use crate::tools;

const UCLIENT: &str = "/usr/bin/turnutils_uclient";
const STUNCLIENT: &str = "/usr/bin/turnutils_stunclient";
const SECRET: &str = "north-by-northwest";

fn fleet() -> Option<Fleet> {
    tools::present(&[UCLIENT, STUNCLIENT]).then(|| {
        Fleet::up(&[
            "--shared-secret",
            SECRET,
            "--set",
            "relay.rfc5766_channel_numbers=true",
        ])
    })
}

fn uclient(server: SocketAddr, arguments: &[&str]) -> Output {
    Command::new(UCLIENT)
        .args(arguments)
        .args(["-p", &server.port().to_string(), &server.ip().to_string()])
        .output()
        .unwrap()
}

/// Runs the tool between two allocations of its own and compares the counts: it exits with 0 even when packets are lost.
#[track_caller]
fn relays_everything(server: SocketAddr, arguments: &[&str]) {
    let mut all = vec![
        "-y", "-n", "50", "-m", "4", "-l", "160", "-u", "alice", "-W", SECRET,
    ];
    all.extend(arguments);
    let output = uclient(server, &all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (sent, received) = totals(&text).unwrap_or_else(|| panic!("{all:?}: {output:?}"));
    assert!(
        sent > 0 && sent == received,
        "{all:?}: sent {sent}, received {received}\n{text}"
    );
}

/// The counts of the tool's last summary line, `tot_send_msgs=A, tot_recv_msgs=B`.
fn totals(text: &str) -> Option<(u64, u64)> {
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

/// Runs `check` against every relay of one fleet at once.
#[track_caller]
fn on_every_relay(check: impl Fn(&Relay) + Sync) {
    let Some(fleet) = fleet() else { return };
    let relays = fleet.relays();
    assert_eq!(relays.len(), 2);
    std::thread::scope(|scope| {
        for relay in &relays {
            scope.spawn(|| check(relay));
        }
    });
}

#[test]
fn channels_over_udp() {
    on_every_relay(|relay| relays_everything(relay.udp, &[]));
}

#[test]
fn channels_over_tcp() {
    on_every_relay(|relay| relays_everything(relay.tcp, &["-t"]));
}

/// The tool loses records that arrive together, so it is given time between them.
#[test]
fn channels_over_tls() {
    on_every_relay(|relay| relays_everything(relay.tls, &["-t", "-S", "-z", "100"]));
}

#[test]
fn send_indications_over_udp() {
    on_every_relay(|relay| relays_everything(relay.udp, &["-s"]));
}

#[test]
fn send_indications_over_tcp() {
    on_every_relay(|relay| relays_everything(relay.tcp, &["-s", "-t"]));
}

#[test]
fn ipv6_relayed_addresses() {
    on_every_relay(|relay| relays_everything(relay.udp, &["-x"]));
}

#[test]
fn dual_allocations() {
    on_every_relay(|relay| relays_everything(relay.udp, &["-Z"]));
}

#[test]
fn binding() {
    let Some(fleet) = fleet() else { return };
    for relay in fleet.relays() {
        let output = Command::new(STUNCLIENT)
            .args([
                "-p",
                &relay.udp.port().to_string(),
                &relay.udp.ip().to_string(),
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("UDP reflexive addr"), "{output:?}");
    }
}

#[test]
fn a_synapse_credential_is_good_until_a_minute_past_its_end_and_with_its_own_password() {
    on_every_relay(|relay| {
        let short = |credential: &Credential| {
            let Credential { username, password } = credential;
            let one = ["-y", "-n", "1", "-m", "1", "-u", username, "-w", password];
            uclient(relay.udp, &one)
        };
        let good = Credential::synapse(SECRET, "@alice:example.org");
        let ended = format!("{}:@alice:example.org", unix_now() - 60);
        let wrong = Credential {
            password: "wrong".to_owned(),
            ..good.clone()
        };
        for refused in [wrong, Credential::sign(SECRET, &ended)] {
            let output = short(&refused);
            assert!(!output.status.success(), "{output:?}");
        }
        let output = short(&good);
        let (sent, received) = totals(&String::from_utf8_lossy(&output.stdout)).unwrap();
        assert!(sent > 0 && sent == received, "{output:?}");
    });
}
