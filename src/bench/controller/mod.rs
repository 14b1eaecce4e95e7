//! `turnfleet bench controller`: requests for credentials, one after the other on each of many connections that stay open,
//! as fast as the controller answers.
//!
//! It costs as little as it can, for it runs beside what it measures: requests are made beforehand, sockets are raw, and of
//! an answer only the length is looked for. One in [`LOOK_EVERY`] is read in whole.

mod connection;
mod load;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use ureq::http::Uri;

use super::process::Processes;
use super::{as_float, micros, print, progress};
use load::{Measured, Stage};

/// Answers to one that is read in whole.
const LOOK_EVERY: u64 = 64;
/// Requests that are not counted, before those that are.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to ask, and how often.
#[derive(clap::Args, Debug)]
#[group(id = "controller_load")]
pub(crate) struct Args {
    /// The controller's HTTP API, http://HOST:PORT
    #[arg(value_name = "URL")]
    url: Uri,
    /// An API token with the scope mint
    #[arg(
        long,
        env = "TURNFLEET_API_TOKEN",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    token: String,
    /// Which of the two ways to ask
    #[arg(long, value_enum, default_value_t = Path::Turn)]
    path: Path,
    /// Connections, each with one request on its way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Threads that the connections are shared out to
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=2))]
    threads: u16,
    /// Users that credentials are asked for, in turn
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Seconds that count
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// A process of the controller, if it is on this machine: its CPU time and memory count
    #[arg(long)]
    pid: Vec<u32>,
    /// Prints one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// A way to ask for a credential.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// `GET /turn`
    Turn,
    /// `POST /v1/ice-servers`
    IceServers,
}

impl Path {
    /// The request of `user`, as it goes over the wire.
    fn request(self, host: &str, token: &str, user: &str) -> Vec<u8> {
        let common = format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n");
        match self {
            Self::Turn => {
                format!("GET /turn?service=turn&username={user} HTTP/1.1\r\n{common}\r\n")
            }
            Self::IceServers => {
                let body = format!("{{\"user\":\"{user}\"}}");
                let about = format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\n",
                    body.len()
                );
                format!("POST /v1/ice-servers HTTP/1.1\r\n{common}{about}\r\n{body}")
            }
        }
        .into_bytes()
    }

    /// Whether `body` is an answer to `user`.
    fn is_for(self, body: &[u8], user: &str) -> bool {
        let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else {
            return false;
        };
        let (server, list) = match self {
            Self::Turn => (Some(&answer), "uris"),
            Self::IceServers => (answer.pointer("/iceServers/0"), "urls"),
        };
        let named = server.and_then(|server| server["username"].as_str());
        let whose = named.and_then(|name| name.split_once(':'));
        let uris = server.and_then(|server| server[list].as_array());
        whose.is_some_and(|(_, name)| name == user) && uris.is_some_and(|uris| !uris.is_empty())
    }
}

/// The requests of all users, made once.
struct Requests {
    path: Path,
    users: Vec<String>,
    texts: Vec<Vec<u8>>,
}

impl Requests {
    fn new(args: &Args, host: &str) -> Self {
        let users: Vec<_> = (0..args.users).map(|user| format!("user{user}")).collect();
        let text = |user: &String| args.path.request(host, &args.token, user);
        Self {
            path: args.path,
            texts: users.iter().map(text).collect(),
            users,
        }
    }
}

/// Runs the measurement and prints its figures.
///
/// # Errors
/// When the controller cannot be reached, or an answer was not what was asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (address, host) = place(&args.url)?;
    let processes = Processes::new(&args.pid)?;
    let own = Processes::new(&[std::process::id()])?;
    let requests = Requests::new(args, &host);
    let duration = Duration::from_secs(args.duration);
    progress(&format!(
        "{}: {} connections for {duration:?}",
        args.url, args.connections
    ));
    let stage = Stage::default();
    let (measured, cpu) = thread::scope(|scope| {
        let threads: Vec<_> = shares(args.connections, args.threads)
            .map(|share| {
                let (requests, stage) = (&requests, &stage);
                scope.spawn(move || load::run(address, share, requests, stage))
            })
            .collect();
        pass(WARM_UP);
        stage.count();
        let before = [&processes, &own].map(Processes::cpu_time);
        pass(duration);
        let after = [&processes, &own].map(Processes::cpu_time);
        stage.end();
        let mut sum = Measured::new();
        for thread in threads {
            sum.add(
                &thread
                    .join()
                    .expect("a thread that makes load does not panic")?,
            );
        }
        let cpu = [0, 1].map(|at| after[at].saturating_sub(before[at]));
        anyhow::Ok((sum, cpu))
    })?;
    let memory = (!args.pid.is_empty()).then(|| processes.resident_bytes());
    let report = Report::new(args, &measured, cpu, memory);
    print(&if args.json {
        serde_json::to_string(&report)?
    } else {
        report.table()
    });
    measured.verdict()
}

