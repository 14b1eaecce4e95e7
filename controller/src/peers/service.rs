//! gRPC `ControllerPeer`: tells other controllers what this one sees, what happens here, and what the journals of its nodes say.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use turnfleet_proto::fleet::controller_peer_server::{ControllerPeer, ControllerPeerServer};
use turnfleet_proto::fleet::{
    FleetEvent, FollowRequest, NodeTrace, PeerEvents, PeerEventsRequest, PeerTraceAnswer,
    PeerTraceRequest, Sightings, TraceAnswer,
};

use super::PeerToken;
use crate::api::bearer;
use crate::reconcile::Handle;
use crate::traces::{self, Journals};

/// A follower that does not read is given up as soon as something fresher waits behind this.
const QUEUE: usize = 1;
/// The largest request: one that names ten thousand nodes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The service that other controllers follow this one by.
pub(crate) struct PeerService {
    handle: Handle,
    token: PeerToken,
    journals: Journals,
}

impl PeerService {
    pub(crate) fn server(
        handle: Handle,
        token: PeerToken,
        journals: Journals,
    ) -> ControllerPeerServer<Self> {
        let service = Self {
            handle,
            token,
            journals,
        };
        ControllerPeerServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

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
        let usage = self.handle.usage().clone();
        let mut known = 0;
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
                let mut seen = sightings.borrow_and_update().as_ref().clone();
                (seen.usage, known) = usage.told_since(known);
                place.send(Ok(seen));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn trace(
        &self,
        request: Request<PeerTraceRequest>,
    ) -> Result<Response<PeerTraceAnswer>, Status> {
        self.admit(&request)?;
        let PeerTraceRequest { query, node_ids } = request.into_inner();
        let query = query.ok_or_else(|| Status::invalid_argument("there is no query"))?;
        let nodes = node_ids.iter().filter_map(|node| node.parse().ok());
        let here = nodes.filter(|node| self.journals.has(node)).collect();
        let answers = traces::ask_all(&self.journals, here, query).await;
        let nodes = answers.into_iter().map(|(node, answer)| NodeTrace {
            node_id: node.to_string(),
            answer: Some(answer.unwrap_or_else(|reason| TraceAnswer {
                refusal: reason.to_owned(),
                ..TraceAnswer::default()
            })),
        });
        let nodes = nodes.collect();
        Ok(Response::new(PeerTraceAnswer { nodes }))
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
