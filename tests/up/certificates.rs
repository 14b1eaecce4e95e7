//! The fleet's certificate from a certificate authority: ordered, shown, renewed and kept, by a whole fleet and an authority that
//! really looks for its answers.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::Value;
use turnfleet_turn::client::AllocateOptions;

use crate::acme::Authority;
use crate::client::{Caller, Credential, unix_now};
use crate::fleet::{Fleet, Place, Ports, SOON, within};

const DOMAIN: &str = "turn.example.org";

/// An authority, and a fleet of one relay that orders from it.
struct World {
    place: Place,
    ports: Ports,
    authority: Authority,
}

impl World {
    /// One whose relay answers by `challenge`.
    fn new(challenge: &str) -> Self {
        let (place, ports) = (Place::new(), Ports::free());
        let answers = match challenge {
            "http-01" => ports.0 + 25,
            _ => ports.0 + 10,
        };
        let authority = Authority::start(
            &place.0.path().join("root.pem"),
            SocketAddr::from(([127, 0, 0, 1], answers)),
        );
        let world = Self {
            place,
            ports,
            authority,
        };
        let http = match challenge {
            "http-01" => format!("[relay.tls]\nhttp_challenges = ['127.0.0.1:{answers}']\n"),
            _ => String::new(),
        };
        let text = format!(
            "relays = 1\nshared-secret = 'north'\nlisten-ip = ['127.0.0.1']\n[controller.acme]\ndirectory_url = '{}'\n\
             contact = ['mailto:turn@example.org']\ndomains = ['{DOMAIN}']\nchallenge = '{challenge}'\nroot_file = '{}'\n\
             accept_terms = true\nspread_seconds = 2\n{http}",
            world.authority.directory(),
            world.root().display(),
        );
        fs::write(world.file(), text).unwrap();
        world
    }

    fn root(&self) -> PathBuf {
        self.place.0.path().join("root.pem")
    }

    fn file(&self) -> PathBuf {
        self.place.0.path().join("turnfleet.toml")
    }

    #[track_caller]
    fn start(&self) -> Fleet {
        let file = self.file();
        self.place
            .start(self.ports, &["--config", file.to_str().unwrap()])
    }

    fn stream(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.ports.0 + 10)).unwrap()
    }

    /// The certificate that a client sees who trusts the authority alone; `None` where the handshake fails.
    fn shown(&self) -> Option<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.root()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(DOMAIN).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = self.stream();
        stream.set_read_timeout(Some(SOON)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).ok()?;
        }
        Some(tls.peer_certificates()?.first()?.to_vec())
    }

    fn caller(&self) -> Caller {
        let credential = Credential::synapse("north", "@alice:example.org");
        Caller::tls(self.stream(), DOMAIN, &self.root(), &credential)
    }

    /// Lets the certificates that are signed from here on end so late that they are renewed after `seconds`.
    fn renew_after(&self, seconds: u64) {
        self.authority.behave(|manner| {
            manner.life = Duration::from_secs(120);
            manner.backdate = Duration::from_secs(80 - seconds);
        });
    }
}

#[track_caller]
fn wait_for(fleet: &Fleet, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let mut known = Value::Null;
    within(SOON, what, || {
        known = fleet.api("/v1/certificates");
        condition(&known)
    });
    known
}

#[track_caller]
fn has_metric(fleet: &Fleet, line: &str) {
    let request = ureq::get(format!("{}/metrics", fleet.text("/http")))
        .config()
        .proxy(None)
        .build();
    let text = request.call().unwrap().body_mut().read_to_string().unwrap();
    assert!(text.contains(line), "{line} in {text}");
}

#[test]
fn a_certificate_is_ordered_and_renewed_while_a_client_keeps_its_allocation() {
    let world = World::new("tls-alpn-01");
    // A client has to see the first one before.
    world.renew_after(15);
    let fleet = world.start();
    let first = wait_for(&fleet, "a certificate", |known| !known["fleet"].is_null());
    world.authority.behave(|manner| {
        manner.backdate = Duration::from_secs(60);
        manner.life = Duration::from_secs(90 * 86_400);
    });
    assert_eq!(first["fleet"]["names"], serde_json::json!([DOMAIN]));
    assert_eq!(first["order"]["under_way"], false);
    within(SOON, "it is shown", || world.shown().is_some());
    let shown = world.shown();
    let mut caller = world.caller();
    caller.allocate(AllocateOptions::default()).unwrap();
    wait_for(&fleet, "another one", |known| {
        known["fleet"]["not_after"] != first["fleet"]["not_after"]
    });
    within(SOON, "it is shown", || world.shown() != shown);
    caller.refresh().unwrap();
    world.caller().allocate(AllocateOptions::default()).unwrap();

    let seen = world.authority.seen();
    assert_eq!((seen.accounts, seen.certificates, seen.wrong), (1, 2, 0));
    within(SOON, "the relay tells its end", || {
        let known = fleet.api("/v1/certificates");
        known["relays"][0]["not_after"] == known["fleet"]["not_after"]
    });
    let told = fleet.order(&["certificates"]);
    assert_eq!(told["relays"][0]["state"], "good", "{told}");
    let uris = fleet.api("/turn?service=turn&username=a")["uris"].to_string();
    assert!(uris.contains(&format!("turns:{DOMAIN}:")), "{uris}");
    has_metric(
        &fleet,
        "turnfleet_controller_acme_orders_total{outcome=\"issued\"} 2\n",
    );
    within(SOON, "the log tells of it", || {
        world.place.said().contains("certificate.issued")
    });
    let said = world.place.said();
    // Nothing secret is told, and nobody is challenged any more.
    assert!(!told.to_string().contains("PRIVATE") && !said.contains("PRIVATE"));
}

