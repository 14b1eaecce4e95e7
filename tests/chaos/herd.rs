//! Many control sessions that come back at once.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, TOKEN};
use crate::cuts::GRPC;
use crate::figures::{self, assert_time, millis, sized};
use crate::fleet::with_namespace;
use crate::process::{Process, SOON};
use crate::tools::eventually;

const CONTROLLER: &str = "127.0.1.1";

/// How long answers took while others were busy.
fn credentials(api: &Api, over: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        // Nobody probes these relays, so lists hold them although there is nothing behind.
        if api.ask("/turn?service=turn&username=alice").is_ok() {
            took.push(begun.elapsed());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    took.sort_unstable();
    took
}

struct Bench(Child);

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn r22_a_herd_of_sessions_is_back_soon_after_the_controller_and_hinders_no_request() {
    const BACK: Duration = Duration::from_secs(10);
    // Relays of which there is only the control session.
    let nodes = sized(250, 1000);
    with_namespace(|_| {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
        command.arg("controller");
        for setting in [
            format!("state_dir={}", dir.path().join("state").display()),
            format!("http.address={CONTROLLER}:8080"),
            format!("grpc.address={CONTROLLER}:{GRPC}"),
            format!("join_token={TOKEN}"),
            format!("api_tokens=[{{name='operator',token='{TOKEN}',scopes=['mint','viewer']}}]"),
            "probe.mode=off".to_owned(),
        ] {
            command.args(["--set", &setting]);
        }
        let mut controller = Process::start(command, dir.path().join("log"));
        let serves = || TcpStream::connect((CONTROLLER, GRPC)).ok();
        eventually("the controller takes relays", SOON, serves);
        let bench = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .args(["bench", "fleet", &format!("http://{CONTROLLER}:{GRPC}")])
            .args(["--join-token", TOKEN, "--nodes", &nodes.to_string()])
            .args(["--pushes", "0", "--rest", "1", "--restart", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut bench = Bench(bench.unwrap());
        let mut said = BufReader::new(bench.0.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap() == "restart the controller"));
        controller.kill();
        controller.restart();
        let (api, over) = (
            Api::new(&format!("{CONTROLLER}:8080")),
            AtomicBool::new(false),
        );
        let (report, took) = std::thread::scope(|scope| {
            let asked = scope.spawn(|| credentials(&api, &over));
            let mut printed = String::new();
            let read = bench.0.stdout.take().unwrap().read_to_string(&mut printed);
            over.store(true, Ordering::Relaxed);
            read.unwrap();
            (printed, asked.join().unwrap())
        });
        let report: Value = serde_json::from_str(&report).unwrap();
        let back = Duration::from_secs_f64(report["back"]["all"].as_f64().unwrap());
        let p99 = took[took.len() * 99 / 100];
        figures::print(
            "R22",
            json!({
                "nodes": nodes,
                "all_back_ms": millis(back),
                "promised_ms": millis(BACK),
                "credentials": took.len(),
                "credential_p99_us": u64::try_from(p99.as_micros()).unwrap(),
            }),
        );
        assert_time("all are back", back, BACK);
    });
}
