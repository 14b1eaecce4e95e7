//! Follows one other controller: connects, takes what it sees, and begins again when that ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use turnfleet_proto::fleet::FollowRequest;
use turnfleet_proto::fleet::controller_peer_client::ControllerPeerClient;

use super::PeerSettings;
use crate::error::chain;
use crate::fleet::{ControllerView, Sighting};
use crate::metrics::Metrics;
use crate::reconcile::Handle;

/// For a connection, and for the beginning of an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// One that says nothing for so long is connected to anew: it speaks once a second.
const SILENCE: Duration = Duration::from_secs(4);
/// Between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// Ten thousand nodes at some two hundred bytes each.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

/// Follows `other` until the task is aborted.
pub(super) async fn follow(
    settings: PeerSettings,
    other: ControllerView,
    handle: Handle,
    metrics: Arc<Metrics>,
) {
    let mut was_up = true;
    loop {
        let mut heard = false;
        let ended = attempt(&settings, &other, &handle, &metrics, &mut heard).await;
        if was_up || heard {
            let (controller, address) = (&other.id, &other.grpc);
            tracing::warn!(%controller, %address, error = ended.as_str(), "another controller is out of sight; trying on");
        }
        was_up = heard;
        sleep(PAUSE).await;
    }
}

/// One connection from its beginning to its end, which the text tells.
async fn attempt(
    settings: &PeerSettings,
    other: &ControllerView,
    handle: &Handle,
    metrics: &Metrics,
    heard: &mut bool,
) -> String {
    let opened = timeout(2 * PATIENCE, open(settings, other)).await;
    let mut sightings = match opened {
        Ok(Ok(sightings)) => sightings,
        Ok(Err(error)) => return error,
        Err(_) => return "no answer in time".to_owned(),
    };
    let in_sight = InSight::count(metrics);
    let ended = loop {
        match timeout(SILENCE, sightings.message()).await {
            Ok(Ok(Some(message))) => {
                if !std::mem::replace(heard, true) {
                    tracing::info!(controller = %other.id, address = %other.grpc, "following another controller");
                }
                if let Some(word) = message.quotas {
                    handle.report_quotas(word).await;
                }
                if message.quotas_only {
                    continue;
                }
                handle.usage().told(message.usage);
                let read = message.nodes.into_iter().filter_map(Sighting::read);
                handle.report_sightings(&other.id, read.collect()).await;
            }
            Ok(Ok(None)) => break "it stopped".to_owned(),
            Ok(Err(status)) => break status.message().to_owned(),
            Err(_) => break "it fell silent".to_owned(),
        }
    };
    drop(in_sight);
    ended
}

async fn open(
    settings: &PeerSettings,
    other: &ControllerView,
) -> Result<tonic::Streaming<turnfleet_proto::fleet::Sightings>, String> {
    let endpoint = endpoint(&other.grpc, settings).await?;
    let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
    let mut client = ControllerPeerClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let request = FollowRequest {
        controller_id: settings.own.to_string(),
        takes_quotas: true,
    };
    let answer = client.follow(shown_by(settings, request)).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| status.message().to_owned())
}

/// A request with what proves that this controller is one of the fleet's.
pub(super) fn shown_by<T>(settings: &PeerSettings, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", settings.token.as_str())
        .parse()
        .expect("a token has visible ASCII characters only");
    bearer.set_sensitive(true);
    request.metadata_mut().insert("authorization", bearer);
    request
}

pub(super) async fn endpoint(address: &str, settings: &PeerSettings) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| chain(&error))?;
    let endpoint = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true);
    if !address.starts_with("https:") {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(path) = &settings.ca {
        // Read each time: an authority may be renewed while the controller runs.
        let pem = tokio::fs::read(path).await;
        let pem = pem.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        tls = tls.ca_certificate(Certificate::from_pem(pem));
    }
    if let Some(name) = &settings.name {
        tls = tls.domain_name(name);
    }
    endpoint.tls_config(tls).map_err(|error| chain(&error))
}

/// Counts a controller as long as it is followed.
struct InSight<'a>(&'a Metrics);

impl<'a> InSight<'a> {
    fn count(metrics: &'a Metrics) -> Self {
        metrics.controllers_in_sight.inc();
        Self(metrics)
    }
}

impl Drop for InSight<'_> {
    fn drop(&mut self) {
        self.0.controllers_in_sight.dec();
    }
}
