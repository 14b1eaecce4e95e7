//! HAProxy before the relay, which then still knows its clients; and an HTTPS site behind the relay, on the relay's port.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use turnfleet_turn::client::AllocateOptions;
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::client::{Caller, Credential};
use crate::coturn;
use crate::fleet::{Fleet, free_ports};
use crate::guide::block;
use crate::strangers::{connect, is_open};
use crate::tools;

const GUIDE: &str = include_str!("../../docs/guides/synapse.md");
const HAPROXY: &str = "/usr/sbin/haproxy";
const OPENSSL: &str = "/usr/bin/openssl";
pub(crate) const CURL: &str = "/usr/bin/curl";
/// The programs that a [`HaProxy`] needs.
pub(crate) const PROGRAMS: [&str; 2] = [HAPROXY, OPENSSL];
const SECRET: &str = "north-by-northwest";
const LIMIT: Duration = Duration::from_secs(10);

/// A running HAProxy; it ends when the value is dropped.
pub(crate) struct HaProxy {
    child: Child,
    _folder: tempfile::TempDir,
}

impl HaProxy {
    /// Runs with `sections` and a certificate of its own in `$FOLDER/site.pem`, until all of `ports` take connections.
    #[track_caller]
    pub(crate) fn run(sections: &str, ports: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = certificate(folder.path());
        let read = |file| fs::read_to_string(file).unwrap();
        fs::write(folder.path().join("site.pem"), read(chain) + &read(key)).unwrap();
        let defaults =
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n";
        let sections = sections.replace("$FOLDER", folder.path().to_str().unwrap());
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, format!("{defaults}{sections}")).unwrap();
        let child = Command::new(HAPROXY)
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        for port in ports {
            tools::eventually("HAProxy listens", LIMIT, || TcpStream::connect(port).ok());
        }
        Self {
            child,
            _folder: folder,
        }
    }

    /// An HTTPS server at `place`, whose page says that it is the site.
    #[track_caller]
    pub(crate) fn site(place: SocketAddr) -> Self {
        let section = format!(
            "frontend site\n mode http\n bind {place} ssl crt $FOLDER/site.pem alpn h2,http/1.1\n \
             http-request return status 200 content-type text/plain string \"the site\"\n"
        );
        Self::run(&section, &[place])
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The files of a certificate in `folder`, and of its key.
#[track_caller]
pub(crate) fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let made = Command::new(OPENSSL)
        .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-subj", "/CN=site", "-keyout"])
        .args([&key, Path::new("-out"), &chain])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (chain, key)
}

/// `N` addresses on loopback whose ports are free, and stay so for who asked.
pub(crate) fn free<const N: usize>() -> [SocketAddr; N] {
    let mut ports = free_ports()..;
    std::array::from_fn(|_| SocketAddr::from(([127, 0, 0, 1], ports.next().unwrap())))
}

/// A relay with `listeners` besides one for UDP, and with `settings`.
fn fleet(listeners: &str, settings: &[&str]) -> Fleet {
    let [udp] = free();
    let listeners = format!("relay.listeners=[{{transport='udp',address='{udp}'}},{listeners}]");
    let fixed = ["--relays", "1", "--shared-secret", SECRET];
    let listeners = ["--set", &listeners];
    Fleet::up(&[&fixed[..], &coturn::OLD_CHANNELS, &listeners, settings].concat())
}

