//! The small commands, as a person or a script calls them: no fleet runs.

#![expect(
    clippy::unwrap_used,
    reason = "what is missing ends the test, and says where"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::mpsc::{self, Receiver};

use serde_json::Value;

fn turnfleet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(arguments)
        .output()
        .unwrap()
}

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = turnfleet(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the command said on standard error before it failed with code 1.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = turnfleet(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_minted_credential_is_verified_with_its_secret_alone() {
    let mint = [
        "credentials",
        "mint",
        "--secret",
        "north",
        "--user",
        "@a:example.org",
    ];
    let minted = printed(&[&mint[..], &["--ttl", "10m", "--json"]].concat());
    let minted: Value = serde_json::from_str(&minted).unwrap();
    let (username, password) = (
        minted["username"].as_str().unwrap(),
        minted["password"].as_str().unwrap(),
    );
    assert_eq!(
        username.split_once(':').map(|(_, user)| user),
        Some("@a:example.org")
    );
    assert_eq!(minted["ttl"], 600);

    let verify = |secret, password| {
        let given = ["--username", username, "--password", password];
        [&["credentials", "verify", "--secret", secret], &given[..]].concat()
    };
    assert!(printed(&verify("north", password)).starts_with("valid for "));
    assert!(refused(&verify("south", password)).contains("password"));
    assert!(refused(&verify("north", "guess")).contains("password"));
}

#[test]
fn a_credential_for_nobody_is_a_bare_expiry() {
    let minted = printed(&["credentials", "mint", "--secret", "north"]);
    let line = minted
        .lines()
        .find_map(|line| line.strip_prefix("username: "));
    assert!(
        line.unwrap().bytes().all(|byte| byte.is_ascii_digit()),
        "{minted}"
    );
}

#[test]
fn an_expired_credential_is_refused() {
    // HMAC-SHA1 of the username with the key "north", in base64.
    let given = [
        "--username",
        "1700000000:@alice:example.org",
        "--password",
        "b7c/MWmorxmLryRFjaJYkUW5nOo=",
    ];
    let verify = [&["credentials", "verify", "--secret", "north"], &given[..]].concat();
    assert!(refused(&verify).contains("ended"));
}

#[test]
fn the_secret_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, "north\n").unwrap();
    let file = file.to_str().unwrap();
    let minted = printed(&[
        "credentials",
        "mint",
        "--secret-file",
        file,
        "--user",
        "a",
        "--json",
    ]);
    let minted: Value = serde_json::from_str(&minted).unwrap();
    let (username, password) = (
        minted["username"].as_str().unwrap(),
        minted["password"].as_str().unwrap(),
    );
    printed(&[
        "credentials",
        "verify",
        "--secret",
        "north",
        "--username",
        username,
        "--password",
        password,
    ]);
}

#[test]
fn check_config_shows_every_error_at_once_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let text = "regionn = 'a'\nshards = 'many'\npublic_ips = ['somewhere']\n\
                [controller]\njoin_token = 7777\nendpoints = ['gopher://x']\n\
                [[listeners]]\ntransport = 'sctp'\naddress = '127.0.0.1:1'\n";
    fs::write(&file, text).unwrap();
    let said = refused(&[
        "check-config",
        "relay",
        "--config",
        file.to_str().unwrap(),
        "--set",
        "tls.kex=a",
    ]);
    for part in [
        "regionn: expected a known key (did you mean region?)",
        "shards = \"many\": expected a whole number",
        "public_ips[0] = somewhere",
        "controller.join_token: expected a text",
        "controller.endpoints[0] = gopher://x",
        "listeners[0].transport = sctp",
        "tls.kex (from --set): expected a known key (did you mean key?)",
    ] {
        assert!(said.contains(part), "{part:?} is missing from\n{said}");
    }
    assert!(!said.contains("7777"), "{said}");
}

