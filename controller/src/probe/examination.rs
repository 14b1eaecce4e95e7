//! One examination of a node: which trial is made on which listener, and what its outcome says about node and transport.
//!
//! A node whose session lives is tried on its listeners in turn, by UDP first, with a full round trip every fifth time and a
//! Binding otherwise; a node whose session broke gets two quick Bindings, because all that is asked is whether it is there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;
use turnfleet_proto::credentials::{EphemeralCredential, mint};
use turnfleet_turn::wire::ErrorCode;
use turnfleet_turn::{AddressFamily, Transport as CoreTransport};

use super::link::Place;
use super::trial::{Kind, Step, Trial, TrialError};
use crate::fleet::{FleetView, Listener, NodeView, ProbeFailure, Transport};

/// The user part of the probe's credentials.
const USER: &str = "turnfleet-probe";
/// How long they are good for, in seconds: clocks may differ by that much.
const CREDENTIAL_TTL: u64 = 120;
/// For each step of a trial.
const TIMEOUT: Duration = Duration::from_secs(1);
/// For a step of the trial that tells a broken transport from a dead node.
const CROSS_CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// For each quick Binding.
const QUICK_TIMEOUT: Duration = Duration::from_millis(200);
const QUICK_TRIES: usize = 2;
/// Every so many trials, the first among them, are round trips.
const ROUND_TRIP_EVERY: u64 = 5;

/// What is needed to examine a node, taken from one view.
pub(super) struct Examination {
    places: Vec<Place>,
    tls: Arc<rustls::ClientConfig>,
    credential: EphemeralCredential,
    family: AddressFamily,
    turn: u64,
    quick: bool,
    /// A draining node opens no allocations.
    draining: bool,
    broken: Vec<Transport>,
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
}

impl Examination {
    pub(super) fn new(
        node: &NodeView,
        view: &FleetView,
        turn: u64,
        broken: &[Transport],
        tls: &Arc<rustls::ClientConfig>,
    ) -> Self {
        let mut places: Vec<Place> = node
            .identity
            .listeners
            .iter()
            .filter_map(|listener| place(listener, node.identity.hostname.as_deref()))
            .collect();
        places.sort_by_key(|place| place.transport);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let has_v4 = node.identity.public_ips.iter().any(IpAddr::is_ipv4);
        Self {
            places,
            tls: Arc::clone(tls),
            credential: mint(view.minting_secret(), USER, now + CREDENTIAL_TTL),
            family: if has_v4 {
                AddressFamily::V4
            } else {
                AddressFamily::V6
            },
            turn,
            quick: !node.connected,
            draining: node.draining,
            broken: broken.to_vec(),
        }
    }

    pub(super) async fn run(self) -> Finding {
        let Some(first) = self.places.first() else {
            return Finding::failure(ProbeFailure::NoListener);
        };
        if self.quick {
            return self.run_quick(first).await;
        }
        let (index, kind) = self.plan();
        let place = &self.places[index];
        match self.try_once(place, kind, TIMEOUT).await {
            Ok(duration) => Finding {
                result: Ok(duration),
                worked: Some(ours(place.transport)),
                failed: None,
            },
            Err(failure @ (ProbeFailure::NoAnswer | ProbeFailure::Connection)) => {
                self.cross_check(place.transport, failure).await
            }
            Err(
                failure @ (ProbeFailure::NoListener
                | ProbeFailure::Refused(_)
                | ProbeFailure::DataLost),
            ) => Finding::failure(failure),
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
        let kind = if round_trip && !self.draining {
            Kind::RoundTrip {
                credential: self.credential.clone(),
                family: self.family,
            }
        } else {
            Kind::Binding
        };
        (index, kind)
    }

    async fn run_quick(&self, place: &Place) -> Finding {
        let mut finding = Finding::failure(ProbeFailure::NoAnswer);
        for _ in 0..QUICK_TRIES {
            match self.try_once(place, Kind::Binding, QUICK_TIMEOUT).await {
                Ok(duration) => {
                    finding.result = Ok(duration);
                    break;
                }
                Err(failure) => finding.result = Err(failure),
            }
        }
        finding
    }

    /// Whether `failure` is the node's, or only that of `transport`.
    async fn cross_check(&self, transport: CoreTransport, failure: ProbeFailure) -> Finding {
        let other = self.places.iter().find(|place| {
            place.transport != transport && !self.broken.contains(&ours(place.transport))
        });
        let Some(other) = other else {
            return Finding::failure(failure);
        };
        match self
            .try_once(other, Kind::Binding, CROSS_CHECK_TIMEOUT)
            .await
        {
            Ok(duration) => Finding {
                result: Ok(duration),
                worked: None,
                failed: Some(ours(transport)),
            },
            Err(_) => Finding::failure(failure),
        }
    }

    async fn try_once(
        &self,
        place: &Place,
        kind: Kind,
        timeout: Duration,
    ) -> Result<Duration, ProbeFailure> {
        let trial = Trial {
            place: place.clone(),
            tls: Arc::clone(&self.tls),
            timeout,
            kind,
        };
        let began = Instant::now();
        match trial.run().await {
            Ok(()) => Ok(began.elapsed()),
            // A full relay is alive, and so is one that names another; that it is full is seen from its load.
            Err(TrialError::Refused(
                _,
                ErrorCode::INSUFFICIENT_CAPACITY | ErrorCode::TRY_ALTERNATE,
            )) => Ok(began.elapsed()),
            Err(error) => {
                let (transport, address) = (place.transport, place.address);
                tracing::debug!(%transport, %address, %error, "probe failed");
                Err(failure(&error))
            }
        }
    }
}

impl Finding {
    fn failure(failure: ProbeFailure) -> Self {
        Self {
            result: Err(failure),
            worked: None,
            failed: None,
        }
    }
}

fn failure(error: &TrialError) -> ProbeFailure {
    match error {
        TrialError::Timeout(Step::Data) => ProbeFailure::DataLost,
        TrialError::Timeout(Step::Connect | Step::Request(_)) | TrialError::Answer(_) => {
            ProbeFailure::NoAnswer
        }
        TrialError::Io(..) => ProbeFailure::Connection,
        TrialError::Refused(_, code) => ProbeFailure::Refused(code.code()),
    }
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
