//! coturn's configuration, imported: every line is accounted for, and the fleet that it becomes serves the clients that a real
//! coturn with the same file serves.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential};
use crate::coturn::{UCLIENT, totals, uclient_by};
use crate::fleet::Fleet;
use crate::netns::{self, Namespace};
use crate::outpost::{RELAY, WORLD, address};
use crate::tools;

const TURNFLEET: &str = env!("CARGO_BIN_EXE_turnfleet");
const TURNSERVER: &str = "/usr/bin/turnserver";
/// Coturn's full example, with every option in a comment.
const EXAMPLE: &str = "/etc/turnserver.conf";
/// What people have for Matrix.
const MATRIX: &str = include_str!("turnserver.conf");
const SECRET: &str = "north-by-northwest";
const LIMIT: Duration = Duration::from_secs(30);
/// An address that `denied-peer-ip` holds, and that no default refuses.
const DENIED: &str = "11.80.0.1";

/// A folder with a configuration of coturn.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.file("turnserver.conf"), text).unwrap();
        folder
    }

    /// With the certificate that the configuration for Matrix names.
    fn for_matrix() -> Self {
        let folder = Self::new("");
        let here = folder.0.path().to_str().unwrap();
        let text = MATRIX.replace("FOLDER", here).replace("SECRET", SECRET);
        fs::write(folder.file("turnserver.conf"), text).unwrap();
        let made = rcgen::generate_simple_self_signed(["turn.example.org".to_owned()]).unwrap();
        fs::write(folder.file("fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(folder.file("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn import(&self, arguments: &[&str]) -> Output {
        Command::new(TURNFLEET)
            .arg("import-coturn")
            .arg(self.file("turnserver.conf"))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Imports into `turnfleet.toml`, and returns the report.
    #[track_caller]
    fn report(&self) -> Value {
        let output = self.file("turnfleet.toml");
        let output = self.import(&["--json", "--output", output.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Every line of `text` is in the report, in one place, and none is unknown or wrong.
#[track_caller]
fn assert_accounted(text: &str, report: &Value) {
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let settings = report["settings"].as_array().unwrap();
    let lines: BTreeSet<u64> = settings
        .iter()
        .filter_map(|of| of["line"].as_u64())
        .collect();
    assert_eq!(lines.len(), settings.len());
    let rest = number(&report["comments"]) + number(&report["empty"]);
    assert_eq!(rest + settings.len(), text.lines().count());
    let counts = report["counts"].as_object().unwrap();
    assert_eq!(counts.values().map(number).sum::<usize>(), settings.len());
    for kind in ["unknown", "wrong"] {
        assert_eq!(counts[kind], 0, "{report:#}");
    }
}

#[test]
fn every_line_of_coturns_own_example_is_accounted_for() {
    if !tools::present(&[EXAMPLE]) {
        return;
    }
    let text = fs::read_to_string(EXAMPLE).unwrap();
    let folder = Folder::new(&text);
    assert_accounted(&text, &folder.report());

    // With every option that it shows.
    let is_name = |name: &str| {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !name.is_empty() && name.chars().all(is_letter)
    };
    let shown = |line: &str| -> Option<String> {
        let setting = line.strip_prefix('#')?.trim_start();
        let end = setting.find(['=', ' ', '\t']).unwrap_or(setting.len());
        let (name, rest) = setting.split_at(end);
        // Prose has a space behind the mark, and no equals sign behind its first word.
        let is_close = line.starts_with(&format!("#{name}"));
        let is_setting = rest.is_empty() || rest.starts_with(" \"");
        let is_setting = rest.starts_with('=') || is_close && is_setting;
        (is_name(name) && is_setting).then(|| setting.to_owned())
    };
    let lines = text
        .lines()
        .map(|line| shown(line).unwrap_or_else(|| line.to_owned()));
    let text: String = lines.map(|line| line + "\n").collect();
    let folder = Folder::new(&text);
    let report = folder.report();
    assert_accounted(&text, &report);
    let settings = report["settings"].as_array().unwrap().len();
    assert!(settings > 110, "{settings}");
}

#[test]
fn every_option_of_coturns_help_is_known() {
    if !tools::present(&[TURNSERVER]) {
        return;
    }
    let help = Command::new(TURNSERVER).arg("-h").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let names = help.lines().flat_map(|line| {
        let words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        words.take_while(|word| word.starts_with('-'))
    });
    let names: BTreeSet<&str> = names
        .filter_map(|name| name.split(['=', '<', '[']).next())
        .filter(|name| name.trim_start_matches('-').len() > 1)
        .collect();
    assert!(names.len() > 100, "{names:?}");
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    let output = Folder::new(&text).import(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(" 0 unknown,"), "{said}");
}

#[test]
fn secrets_are_for_their_owner_alone_and_nothing_is_overwritten() {
    let folder = Folder::for_matrix();
    let preview = folder.import(&[]);
    assert!(preview.status.success(), "{preview:?}");
    let report = folder.report();
    assert_accounted(
        &fs::read_to_string(folder.file("turnserver.conf")).unwrap(),
        &report,
    );
    for said in [
        &preview.stdout,
        &preview.stderr,
        &report.to_string().into_bytes(),
    ] {
        let said = String::from_utf8_lossy(said);
        assert!(!said.contains(SECRET), "{said}");
    }
    for name in ["turnfleet.toml", "turnfleet.secret"] {
        let mode = fs::metadata(folder.file(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let secret = fs::read_to_string(folder.file("turnfleet.secret")).unwrap();
    assert_eq!(secret.trim(), SECRET);

    let output = folder.file("turnfleet.toml");
    let again = folder.import(&["--output", output.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists"));
    let strict = folder.import(&["--strict"]);
    assert_eq!(strict.status.code(), Some(3), "{strict:?}");
    let wrong = Folder::new("listening-port=many\n").import(&[]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(wrong.stdout.is_empty());
}

/// A server under test, in a namespace with the address that the configuration names.
struct Site {
    host: Namespace,
    world: Namespace,
}

impl Site {
    fn new() -> Self {
        let host = Namespace::new("old0");
        let world = Namespace::new("outs");
        host.link(&world, "card0", RELAY[0], WORLD[0]);
        world.ip(&["route", "add", "local", "11.80.0.0/16", "dev", "lo"]);
        Self { host, world }
    }

    fn server(port: u16) -> SocketAddr {
        SocketAddr::new(address(RELAY[0]), port)
    }

    /// A client by TLS and a peer without TURN talk. It is not coturn's tool, whose handshake with coturn stalls now and then.
    #[track_caller]
    fn serves_tls(&self, by: &str, ca: &Path) {
        let credential = Credential::synapse(SECRET, "@bob:example.org");
        let connect = || TcpStream::connect(Self::server(5349)).unwrap();
        let stream = self.world.inside(connect);
        let mut caller = Caller::tls(stream, "turn.example.org", ca, &credential);
        caller.allocate(AllocateOptions::default()).unwrap();
        let peer = self.world.socket(address(WORLD[0]));
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        let place = peer.local_addr().unwrap();
        assert_eq!(caller.permit(place), Ok(()), "{by}");
        caller.send(place, "to the peer");
        let mut buffer = [0; 64];
        let (len, relayed) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"to the peer", "{by}");
        peer.send_to(b"and back", relayed).unwrap();
        assert_eq!(caller.hear(), (place, "and back".to_owned()), "{by}");
    }

    /// Clients by UDP, TCP and TLS have what they send relayed, and one that asks for a denied peer is refused.
    #[track_caller]
    fn serves(&self, by: &str, folder: &Folder) {
        std::thread::scope(|scope| {
            for (name, flags) in [("udp", &[][..]), ("tcp", &["-t"])] {
                scope.spawn(move || {
                    let user = format!("{by}-{name}");
                    let fixed = ["-y", "-s", "-c", "-n", "20", "-m", "2", "-l", "160"];
                    let own = ["-u", &user, "-W", SECRET];
                    let all = [&fixed[..], &own, flags].concat();
                    let output = uclient_by(self.world.command(UCLIENT), Self::server(3478), &all);
                    let text = String::from_utf8_lossy(&output.stdout);
                    assert_eq!(totals(&text), Some((40, 40)), "{by} {name}: {output:?}");
                });
            }
            scope.spawn(|| self.serves_tls(by, &folder.file("fullchain.pem")));
        });
        let credential = Credential::synapse(SECRET, "@alice:example.org");
        let socket = self.world.socket(address(WORLD[0]));
        let mut caller = Caller::udp(socket, Self::server(3478), &credential);
        caller.allocate(AllocateOptions::default()).unwrap();
        let peer = |ip: &str| SocketAddr::new(address(ip), 4000);
        assert_eq!(caller.permit(peer(WORLD[0])), Ok(()), "{by}");
        for inside in [DENIED, "10.0.0.1", "127.0.0.1"] {
            let refused = caller.permit(peer(inside));
            assert_eq!(refused, Err(ErrorCode::FORBIDDEN), "{by}: {inside}");
        }
        // The media server.
        assert_eq!(caller.permit(peer("10.99.0.1")), Ok(()), "{by}");
    }
}

/// A coturn; it ends when the value is dropped.
struct Coturn(Child);

impl Coturn {
    #[track_caller]
    fn start(site: &Site, folder: &Path) -> Self {
        let log = File::create(folder.join("coturn.out")).unwrap();
        let mut command = site.host.command(TURNSERVER);
        command
            .arg("-c")
            .arg(folder.join("turnserver.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let coturn = Self(command.spawn().unwrap());
        for port in [3478, 5349] {
            let connect = || TcpStream::connect(Site::server(port)).ok();
            tools::eventually("coturn listens", LIMIT, || site.world.inside(connect));
        }
        coturn
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_imported_fleet_serves_the_clients_of_coturn() {
    let needed = [&netns::PROGRAMS[..], &[UCLIENT, TURNSERVER]].concat();
    if !tools::present(&needed) || !tools::is_root() {
        return;
    }
    let folder = Folder::for_matrix();
    let report = folder.report();
    let lines = report["lines"].as_u64().unwrap();
    assert!((55..=70).contains(&lines), "{lines}");
    let site = Site::new();
    let coturn = Coturn::start(&site, folder.0.path());
    site.serves("coturn", &folder);
    drop(coturn);
    let file = folder.file("turnfleet.toml");
    let fleet = Fleet::by_file(site.host.command(TURNFLEET), &file);
    assert_eq!(fleet.relays().len(), 1);
    site.serves("turnfleet", &folder);
}
