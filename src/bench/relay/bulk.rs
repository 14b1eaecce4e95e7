//! A bulk transfer through one TCP allocation (RFC 6062): bytes go to a peer of this process and come back, and every one
//! of them is compared with what was sent.
//!
//! The client's end is driven by one thread that never blocks, so that either direction can wait for the other; the peer is a
//! thread that sends back what it reads.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, Result, bail, ensure};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::client::{AllocateOptions, Client, Config, Event};
use turnfleet_turn::{Instant, PeerAddr};

use super::Args;
use super::load::seed;
use crate::bench::process::Processes;
use crate::bench::{as_float, progress};
use crate::link::{Link, Opener, Stream};
use crate::target::Credentials;

/// How long the server may take for an answer, or let the transfer stand still.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one look at the sockets waits.
const LOOK: Duration = Duration::from_millis(20);
/// How often memory is measured, the allocation kept alive, and the person told.
const TICK: Duration = Duration::from_secs(1);
/// Bytes written or read at a time.
const BLOCK_LEN: usize = 64 << 10;

/// The figures of a transfer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    target: String,
    /// Bytes that went to the peer, and came back as they were.
    bytes: u64,
    seconds: f64,
    /// In each of the two directions.
    megabytes_per_second: f64,
    /// Where processes were named: before the connection, the most seen meanwhile, and after it.
    memory_bytes: Option<[u64; 3]>,
}

/// A client, its stream, and the time that passes for both.
struct Line {
    client: Client,
    link: Link,
    poll: Poll,
    batch: ReceiveBatch,
    began: Clock,
}

/// Sends `total` bytes to a peer at `place` and back.
///
/// # Errors
/// When the server cannot be used, stands still, or brings back other bytes.
pub(super) fn run(args: &Args, place: SocketAddr, total: u64) -> Result<Report> {
    let credentials = Credentials::new(&args.secret, args.user.as_deref(), 1)?;
    let opener = Opener::new(args.target()?, args.ca.as_deref())?;
    let open = || -> Result<Line> {
        let (username, password) = credentials.of(0);
        let client = Client::new(Config {
            transport: opener.transport(),
            username,
            password,
            password_algorithms: false,
            seed: seed(0),
        });
        Line::new(client, opener.open()?)
    };
    let listener = TcpListener::bind(place).with_context(|| format!("--peer {place}"))?;
    let peer = listener.local_addr()?;
    let echo = thread::spawn(move || echo(&listener));

    let processes = Processes::new(&args.pid)?;
    let before = processes.resident_bytes();
    let mut control = open()?;
    let stream = connect(&mut control, open()?, peer)?;
    let began = Clock::now();
    let mut most = before;
    Transfer::new(stream, total)?.run(|moved| {
        most = most.max(processes.resident_bytes());
        progress(&format!(
            "{:>4} s, {moved} of {total} bytes came back",
            began.elapsed().as_secs()
        ));
        control.turn(Duration::ZERO)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let echoed = echo.join();
    let echoed = echoed.map_err(|_| anyhow::anyhow!("the peer has failed"))??;
    ensure!(
        echoed == total,
        "the peer was sent {echoed} bytes of {total}"
    );
    let memory = [
        before,
        most.max(processes.resident_bytes()),
        processes.resident_bytes(),
    ];
    Ok(Report {
        target: args.target()?.to_string(),
        bytes: total,
        seconds,
        megabytes_per_second: as_float(total) / seconds / 1e6,
        memory_bytes: (!processes.is_empty()).then_some(memory),
    })
}

impl Report {
    /// A line for each figure.
    pub(super) fn table(&self) -> String {
        let megabytes = |bytes: u64| format!("{:.1}", as_float(bytes) / 1e6);
        let [before, most, after] = match self.memory_bytes {
            Some(memory) => memory.map(megabytes),
            None => ["-", "-", "-"].map(str::to_owned),
        };
        format!(
            "{}\nbytes there and back         {}\nseconds                      {:.1}\n\
             megabytes/s in each direction {:.0}\nmemory before, most, after, MB {before} {most} {after}",
            self.target, self.bytes, self.seconds, self.megabytes_per_second
        )
    }
}

/// Sends one connection back what it brings, to its end; returns how much that was.
fn echo(listener: &TcpListener) -> io::Result<u64> {
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    io::copy(&mut &stream, &mut &stream)
}

/// A connection from the relayed address of `control` to `peer`, and the client's stream that carries it.
fn connect(control: &mut Line, mut data: Line, peer: SocketAddr) -> Result<Stream> {
    let options = AllocateOptions {
        tcp: true,
        ..AllocateOptions::default()
    };
    let _ = control.client.allocate(control.now(), options);
    control.told("the allocation", |event| {
        matches!(event, Event::Allocated(_)).then_some(())
    })?;
    let _ = control.client.connect(control.now(), PeerAddr(peer));
    let connection = control.told("the connection to the peer", |event| {
        let Event::Connected { connection, .. } = event else {
            return None;
        };
        Some(*connection)
    })?;
    let _ = data.client.bind_connection(data.now(), connection);
    data.told("the connection's own stream", |event| {
        matches!(event, Event::ConnectionBound { .. }).then_some(())
    })?;
    match data.link {
        Link::Stream(stream) => Ok(*stream),
        Link::Udp(_) => bail!("--bulk needs turn:…?transport=tcp or turns:"),
    }
}

impl Line {
    fn new(client: Client, link: Link) -> Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&link.descriptor()),
            Token(0),
            Interest::READABLE,
        )?;
        Ok(Self {
            client,
            link,
            poll,
            batch: ReceiveBatch::new(1),
            began: Clock::now(),
        })
    }

    fn now(&self) -> Instant {
        Instant::default().after(self.began.elapsed())
    }

    /// Waits for the event that `pick` wants.
    fn told<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> Result<T> {
        let began = Clock::now();
        loop {
            self.turn(LOOK)?;
            while let Some(event) = self.client.poll_event() {
                if let Event::Failed { method, why, .. } = &event {
                    bail!("{method:?}: {why:?}");
                }
                if let Some(picked) = pick(&event) {
                    return Ok(picked);
                }
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "no word of {what} within {PATIENCE:?}"
            );
        }
    }

    /// Sends what is due, and takes in what comes within `limit`.
    fn turn(&mut self, limit: Duration) -> Result<()> {
        let now = self.now();
        self.client.handle_timeout(now);
        let mut message = Vec::new();
        while self.client.poll_transmit(&mut message) {
            self.link.send(&message)?;
            message.clear();
        }
        wait(&mut self.poll, &mut Events::with_capacity(4), limit)?;
        let client = &mut self.client;
        self.link.receive(&mut self.batch, |message| {
            client.handle_input(now, message);
        })
    }
}

