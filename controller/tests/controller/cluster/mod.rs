//! An etcd cluster of a test's own, on free ports and in a directory of its own. Members can be killed and come back.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use turnfleet_controller::store::{EtcdConfig, EtcdStore, Store as _};

/// The server.
const ETCD: &str = "/usr/bin/etcd";
/// Its client.
const ETCDCTL: &str = "/usr/bin/etcdctl";

/// One cluster at a time: several slow each other down until they elect leaders over and over.
static ONE: AsyncMutex<()> = AsyncMutex::const_new(());

/// A cluster.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    members: Arc<Mutex<Vec<Member>>>,
    endpoints: Vec<String>,
    /// What `etcdctl` needs beside the endpoints.
    pub(crate) client_arguments: Vec<String>,
    chaos: Option<(Arc<AtomicBool>, std::thread::JoinHandle<()>)>,
    _one: MutexGuard<'static, ()>,
}

struct Member {
    command: Vec<String>,
    child: Option<Child>,
    client: u16,
}

/// Whether etcd is on this machine; says so where not, and panics where tools are required.
#[expect(clippy::print_stderr, reason = "a person shall see what did not run")]
pub(crate) fn is_installed() -> bool {
    if Path::new(ETCD).exists() && Path::new(ETCDCTL).exists() {
        return true;
    }
    assert!(
        std::env::var_os("TURNFLEET_REQUIRE_TOOLS").is_none(),
        "etcd is missing; `cargo xtask test` as root installs what the tests need"
    );
    eprintln!("not run: etcd is missing; `cargo xtask test` as root installs it");
    false
}

impl Cluster {
    /// Starts a cluster of three that speaks plain HTTP, and waits until it answers; `None` where there is no etcd.
    pub(crate) async fn start() -> Option<Self> {
        let cluster = Self::launch("http", 3, &[]).await?;
        cluster.ready(&cluster.config()).await;
        Some(cluster)
    }

    /// Starts `members` whose clients speak `scheme`, with arguments for each.
    pub(crate) async fn launch(scheme: &str, members: usize, arguments: &[String]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let one = ONE.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * members);
        let (clients, peers) = ports.split_at(members);
        let initial: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(place, port)| format!("n{place}=http://127.0.0.1:{port}"))
            .collect();
        let initial = initial.join(",");
        let token = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let command = |place: usize| {
            let client = format!("{scheme}://127.0.0.1:{}", clients[place]);
            let peer = format!("http://127.0.0.1:{}", peers[place]);
            let data = dir.path().join(format!("n{place}")).display().to_string();
            let log = dir
                .path()
                .join(format!("n{place}.log"))
                .display()
                .to_string();
            let name = format!("n{place}");
            [
                ("--name", name.as_str()),
                ("--data-dir", &data),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &initial),
                ("--initial-cluster-state", "new"),
                ("--initial-cluster-token", &token),
                ("--heartbeat-interval", "50"),
                ("--election-timeout", "500"),
                ("--logger", "zap"),
                ("--log-level", "warn"),
                ("--log-outputs", &log),
            ]
            .into_iter()
            .flat_map(|(key, value)| [key.to_owned(), value.to_owned()])
            .chain(arguments.iter().cloned())
            .collect::<Vec<_>>()
        };
        let made = (0..members).map(|place| Member {
            command: command(place),
            child: None,
            client: clients[place],
        });
        let mut made: Vec<_> = made.collect();
        for member in &mut made {
            member.start();
        }
        let endpoint = |port: &u16| format!("{scheme}://127.0.0.1:{port}");
        Some(Self {
            endpoints: clients.iter().map(endpoint).collect(),
            members: Arc::new(Mutex::new(made)),
            client_arguments: Vec::new(),
            chaos: None,
            dir,
            _one: one,
        })
    }

    /// Waits until the cluster answers to `config`, and checks that it is ours: a member that found its port taken has ended.
    pub(crate) async fn ready(&self, config: &EtcdConfig) {
        let store = EtcdStore::new(config).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = store.range("/ready").await {
            assert!(Instant::now() < deadline, "etcd does not answer: {error:?}");
            tokio::task::yield_now().await;
        }
        // Nothing fails while the lock is held: the members are ended under it.
        let all_run = self.members.lock().unwrap().iter_mut().all(|member| {
            let child = member.child.as_mut();
            child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
        });
        assert!(all_run, "a member has ended");
    }

    /// How a store reaches it, without TLS and login.
    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: self.endpoints.clone(),
            ca: None,
            client: None,
            login: None,
        }
    }

    pub(crate) fn store(&self) -> EtcdStore {
        EtcdStore::new(&self.config()).unwrap()
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Where the members keep their data.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Ends a member as a power cut would.
    pub(crate) fn kill(&self, place: usize) {
        self.members.lock().unwrap()[place].kill();
    }

    /// Ends every member.
    pub(crate) fn kill_all(&self) {
        let mut members = self.members.lock().unwrap();
        members.iter_mut().for_each(Member::kill);
    }

    /// Starts a member again on its data.
    pub(crate) fn restart(&self, place: usize) {
        self.members.lock().unwrap()[place].start();
    }

    pub(crate) fn restart_all(&self) {
        let mut members = self.members.lock().unwrap();
        members.iter_mut().for_each(Member::start);
    }

    /// Process ids of the members that run.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let members = self.members.lock().unwrap();
        let running = members.iter().filter_map(|member| member.child.as_ref());
        running.map(Child::id).collect()
    }

    /// Kills one member after the other from here on, each back before the next dies.
    pub(crate) fn lose_members(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        let (members, stopped) = (Arc::clone(&self.members), Arc::clone(&stop));
        let chaos = std::thread::spawn(move || {
            for place in (0..3).cycle() {
                members.lock().unwrap()[place].kill();
                std::thread::park_timeout(Duration::from_millis(400));
                members.lock().unwrap()[place].start();
                let client = members.lock().unwrap()[place].client;
                while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, client)).is_err() {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                std::thread::park_timeout(Duration::from_millis(400));
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        self.chaos = Some((stop, chaos));
    }

    /// Runs `etcdctl`.
    #[track_caller]
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let said = self.try_ctl(arguments);
        said.unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
    }

    /// Runs `etcdctl`, which may fail.
    pub(crate) fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(ETCDCTL)
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints.join(",")])
            .args(&self.client_arguments)
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{text}{errors}"))
        }
    }
}

/// Ports that nothing listens on, below those that the kernel gives to whoever asks for any: none of them is another's by the
/// time that a member listens, or comes back.
fn free_ports(number: usize) -> Vec<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Programs that run at once begin at different places.
    let begin = std::process::id().wrapping_mul(97);
    let mut free = Vec::with_capacity(number);
    while free.len() < number {
        let place = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = FIRST + u16::try_from(place).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            free.push(port);
        }
    }
    free
}

impl Member {
    fn start(&mut self) {
        let child = Command::new(ETCD)
            .args(&self.command)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((stop, chaos)) = self.chaos.take() {
            stop.store(true, Ordering::Relaxed);
            let _ = chaos.join();
        }
        self.kill_all();
    }
}
