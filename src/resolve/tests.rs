//! URIs resolved by a DNS server of this machine: Debian's dnsmasq, on loopback and an unprivileged port.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};

use super::*;

const DNSMASQ: &str = "/usr/sbin/dnsmasq";

/// What the server knows; nothing else exists.
const RECORDS: [&str; 13] = [
    "--local=/#/",
    "--host-record=one.test,127.0.1.1,::1",
    "--host-record=two.test,127.0.1.2",
    "--host-record=closed.test,127.0.1.3",
    "--cname=alias.test,one.test",
    "--txt-record=empty.test,nothing",
    "--srv-host=_turn._udp.fleet.test,one.test,3479,20,0",
    "--srv-host=_turn._udp.fleet.test,two.test,4000,10,0",
    "--srv-host=_turns._tcp.fleet.test,alias.test,443,0,0",
    "--srv-host=_turn._udp.closed.test",
    "--srv-host=_turn._tcp.closed.test",
    "--srv-host=_turn._udp.astray.test,missing.test,3478,1,0",
    "--srv-host=_stun._udp.fleet.test,two.test,3480,0,0",
];

/// A running DNS server; it ends when the value is dropped.
struct Dns {
    child: Child,
    address: SocketAddr,
}

impl Dns {
    /// `None` where there is no dnsmasq, which is said, and where tools are required, a failure.
    fn start() -> Option<Self> {
        if !Path::new(DNSMASQ).exists() {
            assert!(
                std::env::var_os("TURNFLEET_REQUIRE_TOOLS").is_none(),
                "missing: {DNSMASQ}"
            );
            eprintln!("not run: missing: {DNSMASQ}");
            return None;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let child = Command::new(DNSMASQ)
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
            ])
            .args([
                "--no-hosts",
                "--pid-file",
                "--log-facility=-",
                "--user=root",
            ])
            .args(["--bind-interfaces", "--listen-address=127.0.0.1"])
            .arg(format!("--port={}", address.port()))
            .args(RECORDS)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let dns = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "{DNSMASQ} does not listen");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(dns)
    }
}

/// A port of loopback that nothing has, by UDP or TCP, and that no other test gets. It is below those that the kernel gives to who
/// connects: such a connection keeps its port for a minute after its end, and nobody can listen there.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(11_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 12_000, "no free port is left");
        let place = (Ipv4Addr::LOCALHOST, port);
        if UdpSocket::bind(place).is_ok() && TcpListener::bind(place).is_ok() {
            return port;
        }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The candidates of `uri` by the DNS server at `address` and the search domain `test`, or what is wrong.
fn ask(address: SocketAddr, uri: &str) -> Result<Vec<String>, String> {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    let server = NameServerConfig::new(address.ip(), true, connections.to_vec());
    let search = Name::from_ascii("test.").unwrap();
    let config = ResolverConfig::from_parts(None, vec![search], vec![server]);
    let found = resolve(&uri.parse().unwrap(), || {
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        builder.options_mut().timeout = Duration::from_secs(2);
        builder.options_mut().attempts = 1;
        Ok(builder)
    });
    match found {
        Ok(candidates) => Ok(candidates.iter().map(ToString::to_string).collect()),
        Err(error) => Err(format!("{error:#}")),
    }
}

#[track_caller]
fn assert_candidates(dns: &Dns, uri: &str, expected: &[&str]) {
    let found = ask(dns.address, uri);
    let expected = expected.iter().map(ToString::to_string).collect();
    assert_eq!(found, Ok(expected), "{uri}");
}

#[track_caller]
fn assert_refused(address: SocketAddr, uri: &str, expected: &str) {
    assert_eq!(ask(address, uri), Err(expected.to_owned()), "{uri}");
}

/// Where nobody is asked.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

#[test]
fn addresses_are_taken_as_they_are() {
    for (uri, expected) in [
        (
            "turn:192.0.2.1",
            &["192.0.2.1:3478 over udp", "192.0.2.1:3478 over tcp"][..],
        ),
        (
            "turn:[2001:db8::1]:7?transport=tcp",
            &["[2001:db8::1]:7 over tcp"],
        ),
        ("turns:192.0.2.1", &["192.0.2.1:5349 over tls"]),
        (
            "turns:192.0.2.1?transport=tcp",
            &["192.0.2.1:5349 over tls"],
        ),
        ("stun:192.0.2.1", &["192.0.2.1:3478 over udp"]),
        ("stuns:192.0.2.1", &["192.0.2.1:5349 over tls"]),
    ] {
        let expected = expected.iter().map(ToString::to_string).collect();
        assert_eq!(ask(NOBODY, uri), Ok(expected), "{uri}");
    }
    let dtls = "cannot resolve 192.0.2.1: DTLS is not spoken here";
    assert_refused(NOBODY, "turns:192.0.2.1?transport=udp", dtls);
}

