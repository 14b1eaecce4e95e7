//! One examination of a node: which trial is made on which listener, and what its outcome says about node and transport.
//!
//! A node whose session lives is tried on its listeners in turn, by UDP first, with a full round trip every fifth time and a
//! Binding otherwise; a node whose session broke gets quick Bindings by two transports at once, because all that is asked is
//! whether it is there. One of which nothing tells that it accepts the latest secret gets round trips only: they show it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::task::JoinSet;
use turnfleet_proto::credentials::{EphemeralCredential, mint};
use turnfleet_turn::wire::ErrorCode;
use turnfleet_turn::{AddressFamily, Transport as CoreTransport};

use super::link::Place;
use super::trial::{Kind, Step, Trial, TrialError};
use crate::fleet::{FleetView, Listener, NodeView, ProbeFailure, Transport};
use crate::wall_clock::since_epoch;

/// How long they are good for, in seconds: clocks may differ by that much.
const CREDENTIAL_TTL: u64 = 120;
/// For each step of a trial.
const TIMEOUT: Duration = Duration::from_secs(1);
/// For a step of the trial that tells a broken transport from a dead node.
const CROSS_CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// For quick Bindings together, on a node that is near, and on one that is far or has not been measured. A broken session
/// waits no longer than 1.5 s for their word.
const QUICK_LIMITS: (Duration, Duration) =
    (Duration::from_millis(400), Duration::from_millis(1200));
/// The limit in terms of what an earlier trial took.
const QUICK_FACTOR: u32 = 4;
/// Every so many trials, the first among them, are round trips.
const ROUND_TRIP_EVERY: u64 = 5;

/// What is needed to examine a node, taken from one view.
pub(super) struct Examination {
    places: Vec<Place>,
    tls: Arc<rustls::ClientConfig>,
    credential: EphemeralCredential,
    /// The fleet generation that a node runs at least if it accepts the credential.
    generation: u64,
    /// Whether the node shall show that it does.
    unproven: bool,
    family: AddressFamily,
    turn: u64,
    /// The time for quick Bindings, of a node that has no session.
    quick: Option<Duration>,
    /// A draining node opens no allocations.
    draining: bool,
    broken: Vec<Transport>,
}

/// What is known of a node from earlier examinations.
#[derive(Clone, Copy, Debug)]
pub(super) struct History<'a> {
    /// Which listener and kind of trial is next.
    pub(super) turn: u64,
    /// What its last good trial took.
    pub(super) took: Option<Duration>,
    pub(super) broken: &'a [Transport],
}

/// What an examination found.
#[derive(Debug)]
pub(super) struct Finding {
    /// Whether the node serves.
    pub(super) result: Result<Duration, ProbeFailure>,
    /// The transport whose turn it was, if it worked.
    pub(super) worked: Option<Transport>,
    /// The transport whose turn it was, if it failed while another one worked.
    pub(super) failed: Option<Transport>,
    /// Transports by which an answer came, whatever it was.
    pub(super) reached: Vec<Transport>,
    /// Transports by which none came.
    pub(super) missed: Vec<Transport>,
    /// The fleet generation that the node runs at least, as it accepted a credential; zero where it did not.
    pub(super) shown_generation: u64,
}

impl Examination {
    pub(super) fn new(
        node: &NodeView,
        view: &FleetView,
        history: History<'_>,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Self {
        let mut places: Vec<Place> = node
            .identity
            .listeners
            .iter()
            .filter_map(|listener| place(listener, node.identity.hostname.as_deref()))
            .collect();
        places.sort_by_key(|place| place.transport);
        let ends = since_epoch().as_secs() + CREDENTIAL_TTL;
        let (secret, generation) = view.trial_secret(node);
        let has_v4 = node.identity.public_ips.iter().any(IpAddr::is_ipv4);
        Self {
            places,
            tls: Arc::clone(tls),
            credential: mint(secret, &view.probe_user(ends), ends),
            generation,
            unproven: node.secret_unproven,
            family: if has_v4 {
                AddressFamily::V4
            } else {
                AddressFamily::V6
            },
            turn: history.turn,
            quick: (!node.connected && !node.secret_unproven).then(|| quick_limit(history.took)),
            draining: node.draining,
            broken: history.broken.to_vec(),
        }
    }

