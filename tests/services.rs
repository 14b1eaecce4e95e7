//! `turnfleet relay` and `turnfleet controller` as a service manager meets them: started at once after they were killed, and told to
//! read their configuration again.

#![expect(
    clippy::unwrap_used,
    reason = "what is missing ends the test, and says where"
)]

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use turnfleet_controller::store::EmbeddedStore;

/// Longer than anything here takes anywhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service in a folder of its own, which holds its configuration, its state and its log.
struct Service {
    what: &'static str,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Service {
    fn of(what: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = None;
        Self { what, dir, child }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn configure(&self, text: &str) {
        let text = format!("state_dir = {:?}\n{text}", self.state());
        fs::write(self.dir.path().join("config.toml"), text).unwrap();
    }

    fn start(&mut self) {
        let path = |name: &str| -> PathBuf { Path::join(self.dir.path(), name) };
        let child = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
            .arg(self.what)
            .arg("--config")
            .arg(path("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("log")).unwrap())
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until the log has `text`.
    #[track_caller]
    fn says(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "{text:?} is not in\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Starts while `held` is held by somebody else, who lets go of it then.
    #[track_caller]
    fn starts_when_let_go<T>(&mut self, held: T) {
        self.start();
        self.says("another process holds what this one needs");
        drop(held);
        self.says("serving");
        self.kill();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

const ANY: &str = "127.0.0.1:0";

#[test]
fn a_controller_waits_for_what_the_one_before_it_still_holds() {
    let mut service = Service::of("controller");
    service.configure(&format!("http.address = {ANY:?}\ngrpc.address = {ANY:?}\n"));
    service.start();
    service.says("serving");
    service.kill();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(EmbeddedStore::open(&service.state()));
    service.starts_when_let_go((store.unwrap(), runtime));
    for (held, other) in [("http", "grpc"), ("grpc", "http")] {
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        service.configure(&format!(
            "{held}.address = {address:?}\n{other}.address = {ANY:?}\n"
        ));
        service.starts_when_let_go(listener);
    }
}

#[test]
fn a_relay_waits_for_what_the_one_before_it_still_holds() {
    let mut service = Service::of("relay");
    let socket = UdpSocket::bind(ANY).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let metrics = TcpListener::bind(ANY).unwrap();
    let metrics_address = metrics.local_addr().unwrap().to_string();
    service.configure(&format!(
        "listeners = [{{ transport = \"udp\", address = {address:?} }}]\nmetrics.address = {metrics_address:?}\n\
         [controller]\nendpoints = [\"http://127.0.0.1:9\"]\njoin_token = \"0123456789abcdef\"\n"
    ));
    service.starts_when_let_go((metrics, socket));
    service.starts_when_let_go(UdpSocket::bind(&address).unwrap());
    let lock = File::options()
        .write(true)
        .open(service.state().join("lock"))
        .unwrap();
    lock.lock().unwrap();
    service.starts_when_let_go(lock);
}

#[test]
fn a_controller_takes_its_log_level_over_and_names_the_listeners_that_wait_for_the_next_start() {
    let mut service = Service::of("controller");
    let config = |http: &str, filter: &str| {
        format!("http.address = {http:?}\ngrpc.address = {ANY:?}\nlog.filter = {filter:?}\n")
    };
    service.configure(&config(ANY, "warn"));
    service.start();
    let deadline = Instant::now() + PATIENCE;
    while !service.state().join("join-token").exists() {
        assert!(
            Instant::now() < deadline,
            "it does not start:\n{}",
            service.log()
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // The file is followed once it serves, and is looked at every two seconds.
    service.configure(&config("127.0.0.2:0", "debug"));
    service.says("configuration read again");
    let log = service.log();
    assert!(!log.contains("serving"), "only warnings before:\n{log}");
    assert!(
        log.contains("key=\"http.address\"") && !log.contains("key=\"grpc"),
        "{log}"
    );
    service.configure(&config("127.0.0.2:0", "loud=very"));
    service.says("log.filter = loud=very");
}