#[test]
fn a_challenge_is_answered_by_http_and_a_restarted_fleet_has_its_certificate_at_once() {
    let world = World::new("http-01");
    let mut fleet = world.start();
    wait_for(&fleet, "a certificate", |known| !known["fleet"].is_null());
    within(SOON, "it is shown", || world.shown().is_some());
    let shown = world.shown();
    assert!(fleet.signal("TERM").success());
    world
        .authority
        .behave(|manner| manner.refuses = Some("rateLimited"));
    let fleet = world.start();
    assert_eq!(world.shown(), shown);
    let known = fleet.api("/v1/certificates");
    assert_eq!(known["order"]["failures"], 0, "{known}");
    assert_eq!(world.authority.seen().orders, 1);
}

#[test]
fn a_failure_is_told_and_rested_after_and_the_certificate_in_use_stays() {
    let world = World::new("tls-alpn-01");
    world.renew_after(6);
    let fleet = world.start();
    wait_for(&fleet, "a certificate", |known| !known["fleet"].is_null());
    world
        .authority
        .behave(|manner| manner.refuses = Some("rateLimited"));
    within(SOON, "it is shown", || world.shown().is_some());
    let shown = world.shown();
    let mut caller = world.caller();
    caller.allocate(AllocateOptions::default()).unwrap();
    let failed = wait_for(&fleet, "a failure", |known| known["order"]["failures"] == 1);
    assert_eq!(failed["order"]["last_failure"], "rate_limited", "{failed}");
    let next = failed["order"]["next_at"].as_u64().unwrap();
    assert!((3500..4600).contains(&(next - unix_now())), "{failed}");
    assert_eq!(world.shown(), shown);
    caller.refresh().unwrap();
    has_metric(
        &fleet,
        "turnfleet_controller_acme_failures_total{reason=\"rate_limited\"} 1\n",
    );
    within(SOON, "the log tells of it", || {
        world.place.said().contains("certificate.failed")
    });
}

#[test]
fn a_wrong_answer_brings_no_certificate() {
    let world = World::new("tls-alpn-01");
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], world.ports.0 + 30));
    world.authority.behave(|manner| manner.place = elsewhere);
    let fleet = world.start();
    let failed = wait_for(&fleet, "a failure", |known| known["order"]["failures"] == 1);
    assert_eq!(failed["order"]["last_failure"], "challenge", "{failed}");
    let error = failed["order"]["last_error"].as_str().unwrap();
    assert!(
        error.contains(DOMAIN) && error.contains("handshake"),
        "{error}"
    );
    assert!(failed["fleet"].is_null() && world.shown().is_none());
    let seen = world.authority.seen();
    assert_eq!((seen.wrong, seen.certificates), (1, 0));
}

#[test]
fn an_order_outlives_the_process_that_began_it() {
    let world = World::new("tls-alpn-01");
    world.authority.behave(|manner| manner.waits = true);
    let mut fleet = world.start();
    within(SOON, "the order is under way", || {
        world.authority.seen().asked == 1
    });
    fleet.signal("KILL");
    let fleet = world.start();
    let under_way = fleet.api("/v1/certificates");
    assert_eq!(under_way["order"]["under_way"], true, "{under_way}");
    world.authority.behave(|manner| manner.waits = false);
    wait_for(&fleet, "a certificate", |known| !known["fleet"].is_null());
    within(SOON, "it is shown", || world.shown().is_some());
    let seen = world.authority.seen();
    assert_eq!((seen.accounts, seen.orders, seen.certificates), (1, 1, 1));
}

#[test]
fn a_certificate_of_files_and_one_that_is_ordered_exclude_each_other() {
    let world = World::new("tls-alpn-01");
    let file = world.file();
    let arguments = [
        "--config",
        file.to_str().unwrap(),
        "--tls-cert",
        "a",
        "--tls-key",
        "b",
    ];
    let mut command = world.place.up(world.ports, &arguments);
    assert!(!command.status().unwrap().success());
    let said = world.place.said();
    assert!(
        said.contains("--tls-cert") && said.contains("acme.directory_url"),
        "{said}"
    );
}
