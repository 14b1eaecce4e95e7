//! The load itself: one thread that keeps every flow's payloads coming and going.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, Result, bail};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::Instant;
use turnfleet_turn::client::{Client, Config};

use super::flow::{Flow, Heard, Told};
use super::payload::{Direction, Stamp};
use super::peer::Peer;
use super::report::Allocated;
use super::traffic::Traffic;
use super::{Args, Directions, Pace};
use crate::bench::as_float;
use crate::link;
use crate::target::{Credentials, Target};

/// Allocations that are being made at a time.
const OUTSTANDING: usize = 128;
/// How long making, binding and ending the allocations may take without a step forward.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often clients are asked whether something is due.
const TIMER: Duration = Duration::from_millis(100);
/// A payload that has not arrived after this is given up, and another one sent in its place.
const GIVE_UP: u64 = 500_000_000;
/// At the end of a round payloads on their way are waited for as long as some arrive within this.
const QUIET: Duration = Duration::from_millis(300);
/// Payloads sent before the sockets are looked at again.
const BURST: usize = 64;
/// Datagrams read with one system call.
const SLOTS: usize = 16;

/// Every flow to one server.
pub(super) struct Load {
    flows: Vec<Flow>,
    peer: Option<Peer>,
    directions: Vec<Direction>,
    pace: Pace,
    poll: Poll,
    events: Events,
    batch: ReceiveBatch,
    heard: VecDeque<Heard>,
    started: Clock,
    timers_at: Duration,
}

impl Load {
    /// Opens a link to `target` for each allocation, and the socket of the peer if there is to be one.
    pub(super) fn new(
        args: &Args,
        target: &Target,
        peer: Option<SocketAddr>,
        credentials: &Credentials,
    ) -> Result<Self> {
        let payload_len = usize::from(args.payload);
        let opener = link::Opener::new(target, args.ca.as_deref())?;
        let poll = Poll::new()?;
        let mut flows = Vec::new();
        for index in 0..args.allocations as usize {
            let client = target.is_turn().then(|| {
                let (username, password) = credentials.of(index);
                let transport = opener.transport();
                Client::new(Config {
                    transport,
                    username,
                    password,
                    // As browsers sign.
                    password_algorithms: false,
                    seed: seed(index),
                })
            });
            let link = opener
                .open()
                .with_context(|| format!("allocation {} of {}", index + 1, args.allocations))?;
            watch(&poll, link.descriptor(), index)?;
            flows.push(Flow::new(client, link, payload_len));
        }
        let peer = peer
            .map(|place| Peer::open(place, payload_len))
            .transpose()?;
        if let Some(peer) = &peer {
            watch(&poll, peer.descriptor(), flows.len())?;
        }
        let directions = match (&peer, args.directions) {
            (None, _) | (Some(_), Directions::ToPeer) => vec![Direction::ToPeer],
            (Some(_), Directions::ToClient) => vec![Direction::ToClient],
            (Some(_), Directions::Both) => vec![Direction::ToPeer, Direction::ToClient],
        };
        Ok(Self {
            flows,
            peer,
            directions,
            pace: args.pace(),
            poll,
            events: Events::with_capacity(1024),
            batch: ReceiveBatch::new(SLOTS),
            heard: VecDeque::new(),
            started: Clock::now(),
            timers_at: Duration::ZERO,
        })
    }

