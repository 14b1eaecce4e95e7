//! Which of the controllers does the work that only one may do.
//!
//! Each controller holds a lease, and names itself at `controllers/{id}` with it. Whoever writes the key `leader` first
//! leads until that key is gone, with its lease at the latest. The revision that wrote the key is the term's fence: every write
//! of a leader compares it, so one that was stopped and does not know that its term is over writes nothing. A leader also stops
//! by itself before its lease can have ended, by a clock that no one sets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::fleet::record::ControllerRecord;
use crate::store::{
    Compare, LeaseId, Outcome, Put, Revision, Store, StoreError, Txn, Watch, codec, keys,
};

/// How long a controller that is gone still counts.
const LEASE: Duration = Duration::from_secs(10);
/// A leader stops so long before its lease can end.
const MARGIN: Duration = Duration::from_secs(1);
/// How often the lease is kept.
const KEEP: Duration = Duration::from_secs(2);
/// The rest after the store failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long a stopping controller takes to end its lease.
const FAREWELL: Duration = Duration::from_secs(1);

/// What this controller knows of its own leading.
#[derive(Clone, Debug)]
pub enum Leadership {
    /// There is no other controller.
    Sole,
    /// It is elected; `None` while another one leads, or nobody.
    Elected(watch::Receiver<Option<Term>>),
}

/// A time of leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The revision that wrote the key `leader`.
    pub fence: Revision,
    /// When it is over unless the lease is kept until then.
    pub ends: Instant,
}

/// What a write as the leader must compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing: there is no other controller.
    None,
    /// The key `leader` must have been written by this revision.
    Revision(Revision),
}

impl Leadership {
    /// The fence of the term that goes on; `None` where this controller does not lead.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        match self {
            Self::Sole => Some(Fence::None),
            Self::Elected(term) => {
                let term = (*term.borrow())?;
                (Instant::now() < term.ends).then_some(Fence::Revision(term.fence))
            }
        }
    }

    /// Whether this controller leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.fence().is_some()
    }
}

/// Takes part in the election until `stop` is true, and names this controller to the others as `me`.
pub async fn stand(
    store: Arc<dyn Store>,
    me: ControllerRecord,
    term: watch::Sender<Option<Term>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut candidate = Candidate {
        store,
        me,
        term,
        lease: None,
        won: None,
    };
    loop {
        let served = tokio::select! {
            biased;
            served = candidate.serve() => served,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        candidate.step_down();
        if let Err(error) = served {
            tracing::warn!(%error, "this controller cannot keep its lease");
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(RETRY) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    candidate.step_down();
    if let Some(lease) = candidate.lease {
        // Otherwise it ends by itself, only later.
        let _ = timeout(FAREWELL, candidate.store.revoke_lease(lease)).await;
    }
}

struct Candidate {
    store: Arc<dyn Store>,
    me: ControllerRecord,
    term: watch::Sender<Option<Term>>,
    lease: Option<LeaseId>,
    /// The revision by which the lease in use won an election.
    won: Option<Revision>,
}

impl Candidate {
    /// Holds one lease until it is lost.
    async fn serve(&mut self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let lease = self.store.grant_lease(LEASE).await?;
        (self.lease, self.won) = (Some(lease), None);
        let mut ends = asked + LEASE - MARGIN;
        self.write(codec::encode_controller(&self.me), lease, None)
            .await?;
        let mut changes = self.run_for_office(lease, ends).await?;
        let mut next_keep = Instant::now() + KEEP;
        loop {
            tokio::select! {
                biased;
                change = changes.next() => {
                    drop(change);
                    self.step_down();
                    changes = self.run_for_office(lease, ends).await?;
                }
                () = sleep_until(next_keep) => {
                    let asked = Instant::now();
                    let kept = timeout(ends.saturating_duration_since(asked), self.store.keep_lease(lease));
                    match kept.await {
                        Ok(Ok(true)) => {
                            ends = asked + LEASE - MARGIN;
                            self.prolong(ends);
                            next_keep = asked + KEEP;
                        }
                        Ok(Ok(false)) => return Ok(()),
                        Ok(Err(error)) if Instant::now() >= ends => return Err(error),
                        Ok(Err(_)) => next_keep = Instant::now() + RETRY,
                        Err(_) => return Err(StoreError::LeaseEnded),
                    }
                }
            }
        }
    }

    /// Leads if nobody does, or goes on leading where only the watch had broken, and gives what tells of the end of whoever
    /// leads.
    async fn run_for_office(
        &mut self,
        lease: LeaseId,
        ends: Instant,
    ) -> Result<Box<dyn Watch>, StoreError> {
        let (key, own) = codec::encode_leader(&self.me.id);
        let leader = (key, own.clone());
        let (since, standing) = match self.write(leader, lease, Some(0)).await? {
            Outcome::Committed { revision } => {
                self.won = Some(revision);
                (revision, Some(revision))
            }
            Outcome::Conflict { revision, seen } => {
                // In a store that was set back another one may have won by the same revision.
                let entries = seen.into_iter().filter_map(|(_, entry)| entry);
                let mut entries = entries.filter(|entry| entry.value == own);
                (revision, entries.next().map(|entry| entry.mod_revision))
            }
        };
        if let Some(fence) = standing.filter(|standing| self.won == Some(*standing)) {
            self.term.send_replace(Some(Term { fence, ends }));
            tracing::info!(controller = %self.me.id, fence, "this controller leads");
        }
        self.store.watch(keys::LEADER, since + 1).await
    }

    async fn write(
        &self,
        (key, value): (String, Vec<u8>),
        lease: LeaseId,
        expected: Option<Revision>,
    ) -> Result<Outcome, StoreError> {
        let compare = |mod_revision| Compare {
            key: key.clone(),
            mod_revision,
        };
        let txn = Txn {
            compares: expected.map(compare).into_iter().collect(),
            puts: vec![Put {
                key: key.clone(),
                value,
                lease: Some(lease),
            }],
            deletes: Vec::new(),
        };
        self.store.commit(txn).await
    }

    fn prolong(&self, ends: Instant) {
        self.term.send_if_modified(|term| {
            if let Some(term) = term {
                term.ends = ends;
            }
            term.is_some()
        });
    }

    fn step_down(&self) {
        if self.term.send_replace(None).is_some() {
            tracing::info!(controller = %self.me.id, "this controller leads no more");
        }
    }
}