#[test]
fn names_of_the_hosts_file_need_no_dns() {
    for uri in [
        "turn:localhost:7?transport=udp",
        "turn:LocalHost.:7?transport=udp",
    ] {
        let found = ask(NOBODY, uri).unwrap();
        assert!(
            found.contains(&"127.0.0.1:7 over udp".to_owned()),
            "{found:?}"
        );
    }
    let found = ask(NOBODY, "turns:localhost").unwrap();
    assert!(
        found.contains(&"127.0.0.1:5349 over tls".to_owned()),
        "{found:?}"
    );
}

#[test]
fn a_name_with_a_port_has_its_addresses_of_both_families() {
    let Some(dns) = Dns::start() else { return };
    let both = ["[::1]:7 over udp", "127.0.1.1:7 over udp"];
    assert_candidates(&dns, "turn:one.test:7?transport=udp", &both);
    assert_candidates(&dns, "turn:alias.test:7?transport=udp", &both);
    assert_candidates(&dns, "turn:one:7?transport=udp", &both);
    let each = ["127.0.1.2:7 over udp", "127.0.1.2:7 over tcp"];
    assert_candidates(&dns, "turn:two.test:7", &each);
    // Its SRV records are not for those who name a port.
    assert_candidates(
        &dns,
        "turn:closed.test:7?transport=udp",
        &["127.0.1.3:7 over udp"],
    );
}

#[test]
fn a_name_without_a_port_has_the_services_that_its_domain_offers() {
    let Some(dns) = Dns::start() else { return };
    let by_priority = [
        "127.0.1.2:4000 over udp",
        "[::1]:3479 over udp",
        "127.0.1.1:3479 over udp",
    ];
    assert_candidates(&dns, "turn:fleet.test?transport=udp", &by_priority);
    // There is no address to fall back to for TCP.
    assert_candidates(&dns, "turn:fleet.test", &by_priority);
    let aliased = ["[::1]:443 over tls", "127.0.1.1:443 over tls"];
    assert_candidates(&dns, "turns:fleet.test", &aliased);
    assert_candidates(&dns, "turns:fleet?transport=tcp", &aliased);
    assert_candidates(&dns, "stun:fleet.test", &["127.0.1.2:3480 over udp"]);
}

#[test]
fn a_name_without_services_has_its_addresses_on_the_default_port() {
    let Some(dns) = Dns::start() else { return };
    let each = ["127.0.1.2:3478 over udp", "127.0.1.2:3478 over tcp"];
    assert_candidates(&dns, "turn:two.test", &each);
    assert_candidates(&dns, "turns:two.test", &["127.0.1.2:5349 over tls"]);
    // Closed are turn: by UDP and TCP; nothing is said of turns:.
    assert_candidates(&dns, "turns:closed.test", &["127.0.1.3:5349 over tls"]);
}

#[test]
fn what_cannot_be_found_says_why() {
    let Some(dns) = Dns::start() else { return };
    for (uri, why) in [
        (
            "turn:closed.test",
            "closed.test: its SRV records say that it has no such service",
        ),
        ("turn:nowhere.test", "nowhere.test: there is no such name"),
        ("turn:nowhere.test:7", "nowhere.test: there is no such name"),
        ("turn:empty.test.:7", "empty.test.: the name has no address"),
        (
            "turn:astray.test?transport=udp",
            "astray.test: missing.test.: there is no such name",
        ),
    ] {
        assert_refused(dns.address, uri, &format!("cannot resolve {why}"));
    }
}

#[test]
fn a_silent_server_is_not_waited_for_long() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let why = "cannot resolve one.test.: DNS does not answer";
    assert_refused(silent.local_addr().unwrap(), "turn:one.test.:7", why);
    assert!(began.elapsed() < LIMIT + Duration::from_secs(1));
}
