//! Network namespaces joined by a router, made for one test and removed with it. Needs root, `ip` and `nft`.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The programs that namespaces are made with.
pub(crate) const PROGRAMS: [&str; 2] = ["/bin/ip", "/usr/sbin/nft"];

/// A namespace with its loopback up; it goes when the value is dropped, and its links with it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace `role` of this test process.
    #[track_caller]
    pub(crate) fn new(role: &str) -> Self {
        let namespace = Self {
            name: format!("turnfleet-{}-{role}", std::process::id()),
        };
        ip(&["netns", "add", &namespace.name]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs `ip` inside.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all);
    }

    /// Adds the rules of `script` to the namespace's packet filter.
    #[track_caller]
    pub(crate) fn nft(&self, script: &str) {
        let mut command = self.command("/usr/sbin/nft");
        succeed(command.arg(script));
    }

    /// `program`, run inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/bin/ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Joins this namespace to `router` by a link `card` with the address `HOST/24` here and `GATEWAY` there.
    #[track_caller]
    pub(crate) fn link(&self, router: &Self, card: &str, host: &str, gateway: &str) {
        let far = format!("{card}-{}", &self.name[self.name.len() - 4..]);
        ip(&[
            "-n",
            &self.name,
            "link",
            "add",
            card,
            "type",
            "veth",
            "peer",
            "name",
            &far,
            "netns",
            &router.name,
        ]);
        self.ip(&["addr", "add", &format!("{host}/24"), "dev", card]);
        self.ip(&["link", "set", card, "up"]);
        router.ip(&["addr", "add", &format!("{gateway}/24"), "dev", &far]);
        router.ip(&["link", "set", &far, "up"]);
    }

    /// Lets the namespace forward packets between its links.
    #[track_caller]
    pub(crate) fn forward(&self) {
        let mut command = self.command("/bin/sh");
        succeed(command.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]));
    }

    /// A UDP socket that lives inside, bound to `ip` and a free port.
    #[track_caller]
    pub(crate) fn socket(&self, ip: IpAddr) -> UdpSocket {
        let path = format!("/run/netns/{}", self.name);
        // A thread of its own: the move into the namespace holds for the thread that asked for it.
        std::thread::spawn(move || {
            let file = File::open(path).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap()
        })
        .join()
        .unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("/bin/ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    succeed(Command::new("/bin/ip").args(arguments));
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
