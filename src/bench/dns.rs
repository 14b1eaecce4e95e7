//! `turnfleet bench dns`: the same question to a DNS server by UDP, again and again, with a bounded number on their way.
//!
//! It costs as little as it can, for it runs beside what it measures: the query is made once, and of an answer only its number,
//! its code and whether it holds a record are looked at.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::process::Processes;
use super::{as_float, micros, print, progress};

/// After that a query counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest rest between two queries of a rate.
const PAUSE: Duration = Duration::from_millis(1);
const HEADER_BYTES: usize = 12;
/// Latencies beyond it are as long as it.
const LONGEST_NANOS: u64 = 10_000_000_000;

/// What to ask, and how often.
#[derive(clap::Args, Debug)]
#[group(id = "dns_load")]
pub(crate) struct Args {
    /// The server, ip:port
    #[arg(value_name = "SERVER")]
    server: SocketAddr,
    /// The name to ask for
    #[arg(value_name = "NAME")]
    name: String,
    /// The type of its records
    #[arg(long = "type", value_enum, default_value_t = Kind::A)]
    kind: Kind,
    /// Queries a second; as many as are answered where it is not said
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Queries on their way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    window: u16,
    /// Seconds that count
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// A process of the server, if it is on this machine: its CPU time counts
    #[arg(long)]
    pid: Vec<u32>,
    /// Prints one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// A type of records.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    A,
    Aaaa,
    Srv,
    Naptr,
    Soa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Soa => 6,
            Self::Aaaa => 28,
            Self::Srv => 33,
            Self::Naptr => 35,
        }
    }
}

/// Runs the measurement and prints its figures.
///
/// # Errors
/// When the server cannot be reached, or an answer held nothing of what was asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    let processes = Processes::new(&args.pid)?;
    let own = Processes::new(&[std::process::id()])?;
    progress(&format!("{}: {}", args.server, args.name));
    let mut load = Load::new(args)?;
    let before = [&processes, &own].map(Processes::cpu_time);
    let duration = Duration::from_secs(args.duration);
    load.run(duration)?;
    let after = [&processes, &own].map(Processes::cpu_time);
    let cores = [0, 1].map(|at| {
        let used = after[at].saturating_sub(before[at]);
        used.as_secs_f64() / duration.as_secs_f64()
    });
    let report = Report::new(args, &load, cores);
    print(&if args.json {
        serde_json::to_string(&report)?
    } else {
        report.table()
    });
    ensure!(load.empty == 0, "{} answers held no record", load.empty);
    Ok(())
}

/// The query without its number, RFC 1035 §4.1, with an OPT record for answers of 1232 bytes.
fn query(name: &str, kind: Kind) -> Result<Vec<u8>> {
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok();
        let length = length.filter(|length| (1..64).contains(length));
        query.push(length.with_context(|| format!("{name} is no domain name"))?);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.number().to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    Ok(query)
}

/// The queries of one socket.
struct Load {
    socket: UdpSocket,
    query: Vec<u8>,
    /// For each place of the window the number that is on its way there, and since when.
    sent: Vec<Option<(u16, Instant)>>,
    free: Vec<u16>,
    round: u16,
    rate: Option<u32>,
    latency: Histogram<u64>,
    asked: u64,
    lost: u64,
    truncated: u64,
    empty: u64,
}

impl Load {
    fn new(args: &Args) -> Result<Self> {
        let any = if args.server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(args.server)?;
        socket.set_read_timeout(Some(PAUSE))?;
        Ok(Self {
            socket,
            query: query(&args.name, args.kind)?,
            sent: vec![None; usize::from(args.window)],
            free: (0..args.window).collect(),
            round: 0,
            rate: args.rate,
            latency: Histogram::new_with_bounds(1, LONGEST_NANOS, 3)?,
            asked: 0,
            lost: 0,
            truncated: 0,
            empty: 0,
        })
    }

