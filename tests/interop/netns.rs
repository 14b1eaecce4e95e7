//! Network namespaces joined by a router, made for one test and removed with it. Needs root, `ip` and `nft`.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The programs that namespaces are made with.
pub(crate) const PROGRAMS: [&str; 2] = ["/bin/ip", "/usr/sbin/nft"];

/// A namespace with its loopback up; it goes when the value is dropped, and its links with it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with a name that no other has and that ends in `role`: four letters, which name the far ends of
    /// its links and differ between the namespaces of one router.
    #[track_caller]
    pub(crate) fn new(role: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let namespace = Self {
            name: format!("turnfleet-{}-{number}-{role}", std::process::id()),
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

    /// Gives `script` to the namespace's packet filter, and returns what that prints.
    #[track_caller]
    pub(crate) fn nft(&self, script: &str) -> String {
        let mut command = self.command("/usr/sbin/nft");
        succeed(command.arg(script))
    }

    /// Gives programs that run inside a `resolv.conf` of their own.
    #[track_caller]
    pub(crate) fn resolve_by(&self, text: &str) {
        let folder = self.folder();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("resolv.conf"), text).unwrap();
    }

    /// What `ip netns exec` puts in the place of files in /etc.
    fn folder(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
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
        let far = self.far_end(card);
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

    /// Gives the link `card` the address `ip/64`, usable at once.
    #[track_caller]
    pub(crate) fn ip6(&self, card: &str, ip: &str) {
        let block = format!("{ip}/64");
        self.ip(&["addr", "add", &block, "dev", card, "nodad"]);
    }

    /// What the router calls its end of the link `card`.
    pub(crate) fn far_end(&self, card: &str) -> String {
        format!("{card}-{}", &self.name[self.name.len() - 4..])
    }

    /// Lets the namespace forward packets between its links.
    #[track_caller]
    pub(crate) fn forward(&self) {
        let mut command = self.command("/bin/sh");
        succeed(command.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]));
    }

    /// Does `act` inside: sockets that it makes live there, wherever they are used.
    #[track_caller]
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        // A thread of its own: the move into the namespace holds for the thread that asked for it.
        let moved = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        std::thread::scope(|scope| scope.spawn(moved).join().unwrap())
    }

    /// A UDP socket that lives inside, bound to `ip` and a free port.
    #[track_caller]
    pub(crate) fn socket(&self, ip: IpAddr) -> UdpSocket {
        self.inside(|| UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("/bin/ip")
            .args(["netns", "del", &self.name])
            .status();
        let _ = std::fs::remove_dir_all(self.folder());
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    succeed(Command::new("/bin/ip").args(arguments));
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