    /// Carries it out. Nothing is found where the controller's own machine had no room for a trial.
    pub(super) async fn run(self) -> Option<Finding> {
        let Some(first) = self.places.first() else {
            return Some(Finding::failure(ProbeFailure::NoListener));
        };
        if let Some(limit) = self.quick {
            return self.run_quick(first, limit).await;
        }
        let (index, kind) = self.plan();
        let place = &self.places[index];
        let shown_generation = match kind {
            Kind::RoundTrip { .. } => self.generation,
            Kind::Binding => 0,
        };
        match self.trial(place, kind, TIMEOUT).run_timed().await {
            Ok(duration) => Some(Finding {
                result: Ok(duration),
                worked: Some(ours(place.transport)),
                reached: vec![ours(place.transport)],
                shown_generation,
                ..Finding::default()
            }),
            Err(Found::Nothing) => None,
            Err(Found::Failure(failure @ (ProbeFailure::NoAnswer | ProbeFailure::Connection))) => {
                self.cross_check(place.transport, failure).await
            }
            Err(Found::Failure(
                failure @ (ProbeFailure::NoListener
                | ProbeFailure::Refused(_)
                | ProbeFailure::DataLost),
            )) => Some(Finding {
                reached: vec![ours(place.transport)],
                ..Finding::failure(failure)
            }),
        }
    }

    /// Whose turn it is, and for what. Round trips and Bindings go round the listeners each by themselves.
    fn plan(&self) -> (usize, Kind) {
        let round_trip = self.turn.is_multiple_of(ROUND_TRIP_EVERY);
        let step = if round_trip {
            self.turn / ROUND_TRIP_EVERY
        } else {
            self.turn
        };
        let index = usize::try_from(step % self.places.len() as u64)
            .expect("a remainder of a length is an index");
        let kind = if (round_trip || self.unproven) && !self.draining {
            Kind::RoundTrip {
                credential: self.credential.clone(),
                family: self.family,
            }
        } else {
            Kind::Binding
        };
        (index, kind)
    }

    /// Bindings on the first listener, once more after half the time, and on one of another transport. The first answer of
    /// any is enough.
    async fn run_quick(&self, first: &Place, limit: Duration) -> Option<Finding> {
        let mut running = JoinSet::new();
        let mut begin = |place: &Place, after: Duration| {
            let trial = self.trial(place, Kind::Binding, limit);
            let transport = ours(place.transport);
            running.spawn(async move {
                tokio::time::sleep(after).await;
                let ended = tokio::time::timeout(limit.saturating_sub(after), trial.run_timed());
                let no_answer = Err(Found::Failure(ProbeFailure::NoAnswer));
                (transport, ended.await.unwrap_or(no_answer))
            });
        };
        begin(first, Duration::ZERO);
        begin(first, limit / 2);
        if let Some(other) = self.other_than(first.transport) {
            begin(other, Duration::ZERO);
        }
        let mut found = None;
        let mut missed = Vec::new();
        // Dropping the set ends what is still running.
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok((transport, Ok(duration))) => {
                    return Some(Finding {
                        result: Ok(duration),
                        reached: vec![transport],
                        ..Finding::default()
                    });
                }
                Ok((transport, Err(Found::Failure(failure)))) => {
                    missed.push(transport);
                    // A refusal says more than silence.
                    found = Some(
                        found
                            .filter(|_| failure == ProbeFailure::NoAnswer)
                            .unwrap_or(failure),
                    );
                }
                Ok((_, Err(Found::Nothing))) | Err(_) => {}
            }
        }
        found.map(|failure| Finding {
            missed,
            ..Finding::failure(failure)
        })
    }

    /// Whether `failure` is the node's, or only that of `transport`.
    async fn cross_check(
        &self,
        transport: CoreTransport,
        failure: ProbeFailure,
    ) -> Option<Finding> {
        let missed = |others: &[CoreTransport]| {
            let all = std::iter::once(transport).chain(others.iter().copied());
            all.map(ours).collect()
        };
        let Some(other) = self.other_than(transport) else {
            return Some(Finding {
                missed: missed(&[]),
                ..Finding::failure(failure)
            });
        };
        let trial = self.trial(other, Kind::Binding, CROSS_CHECK_TIMEOUT);
        match trial.run_timed().await {
            Ok(duration) => Some(Finding {
                result: Ok(duration),
                worked: None,
                failed: Some(ours(transport)),
                reached: vec![ours(other.transport)],
                missed: missed(&[]),
                ..Finding::default()
            }),
            Err(Found::Failure(_)) => Some(Finding {
                missed: missed(&[other.transport]),
                ..Finding::failure(failure)
            }),
            Err(Found::Nothing) => None,
        }
    }

    /// A listener of another transport, which is not known to be broken.
    fn other_than(&self, transport: CoreTransport) -> Option<&Place> {
        self.places.iter().find(|place| {
            place.transport != transport && !self.broken.contains(&ours(place.transport))
        })
    }

    fn trial(&self, place: &Place, kind: Kind, timeout: Duration) -> Trial {
        Trial {
            place: place.clone(),
            tls: Arc::clone(&self.tls),
            timeout,
            kind,
        }
    }
}

/// What a trial that did not work says of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Failure(ProbeFailure),
    /// It is the controller's own machine that failed.
    Nothing,
}