    fn run(&mut self, duration: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut answer = [0; 2048];
        loop {
            let elapsed = begun.elapsed();
            if elapsed >= duration {
                break;
            }
            let due = self.rate.map_or(u64::MAX, |rate| {
                let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                u64::from(rate) * millis / 1000
            });
            while self.asked < due && self.send()? {}
            match self.socket.recv(&mut answer) {
                Ok(length) => self.take(&answer[..length]),
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) =>
                {
                    self.give_up();
                }
                Err(error) => return Err(error).context("the server does not take queries"),
            }
        }
        Ok(())
    }

    /// Sends a query, where there is a place for it.
    fn send(&mut self) -> Result<bool> {
        let Some(place) = self.free.pop() else {
            return Ok(false);
        };
        // A number tells its place, and one query of a place from the next.
        self.round = self.round.wrapping_add(1) & 0xf;
        let number = place | (self.round << 12);
        self.query[..2].copy_from_slice(&number.to_be_bytes());
        self.socket.send(&self.query)?;
        self.sent[usize::from(place)] = Some((number, Instant::now()));
        self.asked += 1;
        Ok(true)
    }

    fn take(&mut self, answer: &[u8]) {
        let Some(&[high, low, flags, code, _, _, _, records]) = answer.get(..8) else {
            return;
        };
        let number = u16::from_be_bytes([high, low]);
        let place = number & 0xfff;
        let Some(slot) = self.sent.get_mut(usize::from(place)) else {
            return;
        };
        let Some((_, since)) = slot.take_if(|(sent, _)| *sent == number) else {
            return;
        };
        self.free.push(place);
        let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(LONGEST_NANOS);
        self.latency.saturating_record(nanos);
        if flags & 0x02 != 0 {
            self.truncated += 1;
        } else if code & 0x0f != 0 || records == 0 || answer.len() <= HEADER_BYTES {
            self.empty += 1;
        }
    }

    /// Counts what is overdue, and frees its places.
    fn give_up(&mut self) {
        for (place, slot) in (0..).zip(&mut self.sent) {
            if slot
                .take_if(|(_, since)| since.elapsed() > PATIENCE)
                .is_some()
            {
                self.free.push(place);
                self.lost += 1;
            }
        }
    }
}

/// The figures of a run.
#[derive(Debug, Serialize)]
struct Report {
    answers: u64,
    answers_per_second: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    /// Queries without an answer within a second.
    lost: u64,
    /// Answers that say no more than to ask by TCP.
    truncated: u64,
    /// Answers without a record.
    empty: u64,
    /// Cores that the server used, where its process is named.
    server_cores: Option<f64>,
    /// Cores that this process used.
    own_cores: f64,
}

impl Report {
    fn new(args: &Args, load: &Load, [server, own]: [f64; 2]) -> Self {
        Self {
            answers: load.latency.len(),
            answers_per_second: as_float(load.latency.len()) / as_float(args.duration),
            latency_p50_us: micros(&load.latency, 0.5),
            latency_p99_us: micros(&load.latency, 0.99),
            lost: load.lost,
            truncated: load.truncated,
            empty: load.empty,
            server_cores: (!args.pid.is_empty()).then_some(server),
            own_cores: own,
        }
    }

    fn table(&self) -> String {
        let mut lines = vec![
            format!("answers/s              {:>10.0}", self.answers_per_second),
            format!("latency p50, us        {:>10.0}", self.latency_p50_us),
            format!("latency p99, us        {:>10.0}", self.latency_p99_us),
            format!("lost                   {:>10}", self.lost),
            format!("sent to TCP            {:>10}", self.truncated),
            format!("without a record       {:>10}", self.empty),
            format!("CPU of this, cores     {:>10.2}", self.own_cores),
        ];
        if let Some(cores) = self.server_cores {
            lines.push(format!("CPU of server, cores   {cores:>10.2}"));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_one_question_and_says_how_long_the_answer_may_be() {
        let query = query("turn.example.", Kind::Srv).unwrap();
        assert_eq!(
            query[12..],
            *b"\x04turn\x07example\0\0\x21\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0"
        );
        assert!(super::query("a..b", Kind::A).is_err());
    }
}