/// The bytes on their way.
struct Transfer {
    stream: Stream,
    poll: Poll,
    total: u64,
    sent: u64,
    came: u64,
    /// Generated and not sent.
    block: Vec<u8>,
    buffer: Vec<u8>,
    expected: Vec<u8>,
}

impl Transfer {
    fn new(stream: Stream, total: u64) -> Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&stream.descriptor()),
            Token(0),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Self {
            stream,
            poll,
            total,
            sent: 0,
            came: 0,
            block: Vec::new(),
            buffer: vec![0; BLOCK_LEN],
            expected: Vec::new(),
        })
    }

    /// To the end; `tick` hears once in a while how many bytes have come back.
    fn run(mut self, mut tick: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut events = Events::with_capacity(4);
        let (mut moved_at, mut ticked_at) = (Clock::now(), Clock::now());
        while self.came < self.total {
            let wrote = self.write()?;
            let read = self.read()?;
            if wrote || read {
                moved_at = Clock::now();
            } else {
                ensure!(
                    moved_at.elapsed() < PATIENCE,
                    "{} bytes went and {} came, then nothing for {PATIENCE:?}",
                    self.sent,
                    self.came
                );
                wait(&mut self.poll, &mut events, LOOK)?;
            }
            if ticked_at.elapsed() > TICK {
                ticked_at = Clock::now();
                tick(self.came)?;
            }
        }
        Ok(())
    }

    /// Writes once; `false` where nothing could be written.
    fn write(&mut self) -> Result<bool> {
        if self.block.is_empty() {
            let rest = usize::try_from(self.total - self.sent).unwrap_or(usize::MAX);
            fill(self.sent, rest.min(BLOCK_LEN), &mut self.block);
        }
        let written = self.stream.write_some(&self.block)?;
        self.block.drain(..written);
        self.sent += written as u64;
        Ok(written > 0)
    }

    /// Reads once and compares; `false` where nothing waited.
    fn read(&mut self) -> Result<bool> {
        let Some(count) = self.stream.read_some(&mut self.buffer)? else {
            return Ok(false);
        };
        ensure!(count > 0, "the connection ended after {} bytes", self.came);
        fill(self.came, count, &mut self.expected);
        ensure!(
            self.buffer[..count] == self.expected,
            "other bytes came back behind byte {}",
            self.came
        );
        self.came += count as u64;
        Ok(true)
    }
}

/// Waits for an event; one that has passed before is not waited for again.
fn wait(poll: &mut Poll, events: &mut Events, limit: Duration) -> Result<()> {
    match poll.poll(events, Some(limit)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts the `len` bytes from `offset` on into `block`. Every eight of them tell their place, and nothing repeats.
fn fill(offset: u64, len: usize, block: &mut Vec<u8>) {
    let skipped = usize::try_from(offset % 8).unwrap_or_default();
    let first = offset / 8;
    block.clear();
    let words = (first..).map(|word| (word + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    for word in words.take((skipped + len).div_ceil(8)) {
        block.extend_from_slice(&word);
    }
    block.drain(..skipped);
    block.truncate(len);
}

/// A number of bytes, with `k`, `M` or `G` for thousands, millions and thousands of millions.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        Some(_) | None => (text, 1),
    };
    let size = digits
        .parse::<u64>()
        .ok()
        .and_then(|it| it.checked_mul(unit));
    size.filter(|size| *size > 0)
        .ok_or_else(|| "expected a number of bytes, such as 500M or 10G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_wherever_a_block_begins() {
        let (mut whole, mut part) = (Vec::new(), Vec::new());
        fill(0, 100, &mut whole);
        for offset in 0..20_u8 {
            fill(offset.into(), 50, &mut part);
            assert_eq!(part, whole[usize::from(offset)..][..50]);
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("10G"), Ok(10_000_000_000));
        assert_eq!(parse_size("512"), Ok(512));
        for wrong in ["", "G", "0", "1T", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
