//! gRPC `ControllerPeer`: tells other controllers what this one sees.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use turnfleet_proto::fleet::controller_peer_server::{ControllerPeer, ControllerPeerServer};
use turnfleet_proto::fleet::{FollowRequest, Sightings};

use super::PeerToken;
use crate::api::bearer;
use crate::reconcile::Handle;

/// A follower that does not read is given up as soon as something fresher waits behind this.
const QUEUE: usize = 1;
/// The largest request.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// The service that other controllers follow this one by.
pub(crate) struct PeerService {
    handle: Handle,
    token: PeerToken,
}

impl PeerService {
    pub(crate) fn server(handle: Handle, token: PeerToken) -> ControllerPeerServer<Self> {
        ControllerPeerServer::new(Self { handle, token })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[async_trait]
impl ControllerPeer for PeerService {
    type FollowStream = ReceiverStream<Result<Sightings, Status>>;

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        if !self.token.is(&bearer(&request)?) {
            let text = "the token is not that of a controller of this fleet: it comes from the key that seals the store";
            return Err(Status::unauthenticated(text));
        }
        let FollowRequest {
            controller_id: controller,
            takes_quotas,
        } = request.into_inner();
        tracing::debug!(?controller, "another controller follows this one");
        let (down, stream) = mpsc::channel(QUEUE);
        let mut sightings = self.handle.sightings();
        let mut quotas = self.handle.quota_words();
        sightings.mark_changed();
        quotas.mark_changed();
        tokio::spawn(async move {
            // Waits for the follower before the freshest is taken, so that nothing stale is queued.
            while let Ok(place) = down.reserve().await {
                tokio::select! {
                    changed = sightings.changed() => if changed.is_err() {
                        return;
                    },
                    Ok(()) = quotas.changed(), if takes_quotas => {
                        place.send(Ok(Sightings {
                            quotas: Some(quotas.borrow_and_update().as_ref().clone()),
                            quotas_only: true,
                            ..Sightings::default()
                        }));
                        continue;
                    }
                    () = down.closed() => return,
                }
                let seen = sightings.borrow_and_update().as_ref().clone();
                place.send(Ok(seen));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
