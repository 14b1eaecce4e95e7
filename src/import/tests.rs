use std::path::{Path, PathBuf};

use super::draft::{Draft, Place};
use super::file::{self, Secrets};
use super::parse::Source;
use super::report::Report;

/// The configuration that a file becomes, and the report.
fn import(text: &str, secrets: Secrets) -> (toml::Table, Report) {
    let source = Source::parse(text);
    let place = Place {
        source: PathBuf::from("/etc/turnserver.conf"),
        output: PathBuf::from("/etc/turnfleet/turnfleet.toml"),
        has_ipv6: true,
    };
    let (draft, judged) = Draft::of(&source, &place);
    let file = file::text(&draft, &place.source, secrets);
    let table = file
        .parse::<toml::Table>()
        .unwrap_or_else(|error| panic!("{error}\n{file}"));
    let report = Report::new(Path::new("turnserver.conf"), &source, &draft, judged);
    (table, report)
}

#[track_caller]
fn assert_becomes(text: &str, expected: &str) {
    let (mut table, _) = import(text, Secrets::Shown);
    // What every file has.
    table.remove("relays");
    if !expected.contains("listen-ip") {
        table.remove("listen-ip");
    }
    assert_eq!(
        table,
        expected.parse::<toml::Table>().unwrap(),
        "{text}\nbecomes\n{table}"
    );
}

/// What the report calls the only setting of a file.
#[track_caller]
fn assert_is(text: &str, kind: &str, words: &str) {
    let (_, report) = import(text, Secrets::Shown);
    let json = report.json(&[]);
    let line = &json["settings"][0];
    assert_eq!(line["outcome"], kind, "{text}: {line}");
    let said = line["words"].as_str().unwrap();
    assert!(said.contains(words), "{text}: {said}");
}

#[test]
fn addresses_and_ports() {
    assert_becomes(
        "listening-port=3479\ntls-listening-port 443",
        "port = 3479\ntls-port = 443",
    );
    assert_becomes("", "listen-ip = ['0.0.0.0', '::']");
    assert_becomes(
        "listening-ip=192.0.2.1\nlistening-ip=2001:db8::1\nexternal-ip=198.51.100.1/192.0.2.1",
        "listen-ip = ['192.0.2.1', '2001:db8::1']\npublic-ip = ['198.51.100.1/192.0.2.1']",
    );
    assert_becomes("min-port=50000", "relay-ports = '50000-65535'");
    assert_becomes(
        "max-port=60000 # enough\nmin-port=50000",
        "relay-ports = '50000-60000'",
    );
    assert_becomes("relay-threads=0", "[relay]\nshards = 1");
    assert_becomes("no-tcp-relay", "[controller]\ntenant.tcp_relaying = false");
    assert_becomes(
        "listening-ip=192.0.2.1\nno-tls\nno-udp=1\naux-server=[2001:db8::1]:33478",
        "listen-ip = ['192.0.2.1']\n[relay]\nlisteners = [{ transport = 'tcp', address = '192.0.2.1:3478' },\
         { transport = 'tcp', address = '[2001:db8::1]:33478' }]",
    );
    assert_is("min-port=70000", "wrong", "from 1 to 65535");
    assert_is(
        "min-port=60000\nmax-port=50000",
        "wrong",
        "no more than max-port",
    );
    assert_is("external-ip=turn.example.org", "wrong", "an IP address");
    assert_is(
        "relay-ip=192.0.2.1\nlistening-ip=192.0.2.1",
        "default here",
        "listening-ip",
    );
    assert_is(
        "relay-ip=2001:DB8:0::1\nlistening-ip=[2001:db8::1]",
        "default here",
        "listening-ip",
    );
    assert_is("relay-ip=192.0.2.1", "no equivalent", "listens on");
}

#[test]
fn the_last_line_counts_and_flags_have_words_for_no() {
    assert_becomes("realm=a\nrealm=b", "realm = 'b'");
    assert_is("realm=a\nrealm=b", "not needed", "line 2");
    assert_is("no-tcp-relay=off", "not needed", "switched off");
    assert_is("no-tls=perhaps", "wrong", "yes");
    // Coturn looks at no value of these.
    for text in ["use-auth-secret=0", "prometheus=off", "no-rfc5780=perhaps"] {
        assert_is(text, "default here", "");
    }
    assert_is(
        "user=alice:secret\nuse-auth-secret=0",
        "not needed",
        "beside",
    );
    assert_is("no-cli   # nobody telnets", "default here", "telnet");
}

