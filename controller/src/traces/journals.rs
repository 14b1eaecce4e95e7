//! The journals that can be asked: those of the nodes whose sessions are with this controller.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::{JournalKey, TraceAnswer, TraceQuery};
use turnfleet_proto::user_hash::UserKey;

use crate::store::Sealer;

/// What the key of the user hashes is derived for.
const PURPOSE: &[u8] = b"turnfleet journal users v1";
/// Questions that wait for one session; a node answers two at a time.
const QUEUE: usize = 4;
/// How long nodes may take to answer: a search takes three seconds at the most.
pub(super) const PATIENCE: Duration = Duration::from_millis(3500);

/// The journals within reach. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Journals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: UserKey,
    /// Tells a session from the one that replaces it.
    next: AtomicU64,
    sessions: Mutex<HashMap<NodeId, (u64, mpsc::Sender<Asked>)>>,
}

#[derive(Debug)]
struct Asked {
    query: TraceQuery,
    answer: oneshot::Sender<TraceAnswer>,
}

/// A session's end: what its node is asked, and where the answers go. The node cannot be asked any more when it is dropped.
#[derive(Debug)]
pub(crate) struct Desk {
    journals: Journals,
    node: NodeId,
    number: u64,
    /// Whether the node has been told the key.
    has_key: bool,
    questions: mpsc::Receiver<Asked>,
    waiting: HashMap<u64, oneshot::Sender<TraceAnswer>>,
    next_id: u64,
}

impl Journals {
    /// None yet, of the fleet whose store is sealed by `sealer`: all of its controllers have one key.
    pub(crate) fn of(sealer: &Sealer) -> Self {
        Self(Arc::new(Inner {
            key: UserKey::new(sealer.derive(PURPOSE)),
            next: AtomicU64::new(0),
            sessions: Mutex::default(),
        }))
    }

    /// What users are hashed with.
    pub(crate) fn key(&self) -> &UserKey {
        &self.0.key
    }

    /// The session of `node`, which keeps a journal, is open; it takes the place of an earlier one.
    pub(crate) fn open(&self, node: &NodeId) -> Desk {
        let (questions, receiver) = mpsc::channel(QUEUE);
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.sessions().insert(node.clone(), (number, questions));
        Desk {
            journals: self.clone(),
            node: node.clone(),
            number,
            has_key: false,
            questions: receiver,
            waiting: HashMap::new(),
            next_id: 1,
        }
    }

    /// Whether the journal of `node` can be asked here.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        self.sessions().contains_key(node)
    }

    /// What the journal of `node` says to `query`, until `by`.
    ///
    /// # Errors
    /// With the reason why it says nothing.
    pub(crate) async fn ask(
        &self,
        node: &NodeId,
        query: TraceQuery,
        by: Instant,
    ) -> Result<TraceAnswer, &'static str> {
        let (answer, answered) = oneshot::channel();
        let session = self.sessions().get(node).map(|(_, it)| it.clone());
        let session = session.ok_or("it has no control session here")?;
        let asked = session.try_send(Asked { query, answer });
        asked.map_err(|refused| match refused {
            TrySendError::Full(_) => "it is asked too much at once",
            TrySendError::Closed(_) => "its control session ended",
        })?;
        match tokio::time::timeout_at(by, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("its control session ended"),
            Err(_) => Err("it gave no answer in time"),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<NodeId, (u64, mpsc::Sender<Asked>)>> {
        // Each change is one call of the map.
        let sessions = self.0.sessions.lock();
        sessions.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// The next message to the node: the key at first, then what somebody asks. May be dropped at any point without losing
    /// one.
    pub(crate) async fn next(&mut self) -> Down {
        if !std::mem::replace(&mut self.has_key, true) {
            let key = self.journals.key().as_bytes().to_vec();
            return Down::JournalKey(JournalKey { key });
        }
        let Some(Asked { query, answer }) = self.questions.recv().await else {
            // A later session of the node has taken over, and ends this one.
            return std::future::pending().await;
        };
        // Those that were given up.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert(id, answer);
        Down::TraceQuery(TraceQuery { id, ..query })
    }

    /// Passes on what the node says.
    pub(crate) fn answered(&mut self, answer: TraceAnswer) {
        if let Some(waiting) = self.waiting.remove(&answer.id) {
            // Whoever asked may have gone.
            drop(waiting.send(answer));
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut sessions = self.journals.sessions();
        if sessions
            .get(&self.node)
            .is_some_and(|(number, _)| *number == self.number)
        {
            sessions.remove(&self.node);
        }
    }
}
