//! The certificate of a node's TLS listeners, from files or from the fleet, and the listeners that answer challenges by HTTP.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use turnfleet_proto::certificate::Certificate;

use super::NodeError;
use crate::challenges;
use crate::config::Config;
use crate::control::{FleetCertificate, StateDir};

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

/// Listens for challenges wherever the configuration says; the tasks end with what is returned.
pub(super) async fn answer_challenges(
    config: &Config,
    certificate: Option<&Arc<Certificate>>,
) -> Result<JoinSet<()>, NodeError> {
    let mut tasks = JoinSet::new();
    let (Some(fleet), Some(certificate)) = (&config.fleet_tls, certificate) else {
        return Ok(tasks);
    };
    for &address in &fleet.http_challenges {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| NodeError::Challenges { address, source })?;
        tasks.spawn(challenges::serve(listener, Arc::clone(certificate)));
    }
    Ok(tasks)
}
