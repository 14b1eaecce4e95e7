//! The events of one session: what has been said, what was taken, and what is said next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use turnfleet_proto::fleet;

use super::Outbox;

/// Batches that were said and not taken.
const UNDER_WAY: usize = 8;
/// Between two batches: controllers take forty messages a second, of everything together.
const PACE: Duration = Duration::from_millis(65);

/// What one session says of events.
pub(in crate::control) struct Telling {
    outbox: Arc<Outbox>,
    latest: watch::Receiver<u64>,
    /// Whether the controller has asked for events.
    is_open: bool,
    /// The number of the last event that was said.
    said: u64,
    /// The last number of each batch that is under way.
    under_way: VecDeque<u64>,
    next_at: Instant,
}

impl Telling {
    pub(in crate::control) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            latest: outbox.latest.subscribe(),
            outbox,
            is_open: false,
            said: 0,
            under_way: VecDeque::new(),
            next_at: Instant::now(),
        }
    }

    /// The controller has everything up to `number`, and wants the others.
    pub(in crate::control) fn taken(&mut self, number: u64) {
        self.outbox.taken(number);
        if !std::mem::replace(&mut self.is_open, true) {
            self.said = self.outbox.ring().taken_up_to();
        }
        while self.under_way.front().is_some_and(|last| *last <= number) {
            self.under_way.pop_front();
        }
    }

    /// Waits for the next batch. Nothing is lost where it is not waited for to the end.
    pub(in crate::control) async fn next(&mut self) -> fleet::Events {
        if !self.is_open || self.under_way.len() >= UNDER_WAY {
            std::future::pending::<()>().await;
        }
        let said = self.said;
        // The sender is a part of the outbox.
        let _ = self.latest.wait_for(|latest| *latest > said).await;
        sleep_until(self.next_at).await;
        self.next_at = Instant::now() + PACE;
        self.batch()
    }

    /// What is left to say at once, because the node stops: at most `batches`.
    pub(in crate::control) fn rest(&mut self, batches: usize) -> Vec<fleet::Events> {
        let mut rest = Vec::new();
        while self.is_open && rest.len() < batches {
            let batch = self.batch();
            if batch.events.is_empty() {
                break;
            }
            rest.push(batch);
        }
        rest
    }

    fn batch(&mut self) -> fleet::Events {
        let events = self.outbox.ring().batch(self.said);
        if let Some(last) = events.last() {
            self.said = last.number;
            self.under_way.push_back(last.number);
        }
        fleet::Events { events }
    }
}