impl Trial {
    /// What it took, or what its failure says of the node.
    async fn run_timed(&self) -> Result<Duration, Found> {
        let began = Instant::now();
        let Err(error) = self.run().await else {
            return Ok(began.elapsed());
        };
        let judged = judge(&error);
        if judged.is_err() {
            let (transport, address) = (self.place.transport, self.place.address);
            tracing::debug!(%transport, %address, %error, "probe failed");
        }
        judged.map(|()| began.elapsed())
    }
}

impl Finding {
    fn failure(failure: ProbeFailure) -> Self {
        Self {
            result: Err(failure),
            ..Self::default()
        }
    }
}

impl Default for Finding {
    fn default() -> Self {
        Self {
            result: Ok(Duration::ZERO),
            worked: None,
            failed: None,
            reached: Vec::new(),
            missed: Vec::new(),
            shown_generation: 0,
        }
    }
}

/// A relay that is full, or whose quotas are, is alive, and so is one that names another; that it is full is seen from its
/// load. So is one that knows the five-tuple from somebody who went without a word: another port is tried next time.
fn judge(error: &TrialError) -> Result<(), Found> {
    Err(Found::Failure(match error {
        TrialError::Refused(
            _,
            ErrorCode::INSUFFICIENT_CAPACITY
            | ErrorCode::ALLOCATION_QUOTA_REACHED
            | ErrorCode::ALLOCATION_MISMATCH
            | ErrorCode::TRY_ALTERNATE,
        ) => return Ok(()),
        TrialError::Exhausted(..) => return Err(Found::Nothing),
        TrialError::Timeout(Step::Data) => ProbeFailure::DataLost,
        TrialError::Timeout(Step::Connect | Step::Request(_)) | TrialError::Answer(_) => {
            ProbeFailure::NoAnswer
        }
        TrialError::Io(..) => ProbeFailure::Connection,
        TrialError::Refused(_, code) => ProbeFailure::Refused(code.code()),
    }))
}

/// The time for quick Bindings on a node whose last good trial took that long.
fn quick_limit(took: Option<Duration>) -> Duration {
    let (near, far) = QUICK_LIMITS;
    took.map_or(far, |took| (took * QUICK_FACTOR).clamp(near, far))
}

/// Where and how `listener` is tried; `None` for a transport that the probe does not speak.
fn place(listener: &Listener, hostname: Option<&str>) -> Option<Place> {
    let transport = match listener.transport {
        Transport::Udp => CoreTransport::Udp,
        Transport::Tcp => CoreTransport::Tcp,
        Transport::Tls => CoreTransport::Tls,
        Transport::Dtls => return None,
    };
    let server_name = hostname
        .and_then(|name| ServerName::try_from(name.to_owned()).ok())
        .unwrap_or_else(|| ServerName::from(listener.address.ip()));
    Some(Place {
        transport,
        // Behind 1:1 NAT a machine may not reach its own external address.
        address: listener.local.unwrap_or(listener.address),
        server_name,
    })
}

fn ours(transport: CoreTransport) -> Transport {
    match transport {
        CoreTransport::Udp => Transport::Udp,
        CoreTransport::Tcp => Transport::Tcp,
        CoreTransport::Tls => Transport::Tls,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use turnfleet_turn::wire::Method;

    use super::*;

    #[test]
    fn a_relay_whose_quotas_are_used_up_is_alive() {
        let allocate = Step::Request(Method::Allocate);
        for code in [
            ErrorCode::ALLOCATION_QUOTA_REACHED,
            ErrorCode::INSUFFICIENT_CAPACITY,
            ErrorCode::ALLOCATION_MISMATCH,
            ErrorCode::TRY_ALTERNATE,
        ] {
            assert_eq!(judge(&TrialError::Refused(allocate, code)), Ok(()));
        }
        let refused = judge(&TrialError::Refused(allocate, ErrorCode::UNAUTHENTICATED));
        assert_eq!(refused, Err(Found::Failure(ProbeFailure::Refused(401))));
    }

    #[test]
    fn a_controller_without_descriptors_finds_nothing() {
        let error = io::Error::from_raw_os_error(libc::EMFILE);
        let found = judge(&TrialError::Exhausted(Step::Connect, error));
        assert_eq!(found, Err(Found::Nothing));
    }

    #[test]
    fn a_far_node_has_more_time_to_answer_quickly() {
        let limit = |millis| quick_limit(Some(Duration::from_millis(millis)));
        assert_eq!(limit(2), Duration::from_millis(400));
        assert_eq!(limit(250), Duration::from_millis(1000));
        assert_eq!(limit(900), Duration::from_millis(1200));
        assert_eq!(quick_limit(None), Duration::from_millis(1200));
    }
}