/// Lets time pass.
fn pass(duration: Duration) {
    let start = Instant::now();
    while let Some(left) = duration.checked_sub(start.elapsed()) {
        thread::park_timeout(left);
    }
}

/// Where the API is, and the value of the header `Host`.
fn place(url: &Uri) -> Result<(SocketAddr, String)> {
    ensure!(
        url.scheme_str() == Some("http"),
        "{url}: expected http://HOST:PORT; TLS is not spoken here"
    );
    let authority = url.authority().context("the URL names no host")?;
    let place = (authority.host(), authority.port_u16().unwrap_or(80));
    let Some(address) = place.to_socket_addrs()?.next() else {
        bail!("{authority} has no address");
    };
    Ok((address, authority.to_string()))
}

/// The connections of each thread; none without any.
fn shares(connections: u16, threads: u16) -> impl Iterator<Item = u16> {
    let share = move |thread| connections / threads + u16::from(thread < connections % threads);
    (0..threads).map(share).filter(|share| *share > 0)
}

/// The figures of a run.
#[derive(Debug, Serialize)]
struct Report {
    connections: u16,
    requests: u64,
    requests_per_second: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    latency_p999_us: f64,
    /// Answers with another status than 200 or 201.
    refused: u64,
    /// Answers that were read in whole and were not for the user who asked.
    wrong: u64,
    /// Connections that the controller ended.
    ended: u64,
    /// Cores that the controller used, where its process is named.
    controller_cores: Option<f64>,
    /// Cores that this process used.
    own_cores: f64,
    controller_memory_bytes: Option<u64>,
}

impl Report {
    fn new(args: &Args, measured: &Measured, cpu: [Duration; 2], memory: Option<u64>) -> Self {
        let seconds = Duration::from_secs(args.duration).as_secs_f64();
        let [controller, own] = cpu.map(|cpu| cpu.as_secs_f64() / seconds);
        Self {
            connections: args.connections,
            requests: measured.latency.len(),
            requests_per_second: as_float(measured.latency.len()) / seconds,
            latency_p50_us: micros(&measured.latency, 0.5),
            latency_p99_us: micros(&measured.latency, 0.99),
            latency_p999_us: micros(&measured.latency, 0.999),
            refused: measured.refused,
            wrong: measured.wrong,
            ended: measured.ended,
            controller_cores: memory.map(|_| controller),
            own_cores: own,
            controller_memory_bytes: memory,
        }
    }

    fn table(&self) -> String {
        let mut lines = vec![
            format!("requests/s             {:>10.0}", self.requests_per_second),
            format!("latency p50, us        {:>10.0}", self.latency_p50_us),
            format!("latency p99, us        {:>10.0}", self.latency_p99_us),
            format!("latency p99.9, us      {:>10.0}", self.latency_p999_us),
            format!("refused                {:>10}", self.refused),
            format!("wrong answers          {:>10}", self.wrong),
            format!("connections ended      {:>10}", self.ended),
            format!("CPU of this, cores     {:>10.2}", self.own_cores),
        ];
        if let (Some(cores), Some(memory)) = (self.controller_cores, self.controller_memory_bytes) {
            lines.push(format!("CPU of controller, cores {cores:>8.2}"));
            lines.push(format!(
                "memory of it, MB       {:>10.1}",
                as_float(memory) / 1e6
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_its_thread() {
        let shared = |connections, threads| shares(connections, threads).collect::<Vec<_>>();
        assert_eq!(shared(5, 2), [3, 2]);
        assert_eq!(shared(1, 2), [1]);
    }

    #[test]
    fn an_answer_is_for_the_user_that_it_names() {
        let turn = br#"{"username":"17:a","password":"p","ttl":1,"uris":["turn:192.0.2.1"]}"#;
        assert!(Path::Turn.is_for(turn, "a"));
        assert!(!Path::Turn.is_for(turn, "b"));
        assert!(!Path::Turn.is_for(b"{}", "a"));
        let ice = br#"{"iceServers":[{"username":"17:a","urls":["turn:192.0.2.1"]}]}"#;
        assert!(Path::IceServers.is_for(ice, "a"));
        assert!(!Path::IceServers.is_for(turn, "a"));
    }
}
