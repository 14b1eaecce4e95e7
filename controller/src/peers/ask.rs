//! Asks one other controller for what the journals of its nodes say.

use std::time::Duration;

use tokio::time::timeout;
use turnfleet_proto::fleet::controller_peer_client::ControllerPeerClient;
use turnfleet_proto::fleet::{PeerTraceAnswer, PeerTraceRequest};

use super::PeerSettings;
use super::follow::{MAX_MESSAGE, endpoint, shown_by};
use crate::error::chain;
use crate::fleet::ControllerView;

/// From the connection to the answer: a little more than a node may take.
const PATIENCE: Duration = Duration::from_millis(4000);

/// What `other` hears of the nodes that are asked for.
///
/// # Errors
/// With the reason, where it cannot be reached or does not answer.
pub(crate) async fn trace(
    settings: &PeerSettings,
    other: &ControllerView,
    request: PeerTraceRequest,
) -> Result<PeerTraceAnswer, String> {
    let answered = async {
        let endpoint = endpoint(&other.grpc, settings).await?;
        let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
        let mut client = ControllerPeerClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let answer = client.trace(shown_by(settings, request)).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| status.message().to_owned())
    };
    match timeout(PATIENCE, answered).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer in time".to_owned()),
    }
}
