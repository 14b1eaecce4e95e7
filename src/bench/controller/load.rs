//! One thread of load: its connections, and what it saw on them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use super::connection::{Answer, Connection};
use super::{LOOK_EVERY, Requests};

/// How often a thread looks whether the run has ended, while nothing comes.
const GLANCE: Duration = Duration::from_millis(100);
/// The longest latency that is told from others, in nanoseconds.
const MAX_LATENCY: u64 = 60_000_000_000;

/// How far the run is, for all threads.
#[derive(Debug, Default)]
pub(super) struct Stage(AtomicU8);

impl Stage {
    const COUNTING: u8 = 1;
    const ENDED: u8 = 2;

    /// What is sent from here on counts.
    pub(super) fn count(&self) {
        self.0.store(Self::COUNTING, Ordering::Relaxed);
    }

    /// The run is over.
    pub(super) fn end(&self) {
        self.0.store(Self::ENDED, Ordering::Relaxed);
    }

    fn counts(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::COUNTING
    }

    fn has_ended(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::ENDED
    }
}

/// What was seen.
pub(super) struct Measured {
    /// Of good answers, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) refused: u64,
    pub(super) wrong: u64,
    pub(super) ended: u64,
    /// What was wrong first.
    complaint: Option<String>,
}

impl Measured {
    pub(super) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY, 3);
        Self {
            latency: latency.expect("the bounds are in order"),
            refused: 0,
            wrong: 0,
            ended: 0,
            complaint: None,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let added = self.latency.add(&other.latency);
        added.expect("both have the same bounds");
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.ended += other.ended;
        if self.complaint.is_none() {
            self.complaint.clone_from(&other.complaint);
        }
    }

    /// Fails where an answer was not what was asked for.
    pub(super) fn verdict(&self) -> Result<()> {
        let complaint = self.complaint.as_deref().unwrap_or_default();
        ensure!(self.refused + self.wrong == 0, "{complaint}");
        ensure!(!self.latency.is_empty(), "no request was answered");
        Ok(())
    }

    fn heard(&mut self, answer: &Answer<'_>, user: &str, requests: &Requests) {
        let text = || String::from_utf8_lossy(answer.body).into_owned();
        if !answer.is_good {
            self.refused += 1;
            self.complaint.get_or_insert_with(text);
            return;
        }
        self.latency.saturating_record(answer.nanos);
        let looks = self.latency.len() % LOOK_EVERY == 1;
        if looks && !requests.path.is_for(answer.body, user) {
            self.wrong += 1;
            let complaint = || format!("{user} was answered: {}", text());
            self.complaint.get_or_insert_with(complaint);
        }
    }
}

/// Keeps one request on its way on each of `share` connections until the run ends.
///
/// # Errors
/// When the controller takes no connections.
pub(super) fn run(
    address: SocketAddr,
    share: u16,
    requests: &Requests,
    stage: &Stage,
) -> Result<Measured> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(usize::from(share));
    let mut connections = Vec::new();
    // Threads begin at different users, so that not all ask for the same ones.
    let mut next = (0..requests.texts.len()).cycle().skip(usize::from(share));
    let open = |poll: &Poll, place: usize, asked: usize| -> Result<Connection> {
        let connected = Connection::open(address);
        let mut connection = connected.with_context(|| format!("cannot connect to {address}"))?;
        let registry = poll.registry();
        registry.register(connection.stream(), Token(place), Interest::READABLE)?;
        connection.ask(asked, &requests.texts[asked])?;
        Ok(connection)
    };
    for place in 0..usize::from(share) {
        let asked = next.next().expect("the users come round again");
        connections.push(open(&poll, place, asked)?);
    }
    let mut measured = Measured::new();
    while !stage.has_ended() {
        poll.poll(&mut events, Some(GLANCE))?;
        let counts = stage.counts();
        for event in &events {
            let Token(place) = event.token();
            let connection = &mut connections[place];
            let user = &requests.users[connection.asked];
            let asked = next.next().expect("the users come round again");
            let went_on = match connection.answer() {
                Ok(None) => Ok(()),
                Ok(Some(answer)) => {
                    if counts {
                        measured.heard(&answer, user, requests);
                    }
                    connection.ask(asked, &requests.texts[asked])
                }
                Err(error) => Err(error),
            };
            if went_on.is_err() {
                measured.ended += u64::from(counts);
                connections[place] = open(&poll, place, asked)?;
            }
        }
    }
    Ok(measured)
}
