//! gRPC `ControllerPeer`: tells other controllers what this one sees, and what happens here.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use turnfleet_proto::fleet::controller_peer_server::{ControllerPeer, ControllerPeerServer};
use turnfleet_proto::fleet::{FleetEvent, FollowRequest, PeerEvents, PeerEventsRequest, Sightings};

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

impl PeerService {
    /// Lets controllers of this fleet in alone.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if self.token.is(&bearer(request)?) {
            return Ok(());
        }
        let text = "the token is not that of a controller of this fleet: it comes from the key that seals the store";
        Err(Status::unauthenticated(text))
    }
}

#[async_trait]
impl ControllerPeer for PeerService {
    type EventsStream = ReceiverStream<Result<PeerEvents, Status>>;
    type FollowStream = ReceiverStream<Result<Sightings, Status>>;

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.admit(&request)?;
        let controller = request.into_inner().controller_id;
        tracing::debug!(?controller, "another controller follows this one");
        let (down, stream) = mpsc::channel(QUEUE);
        let mut sightings = self.handle.sightings();
        sightings.mark_changed();
        tokio::spawn(async move {
            // Waits for the follower before the freshest is taken, so that nothing stale is queued.
            while let Ok(place) = down.reserve().await {
                tokio::select! {
                    changed = sightings.changed() => if changed.is_err() {
                        return;
                    },
                    () = down.closed() => return,
                }
                let seen = sightings.borrow_and_update().as_ref().clone();
                place.send(Ok(seen));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn events(
        &self,
        request: Request<PeerEventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        let bus = self.handle.events().clone();
        let mut reader = bus.follow(&request.run, request.after);
        let (down, stream) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    batch = reader.next() => batch,
                    () = down.closed() => return,
                };
                let events = batch.events.iter();
                let told = PeerEvents {
                    run: bus.run().to_vec(),
                    place: batch.place,
                    missed: batch.missed.unwrap_or(0),
                    events: events
                        .map(|(_, event)| FleetEvent::from(&**event))
                        .collect(),
                };
                if down.send(Ok(told)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