#[test]
fn check_config_accepts_the_defaults_of_up_and_judges_its_inner_tables() {
    assert_eq!(
        printed(&["check-config", "up"]),
        "the configuration is good\n"
    );
    let said = refused(&[
        "check-config",
        "up",
        "--set",
        "relay.shard=1",
        "--set",
        "controller.realn=x",
    ]);
    assert!(said.contains("did you mean shards?"), "{said}");
    assert!(said.contains("did you mean realm?"), "{said}");
    let said = refused(&[
        "check-config",
        "up",
        "--relays",
        "0",
        "--relay-ports",
        "9-1",
        "--port",
        "65535",
    ]);
    for flag in ["--relays = 0", "--relay-ports = 9-1"] {
        assert!(said.contains(flag), "{flag:?} is missing from\n{said}");
    }
}

#[test]
fn what_is_wrong_with_up_is_named_as_it_was_written() {
    let said = refused(&[
        "check-config",
        "up",
        "--allow-peer",
        "10.0.0.0/33",
        "--public-ip",
        "192.0.2.1/192.0.2.2",
        "--user",
        "a:",
        "--realm",
        "",
        "--set",
        "controller.credentials.ttl_seconds=1",
    ]);
    for part in [
        "--allow-peer = 10.0.0.0/33: expected a network",
        "--public-ip = 192.0.2.1/192.0.2.2: expected one of the listen addresses",
        "--user: expected a password for \"a\"",
        "--realm = \"\": expected 1 to 127 characters",
        "controller.credentials.ttl_seconds = 1: expected",
    ] {
        assert!(said.contains(part), "{part:?} is missing from\n{said}");
    }
}

#[test]
fn the_environment_stands_over_the_file_and_set_over_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    fs::write(
        &file,
        "node_id = 'Bad File'\nregion = 'a b'\nzone = 'c d'\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args([
            "check-config",
            "relay",
            "--config",
            file.to_str().unwrap(),
            "--set",
            "node_id=good",
        ])
        .env("TURNFLEET_RELAY__NODE_ID", "Bad Environment")
        .env("TURNFLEET_RELAY__REGION", "good")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("zone = c d"), "{said}");
    assert!(
        !said.contains("node_id") && !said.contains("region"),
        "{said}"
    );
}

#[test]
fn a_variable_that_nobody_reads_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["check-config", "relay", "--set", "node_id=Bad Name"])
        .env("TURNFLEET_RELAY_METRICS__ADDRESS", "hush")
        .env("TURNFLEET_CONTROLLER_SERVICE_HOST", "10.0.0.1")
        .env("TURNFLEET_CONTROLLER_PORT_8080_TCP_ADDR", "10.0.0.1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let meant = "warning: the environment's TURNFLEET_RELAY_METRICS__ADDRESS is read by nobody \
                 (did you mean TURNFLEET_RELAY__METRICS__ADDRESS?)\n";
    assert!(said.starts_with(meant), "{said}");
    assert_eq!(said.matches("warning:").count(), 1, "{said}");
    assert!(!said.contains("hush"), "{said}");
}

/// A server that answers every request with `answer`, and tells the first line of each.
fn stand_in(answer: &'static str) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head = lines.map_while(Result::ok);
            let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
            let Some(first) = head.first() else {
                continue;
            };
            if sender.send(first.clone()).is_err() {
                return;
            }
            // Who asked may have gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (place, asked)
}