#[test]
fn metrics() {
    for port in ["", "prometheus-port=9642", "prometheus-port=9642 # ours"] {
        let text = format!("prometheus\nprometheus-address=192.0.2.1\n{port}");
        let place = if port.is_empty() { 9641 } else { 9642 };
        let (table, _) = import(&text, Secrets::Shown);
        let expected = format!("192.0.2.1:{place}");
        assert_eq!(
            table["relay"]["metrics"]["address"].as_str(),
            Some(expected.as_str()),
            "{text}"
        );
    }
}

#[test]
fn files_are_all_made_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| (folder.path().join(name), "text".to_owned());
    let secret = file("turnfleet.secret");
    let count = || std::fs::read_dir(folder.path()).unwrap().count();

    assert!(super::create_all(&[secret.clone(), file("nowhere/turnfleet.toml")]).is_err());
    assert_eq!(count(), 0);
    let both = [secret, file("turnfleet.toml")];
    super::create_all(&both).unwrap();
    assert_eq!(count(), 2);
    assert!(super::create_all(&both).is_err());
    assert_eq!(std::fs::read_to_string(&both[0].0).unwrap(), "text");
}

#[test]
fn secrets_and_users() {
    let secret = "[controller]\nshared_secret_file = '/etc/turnfleet/turnfleet.secret'";
    assert_becomes("static-auth-secret=north", secret);
    assert_becomes("static-auth-secret=north\nstatic-auth-secret=south", secret);
    assert_becomes(
        "lt-cred-mech\nuser=alice:a:b\nuser=bob:b",
        "user = ['alice:a:b', 'bob:b']",
    );
    assert_is(
        "user=alice:0xbc807ee29df3c9ffa736523fb2c4e8ee",
        "no equivalent",
        "MD5",
    );
    for secrets in ["use-auth-secret", "static-auth-secret=north"] {
        let text = format!("user=alice:secret\n{secrets}");
        assert_is(&text, "not needed", "beside");
    }
    assert_is("user=alice", "wrong", "NAME:PASSWORD");
    assert_is(
        "psql-userdb=\"password=secret\"",
        "no equivalent",
        "turn_secret",
    );
}

#[test]
fn no_secret_is_told() {
    let text = "static-auth-secret=hush1\nuser=alice:hush2\ncli-password=hush3\n\
                redis-userdb=\"password=hush4\"\nstatic-secret=hush5\nstatic-auth-secret:hush6";
    let (table, report) = import(text, Secrets::Hidden);
    let said = format!("{table}{}{}", report.text(), report.json(&[]));
    assert!(!said.contains("hush"), "{said}");
    let source = Source::parse(text);
    let place = Place {
        source: PathBuf::from("/etc/turnserver.conf"),
        output: PathBuf::from("/etc/turnfleet/turnfleet.toml"),
        has_ipv6: false,
    };
    let (draft, _) = Draft::of(&source, &place);
    let files = draft.secret_files(&place);
    let expected = (
        PathBuf::from("/etc/turnfleet/turnfleet.secret"),
        "hush1\n".to_owned(),
    );
    assert_eq!(files, [expected]);
}

#[test]
fn limits() {
    assert_becomes(
        "user-quota=12\ntotal-quota=1200\nstale-nonce\nmax-allocate-lifetime=60\nmax-allocate-timeout=600",
        "[relay]\nlimits.allocations = 1200\nnonce_lifetime_seconds = 600\nstream.unauthenticated_seconds = 300\n\
         [controller]\nlimits.allocations_per_user = 12\nlimits.max_lifetime_seconds = 600",
    );
    assert_becomes(
        "max-bps=64000\nbps-capacity=1000000",
        "[controller]\ntenants = [{ name = 'default', quotas = { user_bits_per_second = 512000, bits_per_second = 8000000 } }]",
    );
    for (text, kind) in [
        ("user-quota=0", "no equivalent"),
        ("total-quota=0", "default here"),
        ("bps-capacity=0", "default here"),
        ("stale-nonce=0", "no equivalent"),
        ("channel-lifetime=600", "default here"),
        ("channel-lifetime=700", "no equivalent"),
        ("permission-lifetime=300", "default here"),
    ] {
        assert_is(text, kind, "");
    }
}

