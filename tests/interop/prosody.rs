//! A real Prosody with the configuration of docs/guides/jitsi.md, word for word but for addresses and secret: what it mints for
//! Jitsi's clients, whose usernames are bare timestamps, opens allocations.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::fleet::Fleet;
use crate::guide::block;
use crate::{haproxy, tools};

const GUIDE: &str = include_str!("../../docs/guides/jitsi.md");
const PROSODY: &str = "/usr/bin/prosody";
const SITE: &str = "meet.example.org";
const SECRET: &str = "north-by-northwest";
const LIMIT: Duration = Duration::from_secs(30);

/// An XMPP server whose users need no account; it ends when the value is dropped.
struct Prosody {
    child: Child,
    place: SocketAddr,
    folder: tempfile::TempDir,
}

impl Prosody {
    /// Starts one with `services` in its configuration.
    #[track_caller]
    fn start(services: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [place] = haproxy::free();
        let here = folder.path().display();
        let port = place.port();
        let file = folder.path().join("prosody.cfg.lua");
        let text = format!(
            "run_as_root = true\npidfile = \"{here}/pid\"\ndata_path = \"{here}\"\n\
             log = {{ {{ levels = {{ min = \"info\" }}, to = \"console\" }} }}\n\
             interfaces = {{ \"127.0.0.1\" }}\nc2s_ports = {{ {port} }}\n\
             c2s_require_encryption = false\nmodules_disabled = {{ \"s2s\" }}\n{services}\n\
             VirtualHost \"{SITE}\"\n authentication = \"anonymous\"\n \
             modules_enabled = {{ \"saslauth\", \"external_services\" }}\n"
        );
        fs::write(&file, text).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(PROSODY)
            .args(["-F", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let prosody = Self {
            child,
            place,
            folder,
        };
        tools::eventually("Prosody listens", LIMIT, || TcpStream::connect(place).ok());
        prosody
    }

    /// The external services (XEP-0215) that it names to a client.
    #[track_caller]
    fn services(&self) -> Vec<Service> {
        const STREAM: &str = "<stream:stream to='meet.example.org' version='1.0' xmlns='jabber:client' \
            xmlns:stream='http://etherx.jabber.org/streams'>";
        let mut stream = TcpStream::connect(self.place).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut ask = |words: &str, end: &str| {
            stream.write_all(words.as_bytes()).unwrap();
            let mut heard = String::new();
            while !heard.contains(end) {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).unwrap();
                assert_ne!(read, 0, "{words}: {heard}");
                heard += std::str::from_utf8(&bytes[..read]).unwrap();
            }
            heard
        };
        ask(STREAM, "</stream:features>");
        let mechanism = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'";
        ask(&format!("<auth {mechanism}/>"), "<success");
        ask(STREAM, "</stream:features>");
        let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
        ask(&format!("<iq type='set' id='bind'>{bind}</iq>"), "</iq>");
        let services = "<services xmlns='urn:xmpp:extdisco:2'/>";
        let question = format!("<iq type='get' id='services' to='{SITE}'>{services}</iq>");
        let answer = ask(&question, "</iq>");
        let elements = answer.split("<service ").skip(1);
        elements.map(Service::read).collect()
    }
}

impl Drop for Prosody {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            tools::tell(&log.unwrap_or_default());
        }
    }
}

/// A server, as a client is told of it.
struct Service {
    kind: String,
    place: SocketAddr,
    credential: Option<Credential>,
}

impl Service {
    #[track_caller]
    fn read(element: &str) -> Self {
        let (attributes, _) = element.split_once('>').unwrap();
        let attributes = format!(" {attributes}");
        let value = |name: &str| {
            let (_, rest) = attributes.split_once(&format!(" {name}='"))?;
            rest.split('\'').next().map(str::to_owned)
        };
        let place = format!("{}:{}", value("host").unwrap(), value("port").unwrap());
        let credential = value("username").map(|username| Credential {
            username,
            password: value("password").unwrap(),
        });
        Self {
            kind: value("type").unwrap(),
            place: place.parse().unwrap(),
            credential,
        }
    }
}

#[test]
fn bare_timestamps_of_prosody_open_allocations() {
    if !tools::present(&[PROSODY]) {
        return;
    }
    let fleet = Fleet::up(&["--relays", "1", "--shared-secret", SECRET]);
    let relay = &fleet.relays()[0];
    let (udp, tls) = (relay.udp.port().to_string(), relay.tls.port().to_string());
    let services = block(
        GUIDE,
        "lua",
        &[
            ("turn.example.org", "127.0.0.1"),
            ("3478", &udp),
            ("443", &tls),
            ("the pinned secret", SECRET),
        ],
    );
    let prosody = Prosody::start(&services);
    let services = prosody.services();
    let kinds: Vec<_> = services
        .iter()
        .map(|it| (it.kind.as_str(), it.place))
        .collect();
    let expected = [
        ("stun", relay.udp),
        ("turn", relay.udp),
        ("turns", relay.tls),
    ];
    assert_eq!(kinds, expected);
    assert!(services[0].credential.is_none());
    for service in &services[1..] {
        let credential = service.credential.as_ref().unwrap();
        let digits = credential
            .username
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        assert!(digits, "{}", credential.username);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut caller = Caller::udp(socket, relay.udp, credential);
        caller.allocate(AllocateOptions::default()).unwrap();
    }
}
