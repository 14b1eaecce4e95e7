//! Keeps the use in the store: the leader writes once a minute, and keeps what it wrote within its bounds.
//!
//! It runs beside the fleet's owner, and nothing waits for it. Where the store is away, or another leads, nothing is written, and
//! whoever leads next tells what was counted meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::day::KeptDay;
use super::history::{Resolution, Span};
use super::kept::{self, Change, Written};
use super::{UsageDesk, history::History};
use crate::fleet::FleetView;
use crate::leader::{Fence, Leadership};
use crate::reconcile::Handle;
use crate::store::{Compare, Outcome, Revision, StoreError, Txn, keys};
use crate::wall_clock;

/// The most bytes of one transaction's records.
const MAX_BYTES: usize = 256 * 1024;
/// The most bytes that the history takes; the oldest spans go.
const BUDGET: usize = 16 << 20;
/// The rest after the store failed at the start.
const RETRY: Duration = Duration::from_secs(5);
/// How often what is too old is looked for, in minutes.
const TRIM_MINUTES: u64 = 60;
/// Deletions of one transaction: fewer than any back end takes.
const DELETIONS: usize = 64;

/// The running task.
#[derive(Debug)]
pub(crate) struct Keeper(JoinHandle<()>);

impl Keeper {
    /// Takes what the store has, and keeps the use from then on.
    pub(crate) fn start(handle: &Handle, leadership: Leadership) -> Self {
        let desk = handle.usage().clone();
        let task = Task {
            history: desk.history().clone(),
            desk,
            views: handle.changes(),
            leadership,
            term: None,
        };
        Self(tokio::spawn(task.run()))
    }

    pub(crate) fn stop(self) {
        self.0.abort();
    }
}

struct Task {
    desk: UsageDesk,
    history: History,
    views: watch::Receiver<Arc<FleetView>>,
    leadership: Leadership,
    /// What this leader knows of the store; `None` where it has to look.
    term: Option<Term>,
}

struct Term {
    fence: Fence,
    written: Written,
    spans: [OpenSpan; 2],
}

/// The latest span of one resolution.
struct OpenSpan {
    resolution: Resolution,
    number: u64,
    /// The revision that wrote it; zero where it is not written.
    revision: Revision,
    span: Span,
}

impl Task {
    async fn run(mut self) {
        while let Err(error) = self.desk.load(wall_clock::since_epoch().as_secs()).await {
            tracing::warn!(%error, "what the store has of the use cannot be read; trying on");
            sleep(RETRY).await;
        }
        loop {
            let now = wall_clock::since_epoch();
            let into_minute = Duration::new(now.as_secs() % 60, now.subsec_nanos());
            sleep(Duration::from_secs(60).saturating_sub(into_minute)).await;
            // The clock may have been a little ahead of the timer.
            let unix = wall_clock::since_epoch().as_secs() + 1;
            if let Err(error) = self.keep(unix).await {
                self.term = None;
                tracing::warn!(%error, "the use could not be kept; what was counted is told with the next minute");
            }
        }
    }

    /// Writes what was counted until the second `unix`.
    async fn keep(&mut self, unix: u64) -> Result<(), StoreError> {
        let Some(fence) = self.leadership.fence() else {
            self.term = None;
            return Ok(());
        };
        if (self.term.as_ref()).is_none_or(|term| term.fence != fence) {
            self.term = Some(self.begin(fence, unix).await?);
            self.trim(unix).await?;
        }
        if (unix / 60).is_multiple_of(TRIM_MINUTES) {
            self.trim(unix).await?;
        }
        let view = Arc::clone(&self.views.borrow());
        let Some(term) = &mut self.term else {
            return Ok(());
        };
        let written = &term.written;
        let changes = self
            .desk
            .look(&view, |aggregate| written.changes(aggregate));
        for open in &mut term.spans {
            open.turn_to(unix - 1);
        }
        let most = self.history.store().max_operations().saturating_sub(4);
        for changes in in_parts(changes, most.max(1)) {
            term.write(&self.history, &changes, unix).await?;
        }
        match self.desk.day() {
            Some(day) => term.write_day(&self.history, &day).await,
            None => Ok(()),
        }
    }

    /// Looks how far the store is.
    async fn begin(&self, fence: Fence, unix: u64) -> Result<Term, StoreError> {
        let written = self.desk.load(unix).await?;
        let mut spans = Vec::with_capacity(2);
        for resolution in [Resolution::Minute, Resolution::Hour] {
            spans.push(latest(&self.history, resolution).await?);
        }
        let spans = spans.try_into();
        Ok(Term {
            fence,
            written,
            spans: spans.unwrap_or_else(|_| unreachable!("there are two resolutions")),
        })
    }

