//! Two Chromium pages that call each other from two homes, each behind symmetric NAT: without a relay they find no way,
//! with one they talk, whatever the homes' firewalls leave open.
//!
//! ```text
//!  home alic 10.81.0.2 --- box1 11.91.0.2 --+
//!                                           +-- internet --- server 11.93.0.2: a relay, and a site behind its port 443
//!  home bobb 10.82.0.2 --- box2 11.92.0.2 --+
//! ```

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Credential;
use crate::fleet::Fleet;
use crate::haproxy::{self, HaProxy};
use crate::netns::{self, Namespace};
use crate::tools;
use crate::webdriver::{self, Browser};

const SECRET: &str = "north-by-northwest";
/// The machine of the relay and the site.
const SERVER: &str = "11.93.0.2";
/// Where the relay takes UDP and plain TCP.
const PORT: u16 = 3478;
/// How long a call may take until it is connected or given up.
const LIMIT: Duration = Duration::from_secs(90);
/// A NAT box gives every flow a port of its own, and lets nothing in that does not answer (RFC 4787 §4.1, §5).
const SYMMETRIC_NAT: &str = "table ip nat {
    chain out { type nat hook postrouting priority srcnat; oifname card0 masquerade random,fully-random; }
    chain pass { type filter hook forward priority filter; policy drop;
        ct state established,related accept; iifname != card0 accept; }
}";

/// What a home's firewall keeps in, beside what NAT keeps out: nothing, ...
const OPEN: &str = "";
/// ... UDP, ...
const NO_UDP: &str = "meta l4proto udp drop;";
/// ... or everything but TCP to port 443.
const ONLY_443: &str = "oifname card0 tcp dport != 443 drop; meta l4proto != tcp drop;";

/// A browser in a network of its own behind a NAT box. Fields go in order: the browser before its namespace.
struct Home {
    browser: Option<Browser>,
    network: Namespace,
    nat: Namespace,
}

impl Home {
    /// The `k`-th home, with a network that is called `name`.
    #[track_caller]
    fn new(k: u8, name: &str, internet: &Namespace) -> Self {
        let nat = Namespace::new(&format!("box{k}"));
        let outside = [2, 1].map(|host| format!("11.9{k}.0.{host}"));
        nat.link(internet, "card0", &outside[0], &outside[1]);
        nat.ip(&["route", "add", "default", "via", &outside[1]]);
        nat.forward();
        nat.nft(SYMMETRIC_NAT);
        let network = Namespace::new(name);
        let inside = [2, 1].map(|host| format!("10.8{k}.0.{host}"));
        network.link(&nat, "card0", &inside[0], &inside[1]);
        network.ip(&["route", "add", "default", "via", &inside[1]]);
        Self {
            browser: None,
            network,
            nat,
        }
    }

    /// Opens the site with the browser, which is started for it the first time.
    #[track_caller]
    fn visit(&mut self) {
        let browser = &mut self.browser;
        self.network.inside(|| {
            let browser = browser.get_or_insert_with(|| Browser::start(&[]));
            browser.open(&format!("https://{SERVER}/"));
        });
    }