#[test]
fn certificates() {
    assert_becomes(
        "cert=/etc/ssl/turn.pem\npkey=turn.key",
        "tls-cert = '/etc/ssl/turn.pem'\ntls-key = '/etc/turn.key'",
    );
    assert_is("cert=/etc/ssl/turn.pem", "no equivalent", "pkey");
}

#[test]
fn peers_are_written_where_the_default_filter_says_otherwise() {
    assert_becomes("denied-peer-ip=10.0.0.0-10.255.255.255", "");
    assert_becomes(
        "denied-peer-ip=8.8.8.0-8.8.8.255\ndenied-peer-ip=2a00::-2a00::ffff",
        "[controller]\npeers.deny = ['8.8.8.0/24', '2a00::/112']",
    );
    assert_becomes(
        "denied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=10.0.0.5",
        "allow-peer = ['10.0.0.5/32']",
    );
    assert_becomes("allowed-peer-ip=8.8.8.8", "");
    assert_becomes(
        "denied-peer-ip=8.8.8.8\nallowed-peer-ip=8.8.8.0-8.8.8.255",
        "",
    );
    assert_is(
        "denied-peer-ip=8.8.8.8\nallowed-peer-ip=8.8.8.0-8.8.8.255",
        "not needed",
        "allowed",
    );
    assert_is(
        "allowed-peer-ip=169.254.169.254",
        "no equivalent",
        "nothing opens 1 ",
    );
    assert_is(
        "allowed-peer-ip=172.16.0.0-172.16.255.255",
        "translated",
        "opens 65536 ",
    );
    assert_is("denied-peer-ip=10.0.0.9-10.0.0.1", "wrong", "FIRST-LAST");
    assert_becomes("allow-loopback-peers", "danger-allow-loopback-peers = true");
}

#[test]
fn peers_that_coturn_reaches_and_the_default_filter_refuses_are_counted() {
    let (_, report) = import("", Secrets::Shown);
    let json = report.json(&[]);
    let of = |json: &serde_json::Value, rule: &str| {
        let rules = json["refused_peers"].as_array().unwrap().iter();
        rules.clone().find(|open| open["rule"] == rule).cloned()
    };
    let private = of(&json, "private").unwrap();
    assert_eq!(private["ipv4_addresses"], (1 << 24) + (1 << 20) + (1 << 16));
    let blocks = serde_json::json!(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]);
    assert_eq!(private["blocks"], blocks);
    assert!(of(&json, "loopback").is_none());
    assert_eq!(of(&json, "multicast").unwrap()["can_be_allowed"], false);

    let text = "no-multicast-peers\ndenied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=172.16.0.0-172.31.255.255";
    let (_, report) = import(text, Secrets::Shown);
    let json = report.json(&[]);
    assert_eq!(of(&json, "private").unwrap()["ipv4_addresses"], 1 << 16);
    assert!(of(&json, "multicast").is_none());
}

#[test]
fn every_line_is_in_the_report_once() {
    let text = "# a\n\nlistening-port=3478\nmobility\nsomething-else=1\nrealm=\nno-cli\ndaemon\n";
    let (_, report) = import(text, Secrets::Shown);
    let json = report.json(&[]);
    let counts = json["counts"].as_object().unwrap();
    let settings: u64 = counts.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(settings, 6);
    assert_eq!(json["lines"], 8);
    assert_eq!([&json["comments"], &json["empty"]], [1, 1]);
    for kind in [
        "translated",
        "default here",
        "not needed",
        "no equivalent",
        "unknown",
        "wrong",
    ] {
        assert_eq!(counts[kind], 1, "{kind}");
    }
    assert_eq!((report.wrong(), report.left_over()), (1, 2));
}