    /// Makes every allocation and binds every channel.
    pub(super) fn allocate(&mut self) -> Result<Allocated> {
        let began = Clock::now();
        let total = self.flows.len();
        let mut waiting = 0..total;
        let first = waiting.by_ref().take(OUTSTANDING).collect::<Vec<_>>();
        let now = self.now();
        for index in first {
            self.flows[index].allocate(now);
        }
        let count = self.flows.iter().filter(|flow| !flow.is_bound()).count();
        self.steps("allocations were made", count, Told::Allocated, |load| {
            if let Some(next) = waiting.next() {
                let now = load.now();
                load.flows[next].allocate(now);
            }
        })?;
        let seconds = began.elapsed().as_secs_f64();
        let mut waiting = 0..total;
        for index in waiting.by_ref().take(OUTSTANDING).collect::<Vec<_>>() {
            self.bind(index)?;
        }
        self.steps("channels were bound", count, Told::Bound, |load| {
            if let Some(next) = waiting.next() {
                // The allocations are all there, so that every flow has a peer.
                let _ = load.bind(next);
            }
        })?;
        self.learn_plain_ways()?;
        let per_second = if count == 0 {
            0.0
        } else {
            as_float(count as u64) / seconds
        };
        Ok(Allocated {
            seconds,
            per_second,
        })
    }

    fn bind(&mut self, index: usize) -> Result<()> {
        let peer = self
            .peer_of(index)
            .context("the other allocation has no relayed address")?;
        let now = self.now();
        self.flows[index].bind(now, peer);
        Ok(())
    }

    /// The address that the client of this flow sends to.
    fn peer_of(&self, index: usize) -> Option<SocketAddr> {
        match &self.peer {
            Some(peer) => Some(peer.address()),
            None => self.flows[index ^ 1].relayed,
        }
    }

    /// Waits until `count` flows have told `step`, calling `forward` after each.
    fn steps(
        &mut self,
        what: &str,
        count: usize,
        step: Told,
        mut forward: impl FnMut(&mut Self),
    ) -> Result<()> {
        let mut done = 0;
        let mut failures = BTreeMap::<String, usize>::new();
        let mut moved = Clock::now();
        while done + failures.values().sum::<usize>() < count {
            let ready = self.wait(Duration::from_millis(20))?;
            self.drive_timers(true)?;
            for index in ready {
                self.receive(index, None)?;
                while let Some(told) = self.flows.get_mut(index).and_then(Flow::poll) {
                    match told {
                        Ok(told) if told == step => done += 1,
                        Ok(_) => continue,
                        Err((method, why)) => {
                            *failures.entry(format!("{method:?}: {why:?}")).or_default() += 1;
                        }
                    }
                    moved = Clock::now();
                    forward(self);
                }
            }
            if moved.elapsed() > PATIENCE {
                bail!("{done} of {count} {what}, then nothing for {PATIENCE:?}");
            }
        }
        self.drive_timers(true)?;
        if !failures.is_empty() {
            bail!("{done} of {count} {what}; the others failed: {failures:?}");
        }
        Ok(())
    }

    /// A plain forwarder has no allocations: peers learn from a first payload where to answer.
    fn learn_plain_ways(&mut self) -> Result<()> {
        let deadline = Clock::now() + PATIENCE;
        while self.peer.is_some() && self.flows.iter().any(|flow| flow.relayed.is_none()) {
            for index in 0..self.flows.len() {
                if self.flows[index].relayed.is_none() {
                    self.send(index, Direction::ToPeer)?;
                }
            }
            let mut traffic = Traffic::new(1, self.elapsed_nanos());
            for index in self.wait(Duration::from_millis(50))? {
                self.receive(index, Some(&mut traffic))?;
            }
            if Clock::now() > deadline {
                bail!("the forwarder passes nothing on to the peer");
            }
        }
        Ok(())
    }

