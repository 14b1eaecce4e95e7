//! One trial of a relay: a STUN Binding, or a round trip between two allocations.
//!
//! The round trip is what a call needs: both allocations are authenticated, each permits the other's relayed address, data
//! goes from one relayed address to the other, and both allocations are deleted.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use turnfleet_proto::credentials::EphemeralCredential;
use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Failure, Input};
use turnfleet_turn::wire::{ErrorCode, Method};
use turnfleet_turn::{AddressFamily, ClientHeader, Instant as CoreInstant, PeerAddr, Span};

use super::link::{Link, Place};

/// Bytes of the datagram that travels between the two allocations.
const PAYLOAD: usize = 32;
/// The datagram is sent again after this long, because UDP may lose it.
const RESEND: Duration = Duration::from_millis(200);
/// Each request of a trial is made when the one before has been answered or given up.
const IDLE: &str = "a client with next to nothing in flight takes a request";
/// What deleting allocations may take after a trial that failed.
const CLEAN_UP: Duration = Duration::from_millis(200);

/// What to try, and where.
#[derive(Clone)]
pub(super) struct Trial {
    pub(super) place: Place,
    pub(super) tls: Arc<rustls::ClientConfig>,
    /// For each step: opening the connection, each request, the data.
    pub(super) timeout: Duration,
    pub(super) kind: Kind,
}

#[derive(Clone)]
pub(super) enum Kind {
    Binding,
    RoundTrip {
        credential: EphemeralCredential,
        /// Of the relayed addresses; one that the relay has.
        family: AddressFamily,
    },
}

/// The steps of a trial, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Request(Method),
    Data,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connecting"),
            Self::Request(method) => f.write_str(method.name()),
            Self::Data => f.write_str("data between two allocations"),
        }
    }
}

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrialError {
    #[error("{0}: nothing came back in time")]
    Timeout(Step),
    #[error("{0}: {1}")]
    Io(Step, io::ErrorKind),
    /// The controller's own machine has no room for the trial, which says nothing of the relay.
    #[error("{0}: this machine: {1}")]
    Exhausted(Step, io::Error),
    #[error("{0}: refused with {code}", code = .1.code())]
    Refused(Step, ErrorCode),
    #[error("{0}: the answer is not authentic or not well-formed")]
    Answer(Step),
}

impl Trial {
    /// Carries it out.
    pub(super) async fn run(&self) -> Result<(), TrialError> {
        match &self.kind {
            Kind::Binding => {
                let mut party = self.party("", "").await?;
                let now = party.now();
                party.client.binding(now).expect(IDLE);
                self.step(Step::Request(Method::Binding), party.answer())
                    .await?;
                Ok(())
            }
            Kind::RoundTrip { credential, family } => {
                let EphemeralCredential {
                    username, password, ..
                } = credential;
                let (mut one, mut other) = tokio::try_join!(
                    self.party(username, password),
                    self.party(username, password)
                )?;
                let outcome = self.round_trip(&mut one, &mut other, *family).await;
                if outcome.is_err() {
                    let both = async { tokio::join!(one.delete(), other.delete()) };
                    drop(tokio::time::timeout(CLEAN_UP, both).await);
                }
                outcome
            }
        }
    }

    async fn round_trip(
        &self,
        one: &mut Party,
        other: &mut Party,
        family: AddressFamily,
    ) -> Result<(), TrialError> {
        let allocate = Step::Request(Method::Allocate);
        // Each is heard to its end, for what it allocates is to be deleted though the other is refused.
        let (from, to) = tokio::join!(
            self.step(allocate, one.allocate(family)),
            self.step(allocate, other.allocate(family))
        );
        let (from, to) = (from?, to?);
        let permit = Step::Request(Method::CreatePermission);
        tokio::try_join!(
            self.step(permit, one.permit(to)),
            self.step(permit, other.permit(from))
        )?;
        let mut payload = [0; PAYLOAD];
        fill(&mut payload);
        self.step(Step::Data, async {
            tokio::select! {
                failed = one.keep_sending(to, &payload) => failed,
                received = other.receive(&payload) => received,
            }
        })
        .await?;
        let delete = Step::Request(Method::Refresh);
        tokio::try_join!(
            self.step(delete, one.delete()),
            self.step(delete, other.delete())
        )?;
        Ok(())
    }

    async fn party(&self, username: &str, password: &str) -> Result<Party, TrialError> {
        let open = async {
            Link::open(&self.place, &self.tls)
                .await
                .map_err(Trouble::Io)
        };
        let link = self.step(Step::Connect, open).await?;
        let mut seed = [0; 32];
        fill(&mut seed);
        Ok(Party {
            link,
            client: Client::new(Config {
                transport: self.place.transport,
                username: username.to_owned(),
                password: password.to_owned(),
                // As browsers sign.
                password_algorithms: false,
                seed,
            }),
            origin: Instant::now(),
            message: Vec::new(),
        })
    }

