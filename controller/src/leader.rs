//! Which of the controllers does the work that only one may do.
//!
//! Each controller holds a lease, and names itself at `controllers/{id}` with it. Whoever writes the key `leader` first
//! leads until that key is gone, with its lease at the latest. The revision that wrote the key is the term's fence: every write
//! of a leader compares it, so one that was stopped and does not know that its term is over writes nothing. A leader also stops
//! by itself before its lease can have ended, by a clock that no one sets.
//!
//! A name is one controller's. One that finds there what was written from elsewhere waits until the lease of that has ended, and
//! takes no part meanwhile; what an earlier run at the same addresses has left is replaced at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::fleet::record::ControllerRecord;
use crate::store::{
    Compare, Entry, LeaseId, Outcome, Put, Revision, Store, StoreError, Txn, Watch, codec, keys,
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
/// How often another controller of the same name is told of.
const REMIND: Duration = Duration::from_secs(60);

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
        next_word: None,
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
    /// When another controller of the same name is told of again; `None` where none was seen.
    next_word: Option<Instant>,
}

impl Candidate {
    /// Holds one lease until it is lost; none while the name is another's.
    async fn serve(&mut self) -> Result<(), StoreError> {
        let Some(before) = self.find_place().await? else {
            return Ok(());
        };
        let asked = Instant::now();
        let lease = self.store.grant_lease(LEASE).await?;
        (self.lease, self.won) = (Some(lease), None);
        let mut ends = asked + LEASE - MARGIN;
        let mut named = self.take_name(lease, before).await?;
        if named.is_none() {
            // Somebody else was faster. The lease holds nothing, and ends by itself.
            return Ok(());
        }
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
                            named = self.keep_name(lease, named).await;
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

    /// What stands where this controller names itself.
    async fn standing(&self) -> Result<Option<Entry>, StoreError> {
        let (key, _) = codec::encode_controller(&self.me);
        let found = self.store.range(&key).await?.entries;
        Ok(found.into_iter().find(|entry| entry.key == key))
    }

    /// The revision of what this controller may replace by its name, zero for nothing; `None` where another one holds the name.
    async fn find_place(&mut self) -> Result<Option<Revision>, StoreError> {
        let standing = self.standing().await?;
        let revision = standing.as_ref().map_or(0, |entry| entry.mod_revision);
        let own = (self.me.grpc_url.clone(), self.me.http_address.clone());
        let addresses = standing.and_then(|entry| codec::controller_addresses(&entry.value));
        if let Some(other) = addresses.filter(|addresses| *addresses != own) {
            self.tell_of_namesake(&other, false);
            return Ok(None);
        }
        self.next_word = None;
        Ok(Some(revision))
    }

    /// Names this controller in the place of what was written by the revision `before`. Gives the revision that did it; `None`
    /// where something else stands there.
    async fn take_name(
        &self,
        lease: LeaseId,
        before: Revision,
    ) -> Result<Option<Revision>, StoreError> {
        let me = codec::encode_controller(&self.me);
        match self.write(me, lease, Some(before)).await? {
            Outcome::Committed { revision } => Ok(Some(revision)),
            Outcome::Conflict { .. } => Ok(None),
        }
    }

    /// Looks whether this controller is still named by the revision `named`, tells of another one that has taken its name from the
    /// same addresses, and takes it again once that one has ended. Gives the revision that names it, as far as it is known.
    async fn keep_name(&mut self, lease: LeaseId, named: Option<Revision>) -> Option<Revision> {
        // Whether the store answers is told by the lease.
        let Ok(Ok(standing)) = timeout(KEEP, self.standing()).await else {
            return named;
        };
        let Some(entry) = standing else {
            let taken = timeout(KEEP, self.take_name(lease, 0)).await;
            return taken.ok().and_then(Result::ok).flatten();
        };
        if named.is_some_and(|named| entry.mod_revision > named)
            && let Some(other) = codec::controller_addresses(&entry.value)
        {
            self.tell_of_namesake(&other, true);
        }
        named
    }

    /// Tells of another controller that is reached at `other`. What an earlier run has left elsewhere is none, and goes with its
    /// lease: so it `is_live` for certain, or when it was there for longer than that.
    fn tell_of_namesake(&mut self, (grpc_url, http_address): &(String, String), is_live: bool) {
        let now = Instant::now();
        if self.next_word.is_some_and(|next| now < next) {
            return;
        }
        let controller = &self.me.id;
        if is_live || self.next_word.is_some() {
            tracing::error!(
                %controller,
                grpc_url,
                http_address,
                "another controller runs with the id of this one, and only one of them is known to the rest: give each a \
                 `controller.id` of its own"
            );
            self.next_word = Some(now + REMIND);
        } else {
            tracing::warn!(
                %controller,
                grpc_url,
                http_address,
                "a controller with the id of this one was there a moment ago: this one takes no part until the lease of that \
                 has ended"
            );
            self.next_word = Some(now + LEASE + KEEP);
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
