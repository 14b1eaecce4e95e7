//! `turnfleet bench TARGET`: load on any TURN server, with what it carried, lost, and cost.
//!
//! Allocations are held, channels bound, and verified payloads sent over them at a fixed rate or as fast as the server
//! takes them. Without `--peer` two allocations talk to each other, so that each payload is relayed twice; with it the
//! payloads go to a socket of this process and back. One thread makes the load: leave it a core of its own. With `--bulk`
//! bytes go through one TCP allocation instead.

mod bulk;
mod flow;
mod load;
mod payload;
mod peer;
mod report;
mod traffic;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use turnfleet_relay::shard::raise_descriptor_limit;

use super::process::Processes;
use super::{print, progress};
use crate::credentials::SecretArgs;
use crate::target::{Credentials, Target};
use load::Load;
use report::{Report, Round};
use traffic::Traffic;

/// What to send where, and what to measure.
#[derive(clap::Args, Debug)]
#[group(id = "relay")]
pub(crate) struct Args {
    /// The server: turn:HOST:PORT?transport=udp|tcp, turns:HOST:PORT, or plain:IP:PORT for a UDP forwarder without TURN.
    #[arg(required = true)]
    target: Option<Target>,
    /// A second server, measured in alternation with the first; ratios of the first to it are printed.
    #[arg(long, value_name = "URI")]
    versus: Option<Target>,
    #[command(flatten)]
    secret: SecretArgs,
    /// A static user.
    #[arg(long, value_name = "NAME:PASSWORD", conflicts_with_all = ["secret", "secret_file"])]
    user: Option<String>,
    /// The CA that the certificate of a turns: server is checked against.
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
    /// Allocations held at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    allocations: u32,
    /// Usernames that the allocations are spread over [default: one for 50 allocations].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    users: Option<u32>,
    /// Application bytes in a packet.
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u16).range(32..=1400))]
    payload: u16,
    /// Packets a second from each allocation, and as many to it.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// As fast as the server takes them, with `--window` packets on their way for each allocation and direction.
    #[arg(long, conflicts_with = "rate")]
    max: bool,
    /// A part of what the server takes, in percent: a round at most is run first, and with `--versus` the slower server sets
    /// the rate of both.
    #[arg(long, value_name = "PERCENT", conflicts_with_all = ["rate", "max"], value_parser = clap::value_parser!(u8).range(1..=100))]
    load: Option<u8>,
    /// Packets on their way for each allocation and direction under `--max`.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// Seconds of traffic in a round; zero only makes and holds the allocations.
    #[arg(long, default_value_t = 10)]
    duration: u64,
    /// Rounds for each server; figures are medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// An address of this machine for a peer [default: the allocations are each other's peers].
    #[arg(long, value_name = "IP[:PORT]", value_parser = peer::parse_place)]
    peer: Option<SocketAddr>,
    /// As `--peer`, for the second server [default: the address of `--peer`, any port].
    #[arg(long, value_name = "IP[:PORT]", requires_all = ["peer", "versus"], value_parser = peer::parse_place)]
    versus_peer: Option<SocketAddr>,
    /// Which way packets go; with `--peer` only.
    #[arg(long, value_enum, default_value_t = Directions::Both, requires = "peer")]
    directions: Directions,
    /// Sends so many bytes (500M, 10G) through one TCP connection (RFC 6062) to the peer and back instead of packets, and
    /// compares them; over turn:…?transport=tcp or turns:.
    #[arg(long, value_name = "BYTES", requires = "peer", conflicts_with_all = ["versus", "allocations", "rate", "max", "load", "duration", "rounds", "directions"], value_parser = bulk::parse_size)]
    bulk: Option<u64>,
    /// A process or thread of the server whose CPU time and memory count; may be given several times.
    #[arg(long)]
    pid: Vec<u32>,
    /// As `--pid`, for the second server.
    #[arg(long, requires = "versus")]
    versus_pid: Vec<u32>,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Which way packets go.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Directions {
    /// From clients to peers and back.
    Both,
    /// From clients to peers.
    ToPeer,
    /// From peers to clients.
    ToClient,
}

/// How packets are spaced.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// So many a second from each allocation in each direction.
    Rate(f64),
    /// So many on their way for each allocation and direction.
    Window(u32),
}

/// One server under load.
struct Contestant {
    load: Load,
    processes: Processes,
    report: Report,
}

