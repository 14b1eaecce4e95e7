//! A controller and a relay of their own, as on several machines, by the files of `docs/operations.md`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fleet::{Place, Ports, Running, SOON, within};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");

/// The first file of that name on the page.
#[track_caller]
fn file_of_the_page(name: &str) -> String {
    let page = fs::read_to_string(PAGE).unwrap();
    let begins = format!("```toml\n# {name}\n");
    let block = page
        .split_once(&begins)
        .unwrap_or_else(|| panic!("{name} is not on the page"))
        .1;
    block.split_once("```").unwrap().0.to_owned()
}

/// The files of the page with the places of this machine instead of theirs.
struct Files<'a> {
    place: &'a Path,
    ports: Ports,
}

impl Files<'_> {
    fn write(&self, name: &str) -> String {
        let Self { place, ports } = self;
        let folder = |path: &str| format!("{}{path}", place.display());
        let port = |offset: u16| (ports.0 + offset).to_string();
        let text = file_of_the_page(name)
            .replace("/etc/turnfleet/", &folder("/etc/"))
            .replace("/var/lib/", &folder("/state/"))
            .replace("203.0.113.8", "127.0.0.1")
            .replace("controller.example.org", "localhost")
            .replace("0.0.0.0", "127.0.0.1")
            .replace(":3478", &format!(":{}", port(0)))
            .replace(":8080", &format!(":{}", port(30)))
            .replace(":8081", &format!(":{}", port(31)));
        let path = place.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The certificate of the controller, which relays know as their authority.
    fn make_certificate(&self) {
        let folder = self.place.join("etc");
        fs::create_dir(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for name in ["controller.pem", "ca.pem"] {
            fs::write(folder.join(name), made.cert.pem()).unwrap();
        }
        fs::write(
            folder.join("controller.key"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
    }

    fn run(&self, what: &str, file: &str) -> Running {
        let log = File::create(self.place.join(format!("{what}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
        command
            .args([what, "--config", file])
            // The page leaves the address of the metrics at its default, which another relay of this machine may have.
            .env(
                "TURNFLEET_RELAY__METRICS__ADDRESS",
                format!("127.0.0.1:{}", self.ports.0 + 32),
            )
            .stdin(Stdio::null())
            .stderr(log);
        Running(command.spawn().unwrap())
    }

    fn logs(&self) -> String {
        let read = |what| fs::read_to_string(self.place.join(format!("{what}.log")));
        ["controller", "relay"]
            .map(|what| read(what).unwrap_or_default())
            .concat()
    }

    /// What `turnfleet fleet` prints, or says.
    fn fleet(&self, token: &str, arguments: &[&str]) -> Result<String, String> {
        // Nothing listens at the first.
        let controllers = format!("http://127.0.0.1:1,http://127.0.0.1:{}", self.ports.0 + 30);
        let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .arg("fleet")
            .args(arguments)
            .args(["--controller", &controllers, "--token", token])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }
}

impl Drop for Files<'_> {
    #[expect(clippy::print_stderr, reason = "the log says why a test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

#[test]
fn several_machines_are_run_by_the_files_of_the_page_and_by_their_operator() {
    let place = Place::new();
    let files = Files {
        place: place.0.path(),
        ports: Ports::free(),
    };
    files.make_certificate();
    let _controller = files.run("controller", &files.write("controller.toml"));
    let state = files.place.join("state/turnfleet/controller");
    within(SOON, "the controller leaves its tokens", || {
        state.join("join-token").exists() && state.join("api-token").exists()
    });
    within(SOON, "the log says where they are", || {
        files.logs().contains("join-token")
    });
    fs::copy(state.join("join-token"), files.place.join("etc/join-token")).unwrap();
    let token = fs::read_to_string(state.join("api-token")).unwrap();
    let fleet = |arguments: &[&str]| files.fleet(token.trim(), arguments);

    let relay = files.run("relay", &files.write("relay.toml"));
    let shows = |what: &str, words: &[&str]| {
        within(SOON, what, || {
            let shown = fleet(&["nodes"]).unwrap_or_default();
            words.iter().all(|word| shown.contains(word))
        });
    };
    shows("the relay is listed", &["relay-1", "healthy", "yes"]);

    fleet(&["drain", "relay-1", "--deadline", "1h", "--wait"]).unwrap();
    shows("the relay is not listed", &["relay-1", "draining"]);
    fleet(&["undrain", "relay-1"]).unwrap();
    shows("the relay is listed again", &["relay-1", "yes"]);
    let night = fleet(&[
        "tokens",
        "create",
        "night",
        "--scope",
        "viewer",
        "--expires",
        "1d",
    ])
    .unwrap();
    let by_night = |arguments: &[&str]| files.fleet(night.trim(), arguments);
    assert!(
        by_night(&["nodes", "--json"])
            .unwrap()
            .contains("\"relay-1\"")
    );
    let refused = by_night(&["undrain", "relay-1"]).unwrap_err();
    assert!(refused.contains("scope operator"), "{refused}");
    assert!(fleet(&["tokens", "list"]).unwrap().contains("night"));
    fleet(&["tokens", "revoke", "night"]).unwrap();
    assert!(by_night(&["nodes"]).unwrap_err().contains("401"));
    let join = fleet(&["join-tokens", "create", "south", "--region", "south"]).unwrap();
    assert!(join.trim().len() >= 32, "{join}");
    assert!(fleet(&["join-tokens", "list"]).unwrap().contains("south"));
    fleet(&["join-tokens", "revoke", "south"]).unwrap();
    let audit = fleet(&["audit"]).unwrap();
    let told = ["drain", "undrain", "create token", "revoke token"];
    assert!(told.iter().all(|action| audit.contains(action)), "{audit}");
    let refused = fleet(&["forget", "relay-1"]).unwrap_err();
    assert!(refused.contains("live session"), "{refused}");
    drop(relay);
    within(SOON, "the relay is forgotten", || {
        fleet(&["forget", "relay-1"]).is_ok()
    });
    assert!(!fleet(&["nodes"]).unwrap().contains("relay-1"));
}