#[test]
fn a_controller_on_this_machine_is_asked_by_no_proxy() {
    let (controller, asked) = stand_in(
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{\"nodes\":[]}",
    );
    let (proxy, tunnels) =
        stand_in("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let list = |host: &str| {
        let url = format!("http://{host}:{}", controller.port());
        Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .args(["fleet", "nodes", "--controller", &url])
            .env("ALL_PROXY", format!("http://{proxy}"))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap()
    };
    for host in ["127.0.0.1", "localhost"] {
        let output = list(host);
        assert!(output.status.success(), "{host}: {output:?}");
        assert!(asked.try_recv().unwrap().starts_with("GET /v1/nodes"));
        assert!(tunnels.try_recv().is_err(), "{host}");
    }
    let output = list("controller.example.org");
    assert!(!output.status.success(), "{output:?}");
    let tunnel = tunnels.try_recv().unwrap();
    let wanted = format!("CONNECT controller.example.org:{}", controller.port());
    assert!(tunnel.starts_with(&wanted), "{tunnel}");
}

#[test]
fn what_answers_the_doctor_with_other_json_is_no_controller() {
    let (other, _asked) =
        stand_in("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
    let url = format!("http://{other}");
    let output = turnfleet(&["doctor", "--controller", &url]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines = said.lines();
    let line = lines.find(|line| line.contains("controller.answers"));
    let line = line.unwrap();
    assert!(
        line.starts_with("fail") && line.contains("not the HTTP API of a controller"),
        "{line}"
    );
}

#[test]
fn a_flag_stands_over_the_secret_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, " north\n").unwrap();
    let file = file.to_str().unwrap();
    let mint = |flags: &[&str], environment: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
        command.args(["credentials", "mint"]).args(flags);
        command.env_remove("TURNFLEET_SHARED_SECRET");
        if let Some(secret) = environment {
            command.env("TURNFLEET_SHARED_SECRET", secret);
        }
        let output = command.output().unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    };
    let verifies = |minted: Option<String>, secret: &str| {
        let minted = minted.unwrap();
        let line = |name: &str| {
            minted
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .to_owned()
        };
        let (username, password) = (line("username: "), line("password: "));
        let given = [
            "--secret",
            secret,
            "--username",
            &username,
            "--password",
            &password,
        ];
        turnfleet(&[&["credentials", "verify"], &given[..]].concat())
            .status
            .success()
    };
    assert!(verifies(
        mint(&["--secret-file", file], Some("south")),
        "north"
    ));
    assert!(verifies(
        mint(&["--secret", "north"], Some("south")),
        "north"
    ));
    assert!(verifies(mint(&[], Some("south")), "south"));
    assert_eq!(mint(&[], None), None);
    for command in ["bench", "conformance"] {
        // A static user needs no secret, whatever the environment holds.
        let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .args([command, "turn:127.0.0.1:9", "--user", "nobody"])
            .env("TURNFLEET_SHARED_SECRET", "south")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("NAME:PASSWORD") && !said.contains("cannot be used with"),
            "{said}"
        );
    }
}

#[test]
fn a_flag_of_coturns_is_told_what_it_is_here() {
    let told = |flag: &str| {
        let output = turnfleet(&["up", flag]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = told("--listening-port");
    assert!(said.contains("which is --port here"), "{said}");
    let said = told("--use-auth-secret");
    assert!(said.contains("Ephemeral credentials"), "{said}");
    let said = told("--listening-prot");
    assert!(!said.contains("coturn"), "{said}");
}

#[test]
fn check_config_finds_what_would_keep_a_service_from_starting() {
    let relay = [
        "check-config",
        "relay",
        "--set",
        "node_id=a",
        "--set",
        "controller.endpoints=[\"http://127.0.0.1:8081\"]",
    ];
    let said = refused(&[&relay[..], &["--set", "log.filter=debg"]].concat());
    assert!(said.contains("log.filter = debg: expected"), "{said}");
    let said = refused(&[&relay[..], &["--set", "log.filter=info,turnfleet=loud"]].concat());
    assert!(
        said.contains("log.filter = info,turnfleet=loud: expected"),
        "{said}"
    );
    let two = "public_ips=[\"192.0.2.1/198.51.100.77\"]";
    let said = refused(&[&relay[..], &["--set", two]].concat());
    assert!(
        said.contains("public_ips[0] = 192.0.2.1/198.51.100.77"),
        "{said}"
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no.pem");
    fs::write(&file, "no certificate\n").unwrap();
    let file = file.to_str().unwrap();
    let set = |key: &str| format!("{key}={file}");
    let keys = ["http.tls.certificate", "http.tls.key", "probe.ca"].map(set);
    let mut controller = vec!["check-config", "controller"];
    for key in &keys {
        controller.extend(["--set", key]);
    }
    let said = refused(&controller);
    for key in ["(http.tls)", "(probe.ca)"] {
        assert!(said.contains(key), "{key:?} is missing from\n{said}");
    }
    let weak = turnfleet(&["check-config", "controller", "--set", "probe.mode=off"]);
    let said = String::from_utf8(weak.stderr).unwrap();
    assert!(
        weak.status.success() && said.contains("warning: probe.mode"),
        "{said}"
    );
}

#[test]
fn completions_are_there_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            printed(&["completions", shell]).contains("turnfleet"),
            "{shell}"
        );
    }
}