    /// One round of traffic; `watch` sees the counts while it lasts.
    pub(super) fn run(
        &mut self,
        duration: Duration,
        mut watch: impl FnMut(&Traffic),
    ) -> Result<Traffic> {
        let hops = if self.peer.is_some() { 1 } else { 2 };
        let mut traffic = Traffic::new(hops, self.elapsed_nanos());
        let began = Clock::now();
        let lanes = self.lanes();
        let mut ready: VecDeque<(usize, Direction)> = match self.pace {
            Pace::Rate(_) => VecDeque::new(),
            Pace::Window(window) => (0..window).flat_map(|_| lanes.iter().copied()).collect(),
        };
        let mut scheduled = 0;
        while began.elapsed() < duration {
            if let Pace::Rate(rate) = self.pace {
                let due = began.elapsed().as_secs_f64() * rate * as_float(lanes.len() as u64);
                while as_float(scheduled as u64) < due && ready.len() < BURST {
                    ready.push_back(lanes[scheduled % lanes.len()]);
                    scheduled += 1;
                }
            }
            for (index, direction) in ready.drain(..ready.len().min(BURST)) {
                traffic.sent += u64::from(self.send(index, direction)?);
            }
            self.flush();
            let idle = if ready.is_empty() {
                Duration::from_millis(1)
            } else {
                Duration::ZERO
            };
            self.exchange(idle, &mut traffic, &mut ready)?;
            self.give_up(&lanes, &mut ready)?;
            watch(&traffic);
        }
        traffic.duration = began.elapsed();
        let mut quiet = Clock::now();
        while traffic.received < traffic.sent && quiet.elapsed() < QUIET {
            let before = traffic.received;
            self.exchange(Duration::from_millis(20), &mut traffic, &mut ready)?;
            if traffic.received > before {
                quiet = Clock::now();
            }
        }
        for (index, direction) in lanes {
            self.flows[index].lane(direction).on_their_way = 0;
        }
        Ok(traffic)
    }

    /// What each direction of each flow carried in a second of `traffic`.
    pub(super) fn rate(&self, traffic: &Traffic) -> f64 {
        let lanes = as_float(self.lanes().len() as u64);
        as_float(traffic.received) / traffic.duration.as_secs_f64() / lanes
    }

    /// Spaces the packets of further rounds in this way.
    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Every direction of every flow that carries payloads.
    fn lanes(&self) -> Vec<(usize, Direction)> {
        let of = |index| {
            self.directions
                .iter()
                .map(move |direction| (index, *direction))
        };
        (0..self.flows.len()).flat_map(of).collect()
    }

    /// Sends one payload; `false` where it could not be sent.
    fn send(&mut self, index: usize, direction: Direction) -> Result<bool> {
        let sent_at = self.elapsed_nanos();
        let flow = &mut self.flows[index];
        let lane = flow.lane(direction);
        lane.sequence += 1;
        lane.on_their_way += 1;
        lane.moved_at = sent_at;
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let stamp = Stamp {
            direction,
            flow: number,
            sequence: lane.sequence,
            sent_at,
        };
        match direction {
            Direction::ToPeer => flow.send_payload(stamp),
            Direction::ToClient => {
                let (Some(peer), Some(to)) = (&mut self.peer, flow.relayed) else {
                    return Ok(false);
                };
                peer.send(stamp, to);
                Ok(true)
            }
        }
    }