    /// Puts `firewall` in the place of the one before.
    #[track_caller]
    fn shut(&self, firewall: &str) {
        self.nat.nft(&format!(
            "add table ip firewall; delete table ip firewall; table ip firewall {{
                chain pass {{ type filter hook forward priority filter - 1; {firewall} }}
            }}"
        ));
    }

    /// Takes one step of the call in the page.
    #[track_caller]
    fn step(&self, name: &str, given: &Value) -> Value {
        let browser = self.browser.as_ref().expect("a page is open");
        let arguments = json!([name, given]);
        self.network
            .inside(|| browser.run(include_str!("party.js"), &arguments))
    }

    /// What a program prints that is run here.
    #[track_caller]
    fn output(&self, program: &str, arguments: &[&str]) -> String {
        let mut command: Command = self.network.command(program);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The browser can be ended only from where it lives.
impl Drop for Home {
    fn drop(&mut self) {
        let browser = self.browser.take();
        self.network.inside(|| drop(browser));
    }
}

/// Two homes, and what they reach; all of it goes with the value, the namespaces last.
struct World {
    homes: [Home; 2],
    _site: HaProxy,
    _fleet: Fleet,
    _networks: [Namespace; 2],
}

impl World {
    #[track_caller]
    fn new() -> Self {
        let internet = Namespace::new("core");
        internet.forward();
        let server = Namespace::new("serv");
        server.link(&internet, "card0", SERVER, "11.93.0.1");
        server.ip(&["route", "add", "default", "via", "11.93.0.1"]);
        let site = SocketAddr::from(([127, 0, 0, 1], 8443));
        let listeners = format!(
            "relay.listeners=[{{transport='udp',address='{SERVER}:{PORT}'}},{{transport='tcp',address='{SERVER}:{PORT}'}},\
             {{transport='tcp+tls',address='{SERVER}:443',https_backend='{site}'}}]"
        );
        let fleet = Fleet::up_by(
            server.command(env!("CARGO_BIN_EXE_turnfleet")),
            &[
                &["--relays", "1", "--shared-secret", SECRET][..],
                &["--listen-ip", SERVER, "--set", &listeners],
            ]
            .concat(),
        );
        let site = server.inside(|| HaProxy::site(site));
        let homes = [(1, "alic"), (2, "bobb")].map(|(k, name)| Home::new(k, name, &internet));
        Self {
            homes,
            _site: site,
            _fleet: fleet,
            _networks: [server, internet],
        }
    }

    /// Lets one page call the other with the servers at `uris`, and carries their descriptions and candidates until both
    /// are connected, or have given up: then the candidates are returned as an error.
    #[track_caller]
    fn call(&mut self, firewall: &str, uris: &[String]) -> Result<(), String> {
        for home in &mut self.homes {
            home.shut(firewall);
            home.visit();
        }
        let credential = Credential::synapse(SECRET, "@alice:example.org");
        let configuration = json!({ "iceTransportPolicy": "all", "iceServers": [{
            "urls": uris, "username": credential.username, "credential": credential.password,
        }] });
        let [caller, callee] = &self.homes;
        let offer = caller.step("offer", &configuration);
        let given = json!({ "configuration": configuration, "offer": offer });
        let answer = callee.step("answer", &given);
        caller.step("accept", &answer);
        let mut found = json!([]);
        let mut tried = String::new();
        let connected = tools::eventually("the call connects or fails", LIMIT, || {
            let states = [callee, caller].map(|home| {
                let mut told = home.step("trickle", &found);
                found = told["candidates"].take();
                tried += &found.to_string();
                told["state"].take()
            });
            match states.each_ref().map(Value::as_str) {
                [Some("connected"), Some("connected")] => Some(true),
                [Some("failed"), Some("failed")] => Some(false),
                _ => None,
            }
        });
        if connected { Ok(()) } else { Err(tried) }
    }

    /// Has the connected pages talk to each other; what each says of it.
    #[track_caller]
    fn talk(&self) -> [Value; 2] {
        let [caller, callee] = &self.homes;
        std::thread::scope(|scope| {
            let ends = [(caller, "from alice"), (callee, "from bob")];
            let ends =
                ends.map(|(home, word)| scope.spawn(move || home.step("talk", &json!(word))));
            ends.map(|end| end.join().unwrap())
        })
    }

    /// A call that finds its way; words and pictures go both ways, through a relay at one end at least.
    #[track_caller]
    fn assert_talks(&mut self, firewall: &str) -> [Value; 2] {
        self.call(firewall, &every_way()).unwrap();
        let outcomes = self.talk();
        let [caller, callee] = &outcomes;
        assert_eq!(caller["heard"], "from bob", "{caller}");
        assert_eq!(callee["heard"], "from alice", "{callee}");
        for outcome in &outcomes {
            assert!(outcome["framesDecoded"].as_u64() > Some(0), "{outcome}");
            let relayed = ["local", "remote"].map(|end| outcome[end] == "relay");
            assert!(relayed.contains(&true), "{outcome}");
        }
        outcomes
    }

    /// As [`World::assert_talks`], and each page reaches its own relay by one of `protocols`.
    #[track_caller]
    fn assert_talks_by(&mut self, firewall: &str, protocols: &[&str]) {
        for outcome in self.assert_talks(firewall) {
            assert_eq!(outcome["local"], "relay", "{outcome}");
            let protocol = outcome["relayProtocol"].as_str();
            let fits = protocol.is_some_and(|it| protocols.contains(&it));
            assert!(fits, "{outcome}");
        }
    }
}

/// A URI of the server.
fn uri(scheme: &str, port: u16, transport: &str) -> String {
    format!("{scheme}:{SERVER}:{port}{transport}")
}

/// Every way to reach the server, as lists name them.
fn every_way() -> [String; 4] {
    [
        uri("stun", PORT, ""),
        uri("turn", PORT, "?transport=udp"),
        uri("turn", PORT, "?transport=tcp"),
        uri("turns", 443, "?transport=tcp"),
    ]
}

#[test]
fn calls_through_symmetric_nat_need_a_relay_and_find_it_whatever_the_firewalls_leave_open() {
    let programs = [
        &netns::PROGRAMS[..],
        &webdriver::PROGRAMS,
        &haproxy::PROGRAMS,
        &[haproxy::CURL],
    ];
    if !tools::present(&programs.concat()) || !tools::is_root() {
        return;
    }
    let mut world = World::new();

    let tried = world.call(OPEN, &[uri("stun", PORT, "")]).unwrap_err();
    for outside in ["11.91.0.2", "11.92.0.2"] {
        assert!(tried.contains(&format!(" {outside} ")), "{tried}");
    }
    world.assert_talks(OPEN);
    world.assert_talks_by(NO_UDP, &["tcp", "tls"]);
    world.assert_talks_by(ONLY_443, &["tls"]);

    // The page came from that port, and so does the site for whoever asks for one protocol only.
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://{SERVER}/");
        let fixed = ["--silent", "--insecure", "--max-time", "10", version];
        let page = world.homes[0].output(haproxy::CURL, &[&fixed[..], &[&url]].concat());
        assert!(page.contains("the site"), "{version}: {page}");
    }
    let plain = format!("http://{SERVER}:{PORT}/");
    let refused = world.homes[0]
        .network
        .command(haproxy::CURL)
        .args(["--silent", "--noproxy", "*", "--max-time", "2", &plain])
        .status();
    // 28 is curl's word for a time-out: no other port is open.
    assert_eq!(refused.unwrap().code(), Some(28));
}
