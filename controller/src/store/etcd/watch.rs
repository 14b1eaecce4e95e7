//! A watch on etcd that outlasts the member which serves it: it goes on at the next one with the revision after the last
//! that it gave.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Error, EventType, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::link::{Failed, Link, REST, late};
use super::{MAX_MESSAGE, prefix_end, revision, text};
use crate::store::{Change, Commit, Revision, StoreError};

/// How long a member is given to take the watch.
const OPENING: Duration = Duration::from_secs(1);
/// How often a quiet watch is asked whether it is alive.
const ASK: Duration = Duration::from_secs(5);
/// A watch that has said nothing for so long is dead.
const SILENCE: Duration = Duration::from_secs(15);
/// How long no member may take the watch before its reader is told.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Commits that wait for the reader; etcd keeps what comes after them.
const BUFFER: usize = 64;

/// What the reader holds.
pub(super) struct EtcdWatch {
    commits: mpsc::Receiver<Result<Commit, StoreError>>,
}

/// Why a stream is over.
enum End {
    /// Nobody reads any more.
    Unread,
    /// The history does not reach so far.
    Compacted { oldest: Revision },
    /// The member failed.
    Broken(Failed),
}

struct Task {
    link: Arc<Link>,
    prefix: String,
    next: Revision,
    commits: mpsc::Sender<Result<Commit, StoreError>>,
    /// When members began to fail; `None` while one serves.
    failing: Option<Instant>,
}

impl EtcdWatch {
    /// Watches `prefix` from revision `next` on.
    pub(super) fn start(link: Arc<Link>, prefix: &str, next: Revision) -> Self {
        let (sender, commits) = mpsc::channel(BUFFER);
        let task = Task {
            link,
            prefix: prefix.to_owned(),
            next,
            commits: sender,
            failing: None,
        };
        tokio::spawn(task.run());
        Self { commits }
    }
}

#[async_trait::async_trait]
impl crate::store::Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Commit, StoreError> {
        let next = self.commits.recv().await;
        next.unwrap_or_else(|| Err(broken(Status::cancelled("the watch has ended"))))
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            let end = self.follow().await;
            let error = match end {
                End::Unread => return,
                End::Compacted { oldest } => StoreError::Compacted {
                    asked: self.next,
                    oldest,
                },
                End::Broken(failed) => {
                    let since = *self.failing.get_or_insert_with(Instant::now);
                    if since.elapsed() < PATIENCE {
                        tokio::time::sleep(REST).await;
                        continue;
                    }
                    failed.into_store_error("watching the store")
                }
            };
            // A reader that has gone needs no error.
            let _ = self.commits.send(Err(error)).await;
            return;
        }
    }

    /// Follows the changes at one member until it fails.
    async fn follow(&mut self) -> End {
        let (place, client) = match self.link.member().await {
            Ok(member) => member,
            Err(failed) => return End::Broken(failed),
        };
        let options = WatchOptions::new()
            .with_range(prefix_end(&self.prefix))
            .with_start_revision(i64::try_from(self.next).unwrap_or(i64::MAX))
            .with_progress_notify();
        let mut client = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        let opening = client.watch(self.prefix.as_str(), Some(options));
        let opened = timeout(OPENING, opening).await;
        let end = match opened.unwrap_or_else(|_| Err(late())) {
            Ok(mut stream) => self.read(&mut stream, place).await,
            Err(error) => Err(error),
        };
        end.unwrap_or_else(|error| End::Broken(self.link.failed(place, error)))
    }

    async fn read(&mut self, stream: &mut WatchStream, place: usize) -> Result<End, Error> {
        let mut heard = Instant::now();
        loop {
            let response = tokio::select! {
                () = self.commits.closed() => return Ok(End::Unread),
                response = timeout(ASK, stream.message()) => response,
            };
            let response = match response {
                Ok(response) => {
                    response?.ok_or_else(|| unavailable("the member ended the watch"))?
                }
                Err(_) if heard.elapsed() >= SILENCE => {
                    return Err(unavailable("the watch is silent"));
                }
                Err(_) => {
                    stream.request_progress().await?;
                    continue;
                }
            };
            heard = Instant::now();
            if response.canceled() && response.compact_revision() > 0 {
                let oldest = revision(response.compact_revision());
                return Ok(End::Compacted { oldest });
            }
            if response.canceled() {
                // etcd says no more than this of a login that has ended.
                self.link.log_out(place);
                return Err(unavailable(response.cancel_reason()));
            }
            self.failing = None;
            for commit in commits(response.events()) {
                self.next = commit.revision + 1;
                if self.commits.send(Ok(commit)).await.is_err() {
                    return Ok(End::Unread);
                }
            }
        }
    }
}

fn unavailable(why: &str) -> Error {
    Error::GRpcStatus(Status::unavailable(why))
}

/// Events come in the order of revisions, and all of one revision in one response.
fn commits(events: &[etcd_client::Event]) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    for event in events {
        let Some(entry) = event.kv() else { continue };
        let change = Change {
            key: text(entry.key()),
            value: (event.event_type() == EventType::Put).then(|| entry.value().to_vec()),
        };
        let revision = revision(entry.mod_revision());
        match commits.last_mut() {
            Some(commit) if commit.revision == revision => commit.changes.push(change),
            Some(_) | None => commits.push(Commit {
                revision,
                changes: vec![change],
            }),
        }
    }
    for commit in &mut commits {
        commit.changes.sort_by(|a, b| a.key.cmp(&b.key));
    }
    commits
}

fn broken(status: Status) -> StoreError {
    StoreError::Backend {
        doing: "watching the store",
        retryable: true,
        source: Box::new(status),
    }
}
