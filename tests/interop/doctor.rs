//! `turnfleet doctor` finds what is wrong, says what to do, and finds nothing else; where all is well it says so.
//!
//! ```text
//!  relay  11.70.0.2, 2a0b:70::2  --- router ---  client 11.71.0.2
//! ```

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::fleet::Fleet;
use crate::netns::{self, Namespace};
use crate::tools;

const SECRET: &str = "north-by-northwest";
const RELAY: [&str; 2] = ["11.70.0.2", "2a0b:70::2"];
/// What the router has towards the client: the first hop.
const ROUTER: &str = "11.71.0.1";
const FAKETIME: &str = "/usr/bin/faketime";
/// A run has an end, whatever it meets.
const LIMIT: Duration = Duration::from_secs(60);

/// The namespaces, and the certificate of the relay.
struct Clinic {
    host: Namespace,
    router: Namespace,
    client: Namespace,
    folder: tempfile::TempDir,
    key: KeyPair,
}

/// What a run of the doctor has found.
struct Visit {
    findings: Vec<Value>,
    code: Option<i32>,
}

impl Visit {
    fn ids(&self, state: &str) -> Vec<&str> {
        let found = self.findings.iter().filter(|it| it["state"] == state);
        let mut ids: Vec<&str> = found.map(|it| it["id"].as_str().unwrap()).collect();
        ids.dedup();
        ids
    }

    /// That `id` alone has failed, and that what is said of it holds `words`, and the fix `remedy`.
    #[track_caller]
    fn assert_fails(&self, id: &str, words: &str, remedy: &str) {
        assert_eq!(self.ids("fail"), [id], "{:#?}", self.findings);
        assert_eq!(self.code, Some(1));
        let mut failed = self.findings.iter().filter(|it| it["state"] == "fail");
        let finding = failed.next().unwrap();
        let text = finding["text"].as_str().unwrap();
        assert!(text.contains(words), "{finding}");
        assert!(
            finding["fix"].as_str().unwrap().contains(remedy),
            "{finding}"
        );
    }

    /// That nothing has failed, and that these have passed.
    #[track_caller]
    fn assert_green(&self, passed: &[&str]) {
        assert_eq!(self.ids("fail"), [""; 0], "{:#?}", self.findings);
        assert_eq!(self.code, Some(0));
        let ids = self.ids("pass");
        for id in passed {
            assert!(ids.contains(id), "{id}: {:#?}", self.findings);
        }
    }
}

