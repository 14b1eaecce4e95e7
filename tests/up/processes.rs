//! Who lives and who ends with whom.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use crate::fleet::{Fleet, Place, Ports, SOON, lives, within};

#[test]
fn the_end_gives_every_port_back_and_ends_every_child() {
    let place = Place::new();
    let ports = Ports::free();
    for arguments in [&["--relays", "2"][..], &["--relays", "2", "--spawn"]] {
        let mut fleet = place.start(ports, arguments);
        let pids = [fleet.pid(0), fleet.pid(1)];
        assert_eq!(fleet.signal("TERM").code(), Some(0));
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
    within(SOON, "the children end", || {
        !pids.iter().any(|pid| lives(*pid))
    });
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
