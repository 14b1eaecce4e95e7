//! Follows what happens at one other controller: begins again where it was whenever that ends.

use tokio::time::{sleep, timeout};
use turnfleet_proto::fleet::controller_peer_client::ControllerPeerClient;
use turnfleet_proto::fleet::{PeerEvents, PeerEventsRequest};

use super::PeerSettings;
use super::follow::{MAX_MESSAGE, PATIENCE, PAUSE, endpoint, shown_by};
use crate::error::chain;
use crate::events::{Event, Source};
use crate::fleet::ControllerView;
use crate::reconcile::Handle;

/// Follows `other` until the task is aborted.
pub(super) async fn follow(settings: PeerSettings, other: ControllerView, handle: Handle) {
    let mut from = PeerEventsRequest {
        controller_id: settings.own.to_string(),
        ..PeerEventsRequest::default()
    };
    loop {
        let ended = attempt(&settings, &other, &handle, &mut from).await;
        tracing::debug!(controller = %other.id, error = ended, "the events of another controller are out of reach");
        sleep(PAUSE).await;
    }
}

/// One connection from its beginning to its end, which the text tells. `from` is where the next one goes on.
async fn attempt(
    settings: &PeerSettings,
    other: &ControllerView,
    handle: &Handle,
    from: &mut PeerEventsRequest,
) -> String {
    let opened = timeout(2 * PATIENCE, open(settings, other, from.clone())).await;
    let mut told = match opened {
        Ok(Ok(told)) => told,
        Ok(Err(error)) => return error,
        Err(_) => return "no answer in time".to_owned(),
    };
    loop {
        match told.message().await {
            Ok(Some(batch)) => {
                if batch.missed > 0 {
                    tracing::warn!(controller = %other.id, missed = batch.missed, "events of another controller came too fast");
                }
                (from.run, from.after) = (batch.run, batch.place);
                let events = batch.events.into_iter().filter_map(Event::read);
                handle.events().take(events, Source::Peer);
            }
            Ok(None) => return "it stopped".to_owned(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

async fn open(
    settings: &PeerSettings,
    other: &ControllerView,
    from: PeerEventsRequest,
) -> Result<tonic::Streaming<PeerEvents>, String> {
    let endpoint = endpoint(&other.grpc, settings).await?;
    // Nothing may happen for long.
    let endpoint = endpoint
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
    let mut client = ControllerPeerClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let answer = client.events(shown_by(settings, from)).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| status.message().to_owned())
}
