//! The certificate of a node's TLS listeners, from files or from the fleet, and the listeners that answer challenges by HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use turnfleet_proto::certificate::Certificate;

use super::NodeError;
use crate::challenges;
use crate::config::Config;
use crate::control::{FleetCertificate, StateDir};
use crate::metrics::CertificateCounts;

/// What TLS listeners show; `None` where nobody needs it. The fleet's is that of the last run until the controller tells one.
pub(super) fn certificate(
    config: &Config,
    dir: &StateDir,
) -> Result<Option<Arc<Certificate>>, NodeError> {
    if config.fleet_tls.is_some() {
        let certificate = Certificate::awaited();
        FleetCertificate::show_kept(&certificate, dir);
        return Ok(Some(Arc::new(certificate)));
    }
    let files = config.tls.as_ref();
    let loaded = files.map(|files| Certificate::load(&files.certificate, &files.key));
    Ok(loaded.transpose()?.map(Arc::new))
}

/// The listeners that answer challenges; they end with this.
pub(super) struct Challenges {
    tasks: JoinSet<()>,
    /// Connections that gave way to others.
    evicted: Arc<AtomicU64>,
}

/// What is told of the certificate, and of the challenges that it is issued by.
pub(super) fn counts(certificate: &Certificate, challenges: &Challenges) -> CertificateCounts {
    CertificateCounts {
        replaced: certificate.replaced(),
        rejected: certificate.rejected(),
        not_after: certificate.validity().map_or(0, |(_, last)| last),
        answers_left_out: certificate.answers_left_out(),
        evicted: challenges.evicted.load(Ordering::Relaxed),
    }
}

/// Listens for challenges wherever the configuration says.
pub(super) async fn answer_challenges(
    config: &Config,
    certificate: Option<&Arc<Certificate>>,
) -> Result<Challenges, NodeError> {
    let mut challenges = Challenges {
        tasks: JoinSet::new(),
        evicted: Arc::default(),
    };
    let (Some(fleet), Some(certificate)) = (&config.fleet_tls, certificate) else {
        return Ok(challenges);
    };
    for &address in &fleet.http_challenges {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| NodeError::Challenges { address, source })?;
        let (certificate, evicted) = (Arc::clone(certificate), Arc::clone(&challenges.evicted));
        let serving = challenges::serve(listener, certificate, evicted);
        challenges.tasks.spawn(serving);
    }
    Ok(challenges)
}
