//! Who lives and who ends with whom.

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Place, Ports, Running, SOON, exit, lives, signal, within};

#[test]
fn the_end_gives_every_port_back_and_ends_every_child() {
    let place = Place::new();
    let ports = Ports::free();
    for arguments in [&["--relays", "2"][..], &["--relays", "2", "--spawn"]] {
        let mut fleet = place.start(ports, arguments);
        let pids = [fleet.pid(0), fleet.pid(1)];
        let begun = Instant::now();
        assert_eq!(fleet.signal("TERM").code(), Some(0));
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert!(!pids.iter().any(|pid| lives(*pid)));
        for port in [ports.0, ports.0 + 2] {
            UdpSocket::bind(("127.0.0.1", port)).unwrap();
        }
    }
}

#[test]
fn children_die_with_a_parent_that_is_killed() {
    let place = Place::new();
    let mut fleet = place.start(Ports::free(), &["--spawn"]);
    let pids = [fleet.pid(0), fleet.pid(1)];
    assert!(
        pids.iter()
            .all(|pid| lives(*pid) && *pid != u64::from(fleet.child.0.id()))
    );
    fleet.signal("KILL");
    within(Duration::from_secs(2), "the children end", || {
        !pids.iter().any(|pid| lives(*pid))
    });
}

#[test]
fn a_killed_relay_leaves_the_lists_and_comes_back_with_its_ports() {
    let place = Place::new();
    let ports = Ports::free();
    let fleet = place.start(ports, &["--relays", "3", "--spawn"]);
    let victim = ports.0 + 2;
    let granted = fleet.text("/relays/1/relay_ports").to_owned();
    within(SOON, "lists name the relay", || {
        fleet.listed_ports().contains(&victim)
    });

    signal("KILL", fleet.pid(1));
    let gone = within(Duration::from_secs(2), "lists forget the relay", || {
        !fleet.listed_ports().contains(&victim)
    });
    assert!(fleet.listed_ports().contains(&ports.0), "after {gone:?}");

    let log = File::options()
        .create(true)
        .append(true)
        .open(place.log())
        .unwrap();
    let mut relay = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
    let file = place.state().join("relay-1.toml");
    relay
        .args(["relay", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stderr(log);
    let mut relay = Running(relay.spawn().unwrap());
    within(SOON, "lists name the relay again", || {
        fleet.listed_ports().contains(&victim)
    });
    let nodes = fleet.api("/v1/nodes");
    let ports = &nodes["nodes"][1]["ports"][0];
    assert_eq!(format!("{}-{}", ports["first"], ports["last"]), granted);

    signal("TERM", relay.0.id().into());
    assert_eq!(exit(&mut relay.0).code(), Some(0), "{}", place.said());
}

#[test]
fn a_supervisor_is_told_when_it_serves_and_when_it_stops() {
    let place = Place::new();
    let path = place.0.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(SOON)).unwrap();
    let heard = || {
        let mut state = [0; 64];
        let length = supervisor.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let mut command = place.up(Ports::free(), &["--spawn", "--relays", "1"]);
    let mut fleet = Fleet::start(command.env("NOTIFY_SOCKET", &path), &place);
    assert_eq!(heard(), "READY=1");
    assert_eq!(fleet.signal("TERM").code(), Some(0));
    assert_eq!(heard(), "STOPPING=1");
}