impl Clinic {
    /// `None` where this machine cannot make one.
    #[track_caller]
    fn new() -> Option<Self> {
        if !tools::present(&netns::PROGRAMS) || !tools::is_root() {
            return None;
        }
        let router = Namespace::new("rout");
        router.forward();
        let host = Namespace::new("clin");
        host.link(&router, "card0", RELAY[0], "11.70.0.1");
        host.ip(&["route", "add", "default", "via", "11.70.0.1"]);
        host.ip6("card0", RELAY[1]);
        let client = Namespace::new("pati");
        client.link(&router, "card0", "11.71.0.2", ROUTER);
        client.ip(&["route", "add", "default", "via", ROUTER]);
        let clinic = Self {
            host,
            router,
            client,
            folder: tempfile::tempdir().unwrap(),
            key: KeyPair::generate().unwrap(),
        };
        fs::write(clinic.file("key.pem"), clinic.key.serialize_pem()).unwrap();
        clinic.certify(2100);
        fs::copy(clinic.file("chain.pem"), clinic.file("ca.pem")).unwrap();
        Some(clinic)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives the relay a certificate that ends with the year before.
    #[track_caller]
    fn certify(&self, year: i32) {
        let mut parameters = CertificateParams::new(RELAY.map(str::to_owned)).unwrap();
        parameters.not_after = date_time_ymd(year, 1, 1);
        let certificate = parameters.self_signed(&self.key).unwrap();
        let next = self.file("next.pem");
        fs::write(&next, certificate.pem()).unwrap();
        fs::rename(next, self.file("chain.pem")).unwrap();
    }

    /// A fleet whose relay says that its IPv4 address is `public`.
    #[track_caller]
    fn fleet(&self, public: &str) -> Fleet {
        let (chain, key) = (self.file("chain.pem"), self.file("key.pem"));
        let own = RELAY[1];
        let publics = [format!("{public}/{}", RELAY[0]), format!("{own}/{own}")];
        let fixed = ["--relays", "1", "--shared-secret", SECRET];
        let listen = ["--listen-ip", RELAY[0], "--listen-ip", RELAY[1]];
        let public = ["--public-ip", &publics[0], "--public-ip", &publics[1]];
        let files = [chain.to_str().unwrap(), key.to_str().unwrap()];
        let tls = ["--tls-cert", files[0], "--tls-key", files[1]];
        Fleet::up_by(
            self.host.command(env!("CARGO_BIN_EXE_turnfleet")),
            &[&fixed[..], &listen, &public, &tls].concat(),
        )
    }

    /// Runs the doctor in `place`.
    #[track_caller]
    fn visit_in(
        &self,
        place: &Namespace,
        environment: &[(&str, String)],
        arguments: &[&str],
    ) -> Visit {
        let mut command = place.command(env!("CARGO_BIN_EXE_turnfleet"));
        let ca = self.file("ca.pem");
        command.args(["doctor", "--json", "--ca"]).arg(ca);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let began = std::time::Instant::now();
        let output = command.output().unwrap();
        assert!(began.elapsed() < LIMIT);
        let findings = serde_json::from_slice(&output.stdout);
        Visit {
            findings: findings.unwrap_or_else(|error| panic!("{error}: {output:?}")),
            code: output.status.code(),
        }
    }

    /// Runs the doctor where the client is.
    #[track_caller]
    fn visit(&self, arguments: &[&str]) -> Visit {
        self.visit_in(&self.client, &[], arguments)
    }
}

/// The URIs of the relay: UDP, TCP and TLS.
fn uris(fleet: &Fleet) -> [String; 3] {
    let relay = fleet.relays().remove(0);
    let (port, tls) = (relay.udp.port(), relay.tls.port());
    let ip = RELAY[0];
    [
        format!("turn:{ip}:{port}?transport=udp"),
        format!("turn:{ip}:{port}?transport=tcp"),
        format!("turns:{ip}:{tls}?transport=tcp"),
    ]
}

/// What a fleet passes that is reached by each transport.
const HEALTHY: [&str; 19] = [
    "address.public",
    "reach.udp",
    "reach.tcp",
    "reach.tls",
    "tls.chain",
    "tls.name",
    "tls.expiry",
    "tls.versions",
    "credentials.accepted",
    "allocate.ipv4",
    "allocate.ipv6",
    "peers.private",
    "relay.pairs",
    "path.mtu",
    "ice.reflexive",
    "ice.relay",
    "clock.server",
    "relay.address",
    "relay.ports",
];

#[test]
fn the_doctor_is_content_with_a_healthy_fleet_and_finds_what_is_wrong_with_networks() {
    let Some(clinic) = Clinic::new() else {
        return;
    };
    let fleet = clinic.fleet(RELAY[0]);
    let all = uris(&fleet);
    let [udp, tcp, tls] = all.each_ref().map(String::as_str);
    let secret = ["--secret", SECRET];

    let visit = clinic.visit(&[&[udp, tcp, tls][..], &secret].concat());
    visit.assert_green(&HEALTHY);

    // The controller names the same relay, and gives credentials.
    let token = clinic.file("token");
    fs::write(&token, fleet.text("api_token")).unwrap();
    let token = token.to_str().unwrap();
    let controller = ["--controller", fleet.text("http"), "--token-file", token];
    let visit = clinic.visit_in(&clinic.host, &[], &controller);
    visit.assert_green(&[
        "controller.answers",
        "controller.nodes",
        "clock.controller",
        "credentials.form",
        "credentials.accepted",
        "relay.pairs",
    ]);

    // A firewall on the way: the router is the last that answers.
    let port = fleet.relays()[0].udp.port();
    clinic.router.nft(&format!(
        "table ip cut {{ chain pass {{ type filter hook forward priority filter; udp dport {port} drop; }}\n }}"
    ));
    let visit = clinic.visit(&[&[udp, tcp][..], &secret].concat());
    visit.assert_fails("reach.udp", ROUTER, "open the UDP port in the firewall");
    assert!(visit.ids("pass").contains(&"relay.pairs"));
    clinic.router.nft("delete table ip cut");

    // A firewall on the relay, which both ends see.
    clinic.host.nft(
        "table inet wall { chain in { type filter hook input priority filter; \
         iifname != \"lo\" udp dport 49152-65535 drop; }\n }",
    );
    let visit = clinic.visit(&[&[udp][..], &secret].concat());
    visit.assert_fails(
        "relay.ports",
        "no datagram to 11.70.0.2 gets in",
        "open the relay port range for UDP",
    );
    let on_relay = [&[udp, "--on-relay"][..], &secret].concat();
    let visit = clinic.visit_in(&clinic.host, &[], &on_relay);
    visit.assert_fails(
        "host.firewall",
        "the chain inet wall in drops it",
        "input chain",
    );
    assert!(visit.ids("pass").contains(&"host.listeners"));
    clinic.host.nft("delete table inet wall");

    // One that lets nothing out. Data between two allocations of the relay never leaves it, and hears nothing of that.
    clinic.host.nft(
        "table inet wall { chain out { type filter hook output priority filter; \
         oifname != \"lo\" udp sport 49152-65535 drop; }\n }",
    );
    let visit = clinic.visit(&[&[udp][..], &secret].concat());
    visit.assert_fails(
        "relay.ports",
        "nothing gets back from the relayed ports",
        "let UDP out",
    );
    clinic.host.nft("delete table inet wall");

    drop(fleet);
    let fleet = clinic.fleet("11.99.0.9");
    let visit = clinic.visit(&[uris(&fleet)[0].as_str(), "--secret", SECRET]);
    visit.assert_fails(
        "relay.address",
        "what is sent to 11.70.0.2 does: the external address is wrong",
        "--public-ip EXTERNAL/LOCAL",
    );
}

#[test]
fn the_doctor_finds_what_is_wrong_with_secrets_clocks_certificates_and_settings() {
    if !tools::present(&[FAKETIME]) {
        return;
    }
    let Some(clinic) = Clinic::new() else {
        return;
    };
    let fleet = clinic.fleet(RELAY[0]);
    let all = uris(&fleet);
    let [udp, _, tls] = all.each_ref().map(String::as_str);

    // The port of TLS, in a URI that has none.
    let bare = tls.replacen("turns:", "turn:", 1);
    let visit = clinic.visit(&[bare.as_str(), "--secret", SECRET]);
    visit.assert_fails("reach.tcp", "TLS is spoken on that port", "write turns:");

    let visit = clinic.visit(&[udp, "--secret", "south-by-southeast"]);
    visit.assert_fails(
        "credentials.accepted",
        "the relay has another secret",
        "use the secret",
    );

    // Two hours ahead of the relay.
    let libraries = fs::read_dir("/usr/lib").unwrap();
    let mut libraries = libraries.map(|it| it.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|file| file.exists()).unwrap();
    let clock = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", "+7200".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let visit = clinic.visit_in(&clinic.client, &clock, &[udp, "--secret", SECRET]);
    visit.assert_fails("clock.server", "seconds behind the one here", "run NTP");
    assert!(visit.ids("pass").contains(&"relay.ports"));

    // An address where clients learn their own, and get no relay.
    let stun = udp.replace("turn:", "stun:").replace("?transport=udp", "");
    let visit = clinic.visit(&[stun.as_str(), "--secret", SECRET]);
    visit.assert_fails("ice.relay", "no relay candidate", "give clients turn: URIs");

    let file = clinic.file("homeserver.yaml");
    let dtls = tls.replace("transport=tcp", "transport=udp");
    let settings = format!(
        "server_name: example.org\nturn_uris: [\"{udp}\", \"{dtls}\"]\n\
         turn_shared_secret: {SECRET}\nturn_user_lifetime: 1h\n"
    );
    fs::write(&file, settings).unwrap();
    let visit = clinic.visit(&["--homeserver", file.to_str().unwrap()]);
    visit.assert_fails(
        "homeserver.uris",
        "DTLS, which no browser speaks",
        "write turn_uris as",
    );
    let passed = visit.ids("pass");
    for id in ["homeserver.secret", "homeserver.lifetime", "relay.ports"] {
        assert!(passed.contains(&id), "{id}: {passed:?}");
    }

    // The relay takes up the file within some seconds.
    clinic.certify(2020);
    let visit = tools::eventually("the certificate is replaced", LIMIT, || {
        let visit = clinic.visit(&[tls, "--secret", SECRET]);
        (visit.code == Some(1)).then_some(visit)
    });
    visit.assert_fails("tls.expiry", "it expired", "renew the certificate");
}

#[test]
fn what_cannot_be_looked_at_is_told_as_a_mistake_on_the_command_line() {
    for arguments in [
        &[][..],
        &["turn:"],
        &["--homeserver", "nowhere.yaml"],
        &["turn:127.0.0.1", "--username", "alice"],
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .arg("doctor")
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}
