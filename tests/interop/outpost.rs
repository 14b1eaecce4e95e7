//! One relay in a namespace of its own, and one other namespace that stands for the rest of the world.
//!
//! ```text
//!   relay  11.70.0.2, 2a0b:70::2  --- card0 ---  11.70.0.1, 2a0b:70::1  world: clients, peers, every other address
//!          11.72.0.2 (seen as 11.71.0.2)
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::fleet::{Fleet, Relay};
use crate::netns::{self, Namespace};
use crate::tools;

/// The shared secret of the fleet.
pub(crate) const SECRET: &str = "north-by-northwest";
/// Where clients reach the relay.
pub(crate) const RELAY: [&str; 2] = ["11.70.0.2", "2a0b:70::2"];
/// The relay's third address is 1:1 NAT: this one outside, ...
pub(crate) const NAT_PUBLIC: &str = "11.71.0.2";
/// ... and this one on the machine.
pub(crate) const NAT_LOCAL: &str = "11.72.0.2";
/// The world's own addresses.
pub(crate) const WORLD: [&str; 2] = ["11.70.0.1", "2a0b:70::1"];

/// The relay runs as a process of its own, and listens on no loopback address.
pub(crate) struct Outpost {
    pub(crate) fleet: Fleet,
    pub(crate) host: Namespace,
    pub(crate) world: Namespace,
}

impl Outpost {
    /// Starts the fleet with `arguments` besides its addresses; `None` where this machine cannot.
    #[track_caller]
    pub(crate) fn new(arguments: &[&str]) -> Option<Self> {
        if !tools::present(&netns::PROGRAMS) || !tools::is_root() {
            return None;
        }
        let host = Namespace::new("post");
        let world = Namespace::new("outs");
        host.link(&world, "card0", RELAY[0], WORLD[0]);
        host.ip(&["addr", "add", &format!("{NAT_LOCAL}/24"), "dev", "card0"]);
        host.ip6("card0", RELAY[1]);
        world.ip6(&host.far_end("card0"), WORLD[1]);
        // Every packet finds a way out, so that only the relay can keep it from leaving.
        host.ip(&["route", "add", "default", "via", WORLD[0]]);
        host.ip(&["-6", "route", "add", "default", "via", WORLD[1]]);
        world.ip(&["route", "add", "default", "via", RELAY[0]]);
        world.ip(&["-6", "route", "add", "default", "via", RELAY[1]]);
        // And every address of this block is one of the world's own.
        world.ip(&["route", "add", "local", "11.80.0.0/16", "dev", "lo"]);

        let [v4, v6] = RELAY;
        let listen = [
            "--listen-ip",
            v4,
            "--listen-ip",
            v6,
            "--listen-ip",
            NAT_LOCAL,
        ];
        let public = [v4, v6].map(|ip| format!("{ip}/{ip}"));
        let nat = format!("{NAT_PUBLIC}/{NAT_LOCAL}");
        let public = [
            ["--public-ip", &public[0]],
            ["--public-ip", &public[1]],
            ["--public-ip", &nat],
        ];
        let fixed = ["--relays", "1", "--spawn", "--shared-secret", SECRET];
        let all = [&fixed[..], &listen, public.as_flattened(), arguments].concat();
        let fleet = Fleet::up_by(host.command(env!("CARGO_BIN_EXE_turnfleet")), &all);
        Some(Self { fleet, host, world })
    }

    pub(crate) fn relay(&self) -> Relay {
        self.fleet.relays().remove(0)
    }

    /// The relay's listener for UDP and TCP on one of its addresses.
    pub(crate) fn server(&self, ip: &str) -> SocketAddr {
        SocketAddr::new(address(ip), self.relay().udp.port())
    }
}

/// One of 60,000 further addresses that clients in the world may have.
pub(crate) fn source(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(11, 80, 1, 0).to_bits() + number).into()
}

#[track_caller]
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}
