//! The command finds a fleet by the records of its domain: in a namespace with a `resolv.conf` and a dnsmasq of its own.

use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::netns::{self, Namespace};
use crate::tools;

const DNSMASQ: &str = "/usr/sbin/dnsmasq";
const SECRET: &str = "north-by-northwest";

/// A DNS server on the namespace's 127.0.0.1; it ends when the value is dropped.
struct Dns(Child);

impl Dns {
    #[track_caller]
    fn start(namespace: &Namespace, records: &[String]) -> Self {
        let mut command = namespace.command(DNSMASQ);
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
            ])
            .args([
                "--no-hosts",
                "--pid-file",
                "--log-facility=-",
                "--user=root",
            ])
            .args([
                "--bind-interfaces",
                "--listen-address=127.0.0.1",
                "--local=/#/",
            ])
            .args(records)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let dns = Self(command.spawn().unwrap());
        tools::eventually("dnsmasq listens", Duration::from_secs(10), || {
            namespace.inside(|| TcpStream::connect("127.0.0.1:53").ok())
        });
        dns
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_command_finds_a_fleet_by_its_srv_records() {
    if !tools::present(&netns::PROGRAMS) || !tools::present(&[DNSMASQ]) || !tools::is_root() {
        return;
    }
    let namespace = Namespace::new("name");
    namespace.resolve_by("nameserver 127.0.0.1\n");
    let turnfleet = || namespace.command(env!("CARGO_BIN_EXE_turnfleet"));
    let fixed = ["--shared-secret", SECRET, "--hostname", "calls.test"];
    let fleet = Fleet::up_by(
        turnfleet(),
        &[&fixed[..], &["--listen-ip", "127.0.0.1"]].concat(),
    );
    let relay = &fleet.relays()[0];
    let (port, tls) = (relay.udp.port(), relay.tls.port());
    let _dns = Dns::start(
        &namespace,
        &[
            "--host-record=nobody.test,127.0.0.9".to_owned(),
            "--host-record=somebody.test,127.0.0.1".to_owned(),
            format!("--srv-host=_turn._udp.calls.test,nobody.test,{port},10,0"),
            format!("--srv-host=_turn._udp.calls.test,somebody.test,{port},20,0"),
            format!("--srv-host=_turns._tcp.calls.test,somebody.test,{tls},0,0"),
        ],
    );
    // The certificate is for the name that was asked for, not for the one that DNS leads to.
    for uri in ["turn:calls.test?transport=udp", "turns:calls.test"] {
        let mut command = turnfleet();
        command.args([
            "conformance",
            uri,
            "--json",
            "--only",
            "RFC8656-8.2-lifetime",
        ]);
        command.args(["--secret", SECRET, "--ca", fleet.text("ca")]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{uri}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(
            report["must"]["passed"].as_u64() > Some(0),
            "{uri}: {report}"
        );
    }
}