    async fn step<T>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, TrialError> {
        match tokio::time::timeout(self.timeout, work).await {
            Err(_) | Ok(Err(Trouble::Failed(Failure::Timeout))) => Err(TrialError::Timeout(step)),
            Ok(Ok(done)) => Ok(done),
            Ok(Err(Trouble::Io(error))) if is_exhaustion(&error) => {
                Err(TrialError::Exhausted(step, error))
            }
            Ok(Err(Trouble::Io(error))) => Err(TrialError::Io(step, error.kind())),
            Ok(Err(Trouble::Failed(Failure::Refused(code)))) => {
                Err(TrialError::Refused(step, code))
            }
            Ok(Err(Trouble::Failed(
                Failure::IntegrityViolated | Failure::BidDown | Failure::Malformed,
            ))) => Err(TrialError::Answer(step)),
        }
    }
}

/// Whether `error` says that this process or machine has no room for another socket or packet.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

/// What a step can run into, before it is known which one it was.
enum Trouble {
    Io(io::Error),
    Failed(Failure),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One of the two clients of a trial.
struct Party {
    link: Link,
    client: Client,
    origin: Instant,
    message: Vec<u8>,
}

impl Party {
    fn now(&self) -> CoreInstant {
        CoreInstant::default().after(self.origin.elapsed())
    }

    async fn allocate(&mut self, family: AddressFamily) -> Result<PeerAddr, Trouble> {
        let options = AllocateOptions {
            family: Some(family),
            ..AllocateOptions::default()
        };
        let now = self.now();
        self.client.allocate(now, options).expect(IDLE);
        loop {
            if let Event::Allocated(allocated) = self.answer().await? {
                return Ok(PeerAddr(allocated.relayed));
            }
        }
    }

    async fn permit(&mut self, peer: PeerAddr) -> Result<(), Trouble> {
        let now = self.now();
        self.client.create_permission(now, &[peer]).expect(IDLE);
        self.answer().await.map(drop)
    }

    async fn delete(&mut self) -> Result<(), Trouble> {
        if self.client.allocation().is_some() {
            let now = self.now();
            self.client.refresh(now, 0).expect(IDLE);
            self.answer().await?;
        }
        Ok(())
    }

    /// Sends `payload` to `peer` again and again; returns only when that fails.
    async fn keep_sending(&mut self, peer: PeerAddr, payload: &[u8]) -> Result<(), Trouble> {
        let mut buffer = vec![0; ClientHeader::MAX_LEN + payload.len() + ClientHeader::MAX_PADDING];
        let start = ClientHeader::MAX_LEN;
        loop {
            buffer[start..start + payload.len()].copy_from_slice(payload);
            let span = Span {
                start,
                len: payload.len(),
            };
            let whole = self.client.write_send_indication(peer, &mut buffer, span);
            let whole = whole.expect("the buffer has room around the payload");
            self.link.send(&buffer[whole.range()]).await?;
            tokio::time::sleep(RESEND).await;
        }
    }

    async fn receive(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        loop {
            self.link.receive(&mut self.message).await?;
            let now = self.now();
            match self.client.handle_input(now, &self.message) {
                Input::Data {
                    payload: received, ..
                } if received == payload => return Ok(()),
                Input::Data { .. } | Input::Response | Input::Ignored => {}
            }
        }
    }

    /// The next event; requests are sent and retransmitted meanwhile.
    async fn answer(&mut self) -> Result<Event, Trouble> {
        loop {
            match self.client.poll_event() {
                Some(Event::Failed { why, .. }) => return Err(Trouble::Failed(why)),
                // What another relay does says nothing of this one.
                Some(Event::Redirected(_)) => {
                    let why = Failure::Refused(ErrorCode::TRY_ALTERNATE);
                    return Err(Trouble::Failed(why));
                }
                Some(event) => return Ok(event),
                None => {}
            }
            self.message.clear();
            while self.client.poll_transmit(&mut self.message) {
                self.link.send(&self.message).await?;
                self.message.clear();
            }
            let due = self.client.poll_timeout();
            let wait = due.map_or(Duration::MAX, |due| due.since(self.now()));
            match tokio::time::timeout(wait, self.link.receive(&mut self.message)).await {
                Ok(received) => {
                    received?;
                    let now = self.now();
                    self.client.handle_input(now, &self.message);
                }
                Err(_) => {
                    let now = self.now();
                    self.client.handle_timeout(now);
                }
            }
        }
    }
}

fn fill(bytes: &mut [u8]) {
    SystemRandom::new()
        .fill(bytes)
        .expect("the system's random source works once it has started");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_this_machines_and_a_refused_connection_is_not() {
        let is = |errno| is_exhaustion(&io::Error::from_raw_os_error(errno));
        assert!(is(libc::EMFILE) && is(libc::ENFILE) && is(libc::ENOBUFS));
        assert!(!is(libc::ECONNREFUSED) && !is(libc::EHOSTUNREACH));
    }
}