    /// Deletes what is too old or too much.
    async fn trim(&self, unix: u64) -> Result<(), StoreError> {
        let store = self.history.store();
        let mut going = Vec::new();
        for resolution in [Resolution::Minute, Resolution::Hour] {
            let oldest = (unix / resolution.seconds()).saturating_sub(resolution.kept());
            let end = kept::span_key(resolution, oldest);
            let range = store.range(kept::prefix(resolution)).await?;
            let mut bytes: usize = range.entries.iter().map(|it| it.value.len()).sum();
            for entry in range.entries {
                if entry.key >= end && bytes <= BUDGET / 2 {
                    break;
                }
                bytes -= entry.value.len();
                going.push(entry.key);
            }
        }
        for keys in going.chunks(DELETIONS) {
            let txn = Txn {
                deletes: keys.to_vec(),
                ..Txn::default()
            };
            store.commit(txn).await?;
        }
        Ok(())
    }
}

impl Term {
    /// Writes some of the records, with what they add to the spans.
    async fn write(
        &mut self,
        history: &History,
        changes: &[Change],
        unix: u64,
    ) -> Result<(), StoreError> {
        let mut txn = Txn {
            puts: changes.iter().map(Change::put).collect(),
            ..Txn::default()
        };
        txn.compares.extend(self.leads());
        for open in &mut self.spans {
            open.span.to = open.span.to.max(unix);
            for change in changes {
                change.tell(&mut open.span);
            }
            txn.compares.push(Compare {
                key: kept::span_key(open.resolution, open.number),
                mod_revision: open.revision,
            });
            txn.puts
                .push(kept::write_span(open.resolution, open.number, &open.span));
        }
        match history.store().commit(txn).await? {
            Outcome::Committed { revision } => {
                for open in &mut self.spans {
                    open.revision = revision;
                }
                self.written.wrote(changes);
                Ok(())
            }
            // Another one leads, or leads again: what it wrote is read before anything is told.
            Outcome::Conflict { .. } => Err(StoreError::LeaseEnded),
        }
    }
}

impl Term {
    /// Writes what a restart goes on from with the quotas of the day.
    async fn write_day(&self, history: &History, day: &KeptDay) -> Result<(), StoreError> {
        let txn = Txn {
            compares: self.leads().into_iter().collect(),
            puts: day.puts(),
            ..Txn::default()
        };
        match history.store().commit(txn).await? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Conflict { .. } => Err(StoreError::LeaseEnded),
        }
    }

    /// What must be so for a write of this term.
    fn leads(&self) -> Option<Compare> {
        match self.fence {
            Fence::None => None,
            Fence::Revision(mod_revision) => Some(Compare {
                key: keys::LEADER.to_owned(),
                mod_revision,
            }),
        }
    }
}

impl OpenSpan {
    /// Opens the span of the second `unix`, unless it is open.
    fn turn_to(&mut self, unix: u64) {
        let seconds = self.resolution.seconds();
        let number = unix / seconds;
        if number <= self.number && self.revision != 0 {
            return;
        }
        let begins = number * seconds;
        let before = Some(self.span.to).filter(|to| *to != 0);
        *self = Self {
            resolution: self.resolution,
            number,
            revision: 0,
            span: Span {
                from: before.map_or(begins, |to| to.min(begins)),
                to: begins,
                ..Span::default()
            },
        };
    }
}

/// The span that was written last.
async fn latest(history: &History, resolution: Resolution) -> Result<OpenSpan, StoreError> {
    let prefix = kept::prefix(resolution);
    let range = history.store().range(prefix).await?;
    let latest = range.entries.last().and_then(|entry| {
        let number = entry.key.strip_prefix(prefix)?.parse().ok()?;
        Some(OpenSpan {
            resolution,
            number,
            revision: entry.mod_revision,
            span: kept::read_span(entry)?,
        })
    });
    Ok(latest.unwrap_or_else(|| OpenSpan {
        resolution,
        number: 0,
        revision: 0,
        span: Span::default(),
    }))
}

/// The changes in parts that a transaction takes: at least one, which may be empty.
fn in_parts(changes: Vec<Change>, most: usize) -> Vec<Vec<Change>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for change in changes {
        let size = change.put().value.len();
        if part.len() >= most || (bytes + size > MAX_BYTES && !part.is_empty()) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(change);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests;
