//! A watch on etcd that outlasts the member which serves it: it goes on at the next one with the revision after the last
//! that it gave.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use turnfleet_proto::etcd as wire;
use wire::watch_client::WatchClient;
use wire::watch_request::RequestUnion;

use super::link::{Failed, Link, REST};
use super::{MAX_MESSAGE, prefix_end, revision, text};
use crate::store::{Change, Commit, Revision, StoreError};
use std::sync::Arc;

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
        let (place, channel) = match self.link.stream_member().await {
            Ok(member) => member,
            Err(failed) => return End::Broken(failed),
        };
        let (requests, outgoing) = mpsc::channel(4);
        let create = RequestUnion::CreateRequest(wire::WatchCreateRequest {
            key: self.prefix.clone().into_bytes(),
            range_end: prefix_end(&self.prefix),
            start_revision: i64::try_from(self.next).unwrap_or(i64::MAX),
            progress_notify: true,
        });
        let mut request = self.link.request(ReceiverStream::new(outgoing));
        // A member that lost the others ends the watch instead of staying silent.
        let yes = tonic::metadata::MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", yes);
        let opened = async {
            send(&requests, create).await?;
            let mut client = WatchClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
            Ok(client.watch(request).await?.into_inner())
        };
        let late = || Status::deadline_exceeded("the watch was not taken in time");
        let opened = timeout(OPENING, opened).await;
        let end = match opened.unwrap_or_else(|_| Err(late())) {
            Ok(mut stream) => self.read(&mut stream, &requests).await,
            Err(status) => Err(status),
        };
        end.unwrap_or_else(|status| {
            self.link.pass_on(place);
            End::Broken(self.link.failed(place, status))
        })
    }

    async fn read(
        &mut self,
        stream: &mut Streaming<wire::WatchResponse>,
        requests: &mpsc::Sender<wire::WatchRequest>,
    ) -> Result<End, Status> {
        let mut heard = Instant::now();
        loop {
            let response = tokio::select! {
                () = self.commits.closed() => return Ok(End::Unread),
                response = timeout(ASK, stream.message()) => response,
            };
            let response = match response {
                Ok(response) => {
                    response?.ok_or_else(|| Status::unavailable("the member ended the watch"))?
                }
                Err(_) if heard.elapsed() >= SILENCE => {
                    return Err(Status::unavailable("the watch is silent"));
                }
                Err(_) => {
                    let ask = RequestUnion::ProgressRequest(wire::WatchProgressRequest {});
                    send(requests, ask).await?;
                    continue;
                }
            };
            heard = Instant::now();
            self.failing = None;
            if response.canceled && response.compact_revision > 0 {
                let oldest = revision(response.compact_revision);
                return Ok(End::Compacted { oldest });
            }
            if response.canceled {
                // etcd says no more than this of a token that has ended.
                self.link.log_out();
                return Err(Status::unavailable(response.cancel_reason));
            }
            for commit in commits(response.events) {
                self.next = commit.revision + 1;
                if self.commits.send(Ok(commit)).await.is_err() {
                    return Ok(End::Unread);
                }
            }
        }
    }
}

async fn send(
    requests: &mpsc::Sender<wire::WatchRequest>,
    request: RequestUnion,
) -> Result<(), Status> {
    let request = wire::WatchRequest {
        request_union: Some(request),
    };
    let sent = requests.send(request).await;
    sent.map_err(|_| Status::unavailable("the stream is closed"))
}

/// Events come in the order of revisions, and all of one revision in one response.
fn commits(events: Vec<wire::Event>) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    for event in events {
        let deleted = event.r#type() == wire::event::EventType::Delete;
        let Some(entry) = event.kv else { continue };
        let change = Change {
            key: text(entry.key),
            value: (!deleted).then_some(entry.value),
        };
        let revision = revision(entry.mod_revision);
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