/// A pair of clients has its say by way of `server`. One message each: the tool loses records that arrive together.
#[track_caller]
fn talks(server: SocketAddr, transport: &[&str]) {
    let fixed = [
        "-t", "-y", "-n", "1", "-m", "1", "-u", "alice", "-W", SECRET,
    ];
    let output = coturn::uclient(server, &[&fixed[..], transport].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let totals = coturn::totals(&text);
    let all = totals.is_some_and(|(sent, received)| sent > 0 && sent == received);
    assert!(all, "{transport:?}: {output:?}");
}

#[test]
fn a_controller_that_dies_behind_the_balancer_of_the_guide_costs_no_request() {
    if !tools::present(&PROGRAMS) {
        return;
    }
    let [balancer, synapse, one, two, three] = free();
    let controllers = [one, two, three];
    let answering = |place: SocketAddr| {
        let section = format!(
            "frontend controller\n mode http\n bind {place}\n \
             http-request return status 200 content-type application/json string \"{{}}\"\n"
        );
        HaProxy::run(&section, &[place])
    };
    let mut running: Vec<HaProxy> = controllers.map(answering).into();

    let (bind, synapse) = (format!("bind {balancer}"), synapse.to_string());
    let places = [
        ("bind :443", bind.as_str()),
        ("/etc/ssl/matrix.pem", "$FOLDER/site.pem"),
        ("127.0.0.1:8008", synapse.as_str()),
    ];
    let text = block(GUIDE, "haproxy", &places);
    let server = "server controller 127.0.0.1:8080";
    let line = text.lines().find(|line| line.contains(server)).unwrap();
    let lines = controllers.map(|place| {
        let other = format!("server controller-{} {place}", place.port());
        line.replace(server, &other)
    });
    let _balancer = HaProxy::run(&text.replace(line, &lines.join("\n")), &[balancer]);

    let tls = TlsConfig::builder().disable_verification(true).build();
    let config = Agent::config_builder()
        .proxy(None)
        .tls_config(tls)
        .http_status_as_error(false);
    let agent: Agent = config.build().into();
    let url = format!("https://{balancer}/_matrix/client/v3/voip/turnServer");
    for turn in 0..300 {
        if turn == 100 {
            drop(running.pop());
        }
        let answer = agent.get(&url).call().unwrap();
        assert_eq!(answer.status(), 200, "request {turn}");
    }
}

fn section(name: &str, bind: SocketAddr, server: SocketAddr, options: &str) -> String {
    format!("listen {name}\n bind {bind}\n server relay {server} {options}\n")
}

#[test]
fn the_relay_knows_the_clients_of_a_balancer() {
    if !tools::present(&[HAPROXY, OPENSSL, coturn::UCLIENT]) {
        return;
    }
    let [both, v1, v2, ciphered, passed] = free();
    let from = "proxy_protocol_from=['127.0.0.0/8']";
    let fleet = fleet(
        &format!("{{transport='tcp+tls',address='{both}',{from}}}"),
        &[],
    );
    let sections = [
        section("v1", v1, both, "send-proxy"),
        section("v2", v2, both, "send-proxy-v2"),
        section(
            "ciphered",
            ciphered,
            both,
            "send-proxy-v2-ssl-cn ssl verify none",
        ),
        section("passed", passed, both, "send-proxy-v2"),
    ];
    let _balancer = HaProxy::run(&sections.concat(), &[v1, v2, ciphered, passed]);
    let credential = Credential::synapse(SECRET, "@alice:example.org");
    for balancer in [v1, v2, ciphered] {
        let stream = TcpStream::connect(balancer).unwrap();
        let own = stream.local_addr().unwrap();
        let mut caller = Caller::tcp(stream, &credential);
        let allocated = caller.allocate(AllocateOptions::default()).unwrap();
        assert_eq!(allocated.mapped, own);
        tools::eventually("the client in the log", LIMIT, || {
            fleet.log().contains(&own.to_string()).then_some(())
        });
    }
    talks(passed, &["-S"]);
}

#[test]
fn each_client_of_a_balancer_has_a_limit_of_its_own() {
    if !tools::present(&[HAPROXY, OPENSSL]) {
        return;
    }
    let [server, balancer] = free();
    let from = "proxy_protocol_from=['127.0.0.0/8']";
    let _fleet = fleet(
        &format!("{{transport='tcp',address='{server}',{from}}}"),
        // Shards have a share of the limit each, and the kernel deals connections to them by chance.
        &[
            "--set",
            "relay.shards=1",
            "--set",
            "relay.stream.unauthenticated_connections_per_source=2",
        ],
    );
    let section = section("tcp", balancer, server, "send-proxy-v2");
    let _balancer = HaProxy::run(&section, &[balancer]);
    let patient = connect("127.0.0.7".parse().unwrap(), balancer);
    let greedy: Vec<_> = (0..5)
        .map(|_| connect("127.0.0.66".parse().unwrap(), balancer))
        .collect();
    tools::eventually("the greedy one in its own way", LIMIT, || {
        let open = greedy.iter().filter(|stream| is_open(stream)).count();
        (open == 2).then_some(())
    });
    assert!(is_open(&patient));
}

#[test]
fn a_site_and_the_relay_share_a_port() {
    if !tools::present(&[HAPROXY, OPENSSL, CURL, coturn::UCLIENT]) {
        return;
    }
    let [shared, site] = free();
    let _site = HaProxy::site(site);
    let _fleet = fleet(
        &format!("{{transport='tcp+tls',address='{shared}',https_backend='{site}'}}"),
        &[],
    );
    for version in ["--http1.1", "--http2"] {
        let output = Command::new(CURL)
            .args(["--silent", "--insecure", "--noproxy", "*"])
            .args(["--max-time", "10", version])
            .arg(format!("https://{shared}/"))
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"the site", "{version}: {output:?}");
    }
    talks(shared, &[]);
    talks(shared, &["-S"]);
}
