//! What a session says to its controller, where each message is queued and never waited for, and how the two part.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Streaming;
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::node_message::Message as FromNode;

use super::client::ClientError;
use super::session_error::SessionError;

/// How long a Goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the reason may take that a controller has for ending a session.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Queues a message; a full queue means that the controller does not read.
pub(super) fn say(
    outgoing: &mpsc::Sender<fleet::NodeMessage>,
    message: FromNode,
) -> Result<(), SessionError> {
    let message = fleet::NodeMessage {
        message: Some(message),
    };
    outgoing.try_send(message).map_err(|refused| match refused {
        mpsc::error::TrySendError::Full(_) => SessionError::Stalled,
        mpsc::error::TrySendError::Closed(_) => SessionError::Closed,
    })
}

/// Queues what the node takes of its shares, where there is something to say.
pub(super) fn say_demand(
    outgoing: &mpsc::Sender<fleet::NodeMessage>,
    demand: Option<fleet::Demand>,
) -> Result<(), SessionError> {
    demand.map_or(Ok(()), |demand| say(outgoing, FromNode::Demand(demand)))
}

/// Says Goodbye and waits until the controller has heard it.
pub(super) async fn farewell(
    outgoing: mpsc::Sender<fleet::NodeMessage>,
    mut incoming: Streaming<fleet::ControllerMessage>,
) {
    let goodbye = fleet::Goodbye {
        reason: "stopping".into(),
    };
    if say(&outgoing, FromNode::Goodbye(goodbye)).is_err() {
        return;
    }
    drop(outgoing);
    let heard = async { while let Ok(Some(_)) = incoming.message().await {} };
    // A controller that does not answer learns of the end from the connection.
    let _ = timeout(FAREWELL, heard).await;
}

/// Why the controller has ended the session: its word on that, as far as it gave one.
pub(super) async fn last_word(mut incoming: Streaming<fleet::ControllerMessage>) -> SessionError {
    let read = async {
        loop {
            match incoming.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return SessionError::Closed,
                Err(status) => return SessionError::Client(ClientError::Status(status)),
            }
        }
    };
    let read = timeout(LAST_WORD, read).await;
    read.unwrap_or(SessionError::Closed)
}
