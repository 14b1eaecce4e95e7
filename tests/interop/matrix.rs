//! A real Synapse behind the proxies of docs/guides/synapse.md, word for word but for the addresses: users get the relays of the
//! moment, by the tokens that Synapse gave them.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::fleet::{Fleet, Relay};
use crate::guide::block;
use crate::haproxy::{self, HaProxy};
use crate::nginx::{self, Nginx};
use crate::synapse::{self, Synapse};
use crate::tools;

const GUIDE: &str = include_str!("../../docs/guides/synapse.md");
const V3: &str = "/_matrix/client/v3/voip/turnServer";
const R0: &str = "/_matrix/client/r0/voip/turnServer";
/// A killed relay is in no answer after that.
const REACTION: Duration = Duration::from_secs(2);
/// For what takes as long as it does.
const LIMIT: Duration = Duration::from_secs(20);

/// A homeserver as its users see it: behind a proxy.
struct Site {
    place: SocketAddr,
    agent: Agent,
    /// The access token of a user.
    token: String,
    user: &'static str,
}

impl Site {
    fn new(place: SocketAddr, synapse: &Synapse, user: &'static str) -> Self {
        let tls = TlsConfig::builder().disable_verification(true).build();
        let config = Agent::config_builder()
            .proxy(None)
            .tls_config(tls)
            .http_status_as_error(false);
        Self {
            place,
            agent: config.build().into(),
            token: synapse.register(user),
            user,
        }
    }

    /// The answer to the bearer of `token` at `path`, with its status; null where it is a page of the proxy's.
    #[track_caller]
    fn ask(&self, path: &str, token: &str) -> (u16, Value) {
        let request = self.agent.get(format!("https://{}{path}", self.place));
        let request = request.header("Authorization", format!("Bearer {token}"));
        let mut answer = request.call().unwrap();
        let body = answer.body_mut().read_json().unwrap_or_default();
        (answer.status().as_u16(), body)
    }

    #[track_caller]
    fn list(&self) -> Value {
        let (status, list) = self.ask(V3, &self.token);
        assert_eq!(status, 200, "{list}");
        list
    }

    /// Whom and what the proxy lets through, and where it sends it.
    #[track_caller]
    fn assert_in_order(&self) {
        for path in [V3, R0] {
            let (status, list) = self.ask(path, &self.token);
            assert_eq!((status, &list["ttl"]), (200, &json!(3600)), "{list}");
        }
        let (_, who) = self.ask("/_matrix/client/v3/account/whoami", &self.token);
        assert_eq!(who["user_id"], format!("@{}:example.org", self.user));
        let (status, refusal) = self.ask(V3, "syt_nobody");
        let unknown = json!("M_UNKNOWN_TOKEN");
        assert_eq!((status, &refusal["errcode"]), (401, &unknown), "{refusal}");
        let preflight = self.agent.options(format!("https://{}{V3}", self.place));
        let preflight = preflight.header("Origin", "https://app.element.io");
        let preflight = preflight.header("Access-Control-Request-Method", "GET");
        let answer = preflight.call().unwrap();
        let origins = answer.headers().get_all("access-control-allow-origin");
        let origins: Vec<_> = origins.iter().collect();
        assert_eq!(origins, ["*"], "{answer:?}");
    }

    /// Its own list, and how long it has taken to forget `relay`, which was killed at `since`.
    #[track_caller]
    fn forgets(&self, relay: &Relay, since: Instant) -> Value {
        let list = tools::eventually("the list forgets the relay", REACTION, || {
            let (status, list) = self.ask(V3, &self.token);
            (status == 200 && !names(&list, relay)).then_some(list)
        });
        let after = since.elapsed();
        tools::tell(&format!(
            "a killed relay left {}'s list after {after:?}",
            self.user
        ));
        assert!(after < REACTION, "{after:?}");
        list
    }
}

/// Whether a list names the relay.
fn names(list: &Value, relay: &Relay) -> bool {
    let (_, places) = synapse::credential(list);
    places.contains(&relay.udp)
}

#[track_caller]
fn kill(relay: &Relay) -> Instant {
    let killed = Instant::now();
    let pid = relay.pid.to_string();
    let killing = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killing.unwrap().success());
    killed
}

#[test]
fn users_of_synapse_are_told_of_living_relays_alone() {
    let programs = [&haproxy::PROGRAMS[..], &[nginx::NGINX, synapse::PYTHON]].concat();
    if !tools::present(&programs) {
        return;
    }
    let own = vec!["turn:192.0.2.1:3478?transport=udp".to_owned()];
    let synapse = Synapse::start(&own);
    let homeserver = format!("controller.matrix.homeserver=http://{}", synapse.place);
    let proxies = "controller.http.trusted_proxies=['127.0.0.1']";
    let talkative = "info,turnfleet_controller=trace,hyper=trace,hyper_util=trace";
    let settings = ["--set", &homeserver, "--set", proxies, "--log", talkative];
    let fleet = Fleet::up(&[&["--relays", "3", "--spawn"][..], &settings].concat());

    let controller = fleet.text("http").trim_start_matches("http://");
    let controller = controller.trim_end_matches('/');
    let [by_nginx, by_haproxy] = haproxy::free();
    let homeserver = synapse.place.to_string();
    let places = [
        ("127.0.0.1:8080", controller),
        ("127.0.0.1:8008", &homeserver),
    ];
    let listen = format!("listen {by_nginx}");
    let of_nginx = [
        ("listen 443", listen.as_str()),
        ("    listen [::]:443 ssl;\n", ""),
        ("/etc/ssl/matrix.pem", "$FOLDER/chain.pem"),
        ("/etc/ssl/matrix.key", "$FOLDER/key.pem"),
    ];
    let configuration = block(GUIDE, "nginx", &[&places[..], &of_nginx].concat());
    let _nginx = Nginx::run(&configuration, by_nginx);
    let bind = format!("bind {by_haproxy}");
    let of_haproxy = [
        ("bind :443", bind.as_str()),
        ("/etc/ssl/matrix.pem", "$FOLDER/site.pem"),
    ];
    let configuration = block(GUIDE, "haproxy", &[&places[..], &of_haproxy].concat());
    let _haproxy = HaProxy::run(&configuration, &[by_haproxy]);

    let sites = [
        Site::new(by_nginx, &synapse, "alice"),
        Site::new(by_haproxy, &synapse, "bob"),
    ];
    for site in &sites {
        site.assert_in_order();
    }
    let relays = fleet.relays();
    let lists = sites.each_ref().map(Site::list);
    let named = |relay: &&Relay| lists.iter().any(|list| names(list, relay));
    let victim = relays.iter().find(named).unwrap();
    let killed = kill(victim);
    for site in &sites {
        let list = site.forgets(victim, killed);
        let (credential, places) = synapse::credential(&list);
        let user = format!(":@{}:example.org", site.user);
        assert!(credential.username.ends_with(&user));
        let mut caller = synapse::caller(places[0], &credential);
        caller.allocate(AllocateOptions::default()).unwrap();
    }
    for site in &sites {
        assert!(!fleet.log().contains(&site.token), "a token in the log");
    }

    drop(fleet);
    for site in &sites {
        tools::eventually("Synapse answers itself", LIMIT, || {
            let (status, list) = site.ask(V3, &site.token);
            (status == 200 && list["uris"] == json!(own)).then_some(())
        });
    }
}