    fn flush(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.flush();
        }
    }

    /// Reads what has come, and under a window lets the next payload follow each that arrived.
    fn exchange(
        &mut self,
        idle: Duration,
        traffic: &mut Traffic,
        ready: &mut VecDeque<(usize, Direction)>,
    ) -> Result<()> {
        for source in self.wait(idle)? {
            self.receive(source, Some(traffic))?;
            while let Some(heard) = self.heard.pop_front() {
                let Heard::Payload(stamp) = heard else {
                    continue;
                };
                let Some(flow) = self.flows.get_mut(stamp.flow as usize) else {
                    continue;
                };
                let lane = flow.lane(stamp.direction);
                lane.moved_at = lane.moved_at.max(stamp.sent_at);
                if lane.on_their_way > 0 {
                    lane.on_their_way -= 1;
                    if matches!(self.pace, Pace::Window(_)) {
                        ready.push_back((stamp.flow as usize, stamp.direction));
                    }
                }
            }
        }
        Ok(())
    }

    /// Under a window, payloads that did not arrive make room for others.
    fn give_up(
        &mut self,
        lanes: &[(usize, Direction)],
        ready: &mut VecDeque<(usize, Direction)>,
    ) -> Result<()> {
        if !self.drive_timers(false)? {
            return Ok(());
        }
        let Pace::Window(_) = self.pace else {
            return Ok(());
        };
        let now = self.elapsed_nanos();
        for (index, direction) in lanes {
            let lane = self.flows[*index].lane(*direction);
            if lane.on_their_way > 0 && now.saturating_sub(lane.moved_at) > GIVE_UP {
                let lost = std::mem::take(&mut lane.on_their_way);
                ready.extend((0..lost).map(|_| (*index, *direction)));
            }
        }
        Ok(())
    }

    /// Ends every allocation.
    pub(super) fn release(&mut self) -> Result<()> {
        let now = self.now();
        let count = self
            .flows
            .iter()
            .filter(|flow| flow.relayed.is_some())
            .count();
        for flow in &mut self.flows {
            flow.release(now);
            flow.drive(now)?;
        }
        let turn = self.flows.iter().any(|flow| !flow.is_plain());
        if turn {
            self.steps("allocations were ended", count, Told::Released, |_| {})
        } else {
            Ok(())
        }
    }

    /// The sources that something has come to.
    fn wait(&mut self, limit: Duration) -> Result<Vec<usize>> {
        match self.poll.poll(&mut self.events, Some(limit)) {
            Ok(()) => Ok(self.events.iter().map(|event| event.token().0).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads from a source: the client of that index, or behind the last one the peer.
    fn receive(&mut self, source: usize, mut traffic: Option<&mut Traffic>) -> Result<()> {
        let now = self.now();
        let known = self.heard.len();
        if let Some(flow) = self.flows.get_mut(source) {
            flow.receive(now, &mut self.batch, &mut self.heard)?;
        } else if let Some(peer) = &self.peer {
            let (flows, heard) = (&mut self.flows, &mut self.heard);
            peer.receive(&mut self.batch, |from, payload| {
                let stamp = Stamp::verify(payload);
                if let Some(flow) = stamp.and_then(|stamp| flows.get_mut(stamp.flow as usize)) {
                    flow.relayed = flow.relayed.or(from);
                }
                heard.push_back(stamp.map_or(Heard::Corrupt, Heard::Payload));
            });
        }
        let at = self.elapsed_nanos();
        if let Some(traffic) = &mut traffic {
            for heard in self.heard.iter().skip(known) {
                match heard {
                    Heard::Payload(stamp) => traffic.arrived(stamp.sent_at, at),
                    Heard::Corrupt => traffic.corrupt += 1,
                    Heard::Other => {}
                }
            }
        } else {
            self.heard.clear();
        }
        Ok(())
    }

    /// Lets time pass for the clients once every [`TIMER`], or at once where `always`.
    fn drive_timers(&mut self, always: bool) -> Result<bool> {
        let elapsed = self.started.elapsed();
        if !always && elapsed < self.timers_at {
            return Ok(false);
        }
        self.timers_at = elapsed + TIMER;
        let now = self.now();
        for flow in &mut self.flows {
            flow.drive(now)?;
        }
        Ok(true)
    }

    fn now(&self) -> Instant {
        Instant(self.elapsed_nanos())
    }

    fn elapsed_nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn watch(poll: &Poll, descriptor: std::os::fd::RawFd, index: usize) -> Result<()> {
    poll.registry()
        .register(&mut SourceFd(&descriptor), Token(index), Interest::READABLE)?;
    Ok(())
}

/// Different for each client of a run, and for each run.
pub(super) fn seed(index: usize) -> [u8; 32] {
    use std::hash::{BuildHasher as _, RandomState};
    let mut seed = [0; 32];
    for chunk in seed.chunks_exact_mut(8) {
        chunk.copy_from_slice(&RandomState::new().hash_one(index).to_be_bytes());
    }
    seed
}
