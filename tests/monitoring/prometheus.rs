//! A Prometheus and an Alertmanager of the machine's packages, on loopback, in a folder of their own.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fleet::{Running, SOON, within};

pub(super) const PROMETHEUS: &str = "/usr/bin/prometheus";
pub(super) const PROMTOOL: &str = "/usr/bin/promtool";
pub(super) const ALERTMANAGER: &str = "/usr/bin/prometheus-alertmanager";

/// Whether the packages are there; says so where not, and fails where tests have to have their tools.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a person shall see what did not run")]
pub(super) fn present() -> bool {
    let missing: Vec<_> = [PROMETHEUS, PROMTOOL, ALERTMANAGER]
        .into_iter()
        .filter(|file| !Path::new(file).exists())
        .collect();
    if missing.is_empty() {
        return true;
    }
    let what =
        format!("missing: {missing:?}; `cargo xtask test` as root installs what the tests need");
    assert!(
        std::env::var_os("TURNFLEET_REQUIRE_TOOLS").is_none(),
        "{what}"
    );
    eprintln!("not run: {what}");
    false
}

/// What promtool says of `arguments`.
///
/// # Errors
/// When it says no.
pub(super) fn promtool(arguments: &[&str]) -> Result<String, String> {
    said(Command::new(PROMTOOL).args(arguments))
}

/// What promtool says of metrics, which are kept in `place`.
///
/// # Errors
/// When it has something against them.
pub(super) fn check_metrics(place: &Path, metrics: &str) -> Result<String, String> {
    let file = place.join("metrics.txt");
    fs::write(&file, metrics).unwrap();
    let input = File::open(file).unwrap();
    let arguments = ["check", "metrics"];
    said(Command::new(PROMTOOL).args(arguments).stdin(input))
}

fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    output.status.success().then_some(said.clone()).ok_or(said)
}

/// A server that answers HTTP at `port` of loopback.
pub(super) struct Server {
    port: u16,
    _running: Running,
}

impl Server {
    #[track_caller]
    fn start(program: &str, place: &Path, port: u16, arguments: &[String]) -> Self {
        let name = Path::new(program).file_name().unwrap();
        let log = File::create(place.join(name).with_extension("log")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .current_dir(place)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let server = Self {
            port,
            _running: Running(child.unwrap()),
        };
        within(SOON, program, || server.get("/-/ready").is_ok());
        server
    }

    /// An Alertmanager that tells nobody.
    #[track_caller]
    pub(super) fn alertmanager(place: &Path, port: u16) -> Self {
        let config = "route:\n  receiver: nobody\n  group_wait: 0s\nreceivers:\n  - name: nobody\n";
        fs::write(place.join("alertmanager.yml"), config).unwrap();
        let arguments = [
            "--config.file=alertmanager.yml".to_owned(),
            "--storage.path=alertmanager".to_owned(),
            "--cluster.listen-address=".to_owned(),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        Self::start(ALERTMANAGER, place, port, &arguments)
    }

    /// A Prometheus that looks at `config`, a file in `place`.
    #[track_caller]
    pub(super) fn prometheus(place: &Path, port: u16, config: &str) -> Self {
        fs::write(place.join("prometheus.yml"), config).unwrap();
        let arguments = [
            "--config.file=prometheus.yml".to_owned(),
            "--storage.tsdb.path=data".to_owned(),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        Self::start(PROMETHEUS, place, port, &arguments)
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// When there is no good one.
    pub(super) fn get(&self, path: &str) -> Result<String, String> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut answer = ureq::get(&url)
            .config()
            .proxy(None)
            .build()
            .call()
            .map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string();
        text.map_err(|error| error.to_string())
    }

    /// What an expression comes to.
    #[track_caller]
    pub(super) fn query(&self, expression: &str) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let request = ureq::get(&url)
            .config()
            .proxy(None)
            .build()
            .query("query", expression);
        let mut answer = request
            .call()
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        let answer: Value = answer.body_mut().read_json().unwrap();
        let result = answer["data"]["result"].as_array();
        result
            .unwrap_or_else(|| panic!("{expression}: {answer}"))
            .clone()
    }
}
