//! A real Synapse that knows the fleet by `turn_uris` and the shared secret: what its clients are given works, on every
//! relay that it names, and while one of them drains.

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::fleet::Fleet;
use crate::{haproxy, tools};

/// The Python that has Synapse.
pub(crate) const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
const SECRET: &str = "north-by-northwest";
/// Synapse takes some seconds to start, and many on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// `turn_user_lifetime`.
const LIFETIME: u64 = 3600;

/// A homeserver with a database of its own; it ends when the value is dropped.
pub(crate) struct Synapse {
    child: Child,
    /// Where it serves its client API.
    pub(crate) place: SocketAddr,
    url: String,
    folder: tempfile::TempDir,
}

impl Synapse {
    /// Starts one whose users are sent to `turn_uris`.
    #[track_caller]
    pub(crate) fn start(turn_uris: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [place] = haproxy::free();
        let port = place.port();
        let file = folder.path().join("homeserver.yaml");
        fs::write(&file, configuration(folder.path(), port, turn_uris)).unwrap();
        let synapse = || {
            let mut command = Command::new(PYTHON);
            command
                .args(["-m", "synapse.app.homeserver", "--config-path"])
                .arg(&file)
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            command
        };
        let keys = synapse().arg("--generate-keys").output().unwrap();
        assert!(keys.status.success(), "{keys:?}");
        let log = File::create(folder.path().join("log")).unwrap();
        let child = synapse().stderr(log).spawn().unwrap();
        let synapse = Self {
            child,
            place,
            url: format!("http://{place}/_matrix/client"),
            folder,
        };
        tools::eventually("Synapse answers", LIMIT, || {
            let request = ureq::get(format!("{}/versions", synapse.url))
                .config()
                .proxy(None);
            let request = request.timeout_global(Some(Duration::from_secs(5))).build();
            request.call().ok()
        });
        synapse
    }

    /// Registers `user` and gives the access token.
    #[track_caller]
    pub(crate) fn register(&self, user: &str) -> String {
        let body = json!({
            "username": user, "password": "correct horse", "auth": {"type": "m.login.dummy"},
        });
        let answer = ureq::post(format!("{}/v3/register", self.url))
            .config()
            .proxy(None)
            .build()
            .send(body.to_string());
        let answer: Value = answer.unwrap().body_mut().read_json().unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// What Synapse tells the bearer of `token` about TURN.
    #[track_caller]
    fn turn_server(&self, token: &str) -> Value {
        let request = ureq::get(format!("{}/v3/voip/turnServer", self.url))
            .config()
            .proxy(None)
            .build();
        let request = request.header("Authorization", format!("Bearer {token}"));
        request.call().unwrap().body_mut().read_json().unwrap()
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            tools::tell(&log.unwrap_or_default());
        }
    }
}

/// The three lines about TURN are those of the manual; the rest is what a homeserver needs to run at all.
fn configuration(folder: &Path, port: u16, turn_uris: &[String]) -> String {
    let folder = folder.display();
    let uris = json!(turn_uris);
    format!(
        "server_name: example.org\n\
         pid_file: {folder}/pid\n\
         listeners:\n\
         \x20 - {{port: {port}, type: http, tls: false, bind_addresses: ['127.0.0.1'], resources: [{{names: [client]}}]}}\n\
         database: {{name: sqlite3, args: {{database: {folder}/homeserver.db}}}}\n\
         media_store_path: {folder}/media\n\
         signing_key_path: {folder}/signing.key\n\
         trusted_key_servers: []\n\
         report_stats: false\n\
         enable_registration: true\n\
         enable_registration_without_verification: true\n\
         turn_uris: {uris}\n\
         turn_shared_secret: {SECRET}\n\
         turn_user_lifetime: {LIFETIME}s\n"
    )
}

/// The credential of a user, and where it leads.
#[track_caller]
pub(crate) fn credential(answer: &Value) -> (Credential, Vec<SocketAddr>) {
    let text = |key: &str| answer[key].as_str().unwrap().to_owned();
    let uris = answer["uris"].as_array().unwrap().iter();
    let address = |uri: &Value| {
        let uri = uri.as_str().unwrap().strip_prefix("turn:")?;
        uri.strip_suffix("?transport=udp")?.parse().ok()
    };
    let credential = Credential {
        username: text("username"),
        password: text("password"),
    };
    (credential, uris.filter_map(address).collect())
}

#[track_caller]
pub(crate) fn caller(server: SocketAddr, credential: &Credential) -> Caller {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    Caller::udp(socket, server, credential)
}

/// Both say a word and hear the other's.
#[track_caller]
fn converse(one: (&mut Caller, SocketAddr), other: (&mut Caller, SocketAddr), word: &str) {
    let ((one, one_at), (other, other_at)) = (one, other);
    one.send(other_at, word);
    assert_eq!(other.hear(), (one_at, word.to_owned()));
    other.send(one_at, word);
    assert_eq!(one.hear(), (other_at, word.to_owned()));
}

#[test]
fn users_of_synapse_talk_through_two_relays_while_one_drains() {
    if !tools::present(&[PYTHON]) {
        return;
    }
    let fleet = Fleet::up(&["--relays", "2", "--shared-secret", SECRET]);
    let relays = fleet.relays();
    let uris: Vec<String> = relays
        .iter()
        .map(|relay| format!("turn:{}?transport=udp", relay.udp))
        .collect();
    let synapse = Synapse::start(&uris);
    let answers = ["alice", "bob"].map(|user| {
        let token = synapse.register(user);
        synapse.turn_server(&token)
    });
    assert_eq!(answers[0]["ttl"], LIFETIME);
    let [(alice, places), (bob, _)] = answers.each_ref().map(credential);
    assert_eq!(places, [relays[0].udp, relays[1].udp]);

    let mut at_first = caller(places[0], &alice);
    let mut at_second = caller(places[1], &bob);
    let first = at_first.allocate(AllocateOptions::default()).unwrap();
    let second = at_second.allocate(AllocateOptions::default()).unwrap();
    let (first, second) = (first.relayed, second.relayed);
    at_first.permit(second).unwrap();
    at_second.bind(first).unwrap();
    converse((&mut at_first, first), (&mut at_second, second), "before");

    let drain = format!("{}/v1/nodes/relay-1/drain", fleet.text("http"));
    let bearer = format!("Bearer {}", fleet.text("api_token"));
    let answer = ureq::post(drain)
        .config()
        .proxy(None)
        .build()
        .header("Authorization", bearer)
        .send("");
    assert!(answer.unwrap().status().is_success());
    tools::eventually("a newcomer is sent elsewhere", LIMIT, || {
        let mut newcomer = caller(places[1], &alice);
        let refused = newcomer.allocate(AllocateOptions::default()).is_err();
        refused.then(|| {
            assert!(
                newcomer
                    .redirect()
                    .is_some_and(|to| to.servers.contains(&places[0]))
            )
        })
    });
    converse(
        (&mut at_first, first),
        (&mut at_second, second),
        "while it drains",
    );
    at_second.refresh().unwrap();
    at_second.bind(first).unwrap();
    converse(
        (&mut at_second, second),
        (&mut at_first, first),
        "after a refresh",
    );
    let mut newcomer = caller(places[0], &bob);
    newcomer.allocate(AllocateOptions::default()).unwrap();
}