impl Contestant {
    /// Makes the allocations at `target` and measures what that takes.
    fn prepare(
        args: &Args,
        target: &Target,
        peer: Option<SocketAddr>,
        pids: &[u32],
    ) -> Result<Self> {
        let processes = Processes::new(pids)?;
        let before = processes.resident_bytes();
        let credentials = Credentials::new(&args.secret, args.user.as_deref(), args.users());
        let mut load = Load::new(args, target, peer, &credentials?)?;
        progress(&format!(
            "{target}: making {} allocations",
            args.allocations
        ));
        let allocated = load.allocate()?;
        let after = processes.resident_bytes();
        let memory =
            (!pids.is_empty()).then(|| after.saturating_sub(before) / u64::from(args.allocations));
        let report = Report::new(target.to_string(), args.allocations, allocated, memory);
        Ok(Self {
            load,
            processes,
            report,
        })
    }

    /// One round of traffic, which counts.
    fn run(&mut self, label: &str, duration: Duration) -> Result<()> {
        let cpu_before = self.processes.cpu_time();
        let traffic = self.carry(label, duration)?;
        let cpu = self.processes.cpu_time().saturating_sub(cpu_before);
        let measured = !self.processes.is_empty();
        self.report
            .add(Round::new(&traffic, measured.then_some(cpu)));
        Ok(())
    }

    fn carry(&mut self, label: &str, duration: Duration) -> Result<Traffic> {
        let started = Instant::now();
        let mut shown = started;
        self.load.run(duration, |traffic| {
            if shown.elapsed() >= Duration::from_secs(1) {
                shown = Instant::now();
                progress(&format!("{label}: {}", traffic.summary(started.elapsed())));
            }
        })
    }
}

impl Args {
    fn target(&self) -> Result<&Target> {
        self.target.as_ref().context("no server is named")
    }

    fn users(&self) -> u32 {
        self.users.unwrap_or_else(|| self.allocations.div_ceil(50))
    }

    fn pace(&self) -> Pace {
        if self.max || self.load.is_some() {
            Pace::Window(self.window)
        } else {
            Pace::Rate(self.rate.into())
        }
    }
}

/// Runs the measurement and prints its figures.
///
/// # Errors
/// When a target cannot be reached or used, or every packet was lost.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let (Some(total), Some(peer)) = (args.bulk, args.peer) {
        let report = bulk::run(args, peer, total)?;
        print(&if args.json {
            serde_json::to_string(&report)?
        } else {
            report.table()
        });
        return Ok(());
    }
    ensure!(
        args.peer.is_some() || args.allocations.is_multiple_of(2),
        "--allocations {} is odd: without --peer two allocations talk to each other, so an even number is needed",
        args.allocations
    );
    raise_descriptor_limit().context("cannot raise the limit on open files")?;
    let mut contestants = vec![Contestant::prepare(
        args,
        args.target()?,
        args.peer,
        &args.pid,
    )?];
    if let Some(versus) = &args.versus {
        let anywhere = args.peer.map(|peer| SocketAddr::new(peer.ip(), 0));
        let peer = args.versus_peer.or(anywhere);
        contestants.push(Contestant::prepare(args, versus, peer, &args.versus_pid)?);
    }
    if args.duration > 0 {
        rounds(args, &mut contestants)?;
    }
    for contestant in &mut contestants {
        contestant.load.release()?;
    }
    let reports: Vec<&Report> = contestants
        .iter()
        .map(|contestant| &contestant.report)
        .collect();
    print(&if args.json {
        report::json(&reports)?
    } else {
        report::table(&reports)
    });
    ensure!(
        args.duration == 0 || reports.iter().all(|report| report.carried_anything()),
        "no packet came through"
    );
    Ok(())
}

/// Every round, for each server in turn.
fn rounds(args: &Args, contestants: &mut [Contestant]) -> Result<()> {
    let duration = Duration::from_secs(args.duration);
    if let Some(percent) = args.load {
        let mut most = f64::INFINITY;
        for contestant in &mut *contestants {
            let label = format!("at most {}", contestant.report.target());
            let traffic = contestant.carry(&label, duration)?;
            most = most.min(contestant.load.rate(&traffic));
        }
        let rate = most * f64::from(percent) / 100.0;
        progress(&format!(
            "{percent} %: {rate:.1} packets a second from each allocation, and as many to it"
        ));
        for contestant in &mut *contestants {
            contestant.load.set_pace(Pace::Rate(rate));
        }
    }
    for round in 1..=args.rounds {
        for contestant in &mut *contestants {
            let target = contestant.report.target();
            let label = format!("round {round}/{} {target}", args.rounds);
            contestant.run(&label, duration)?;
        }
    }
    Ok(())
}
