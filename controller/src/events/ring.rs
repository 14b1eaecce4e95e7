//! The latest events, bounded in number and size, each at a place that rises by one with every event that is learned of.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::event::{Event, EventId};

/// The most events that are kept.
pub(super) const MAX_EVENTS: usize = 20_000;
/// The most bytes that they take, about.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// Milliseconds: who goes on at another controller gets again what happened so long before, because each learns of events in an
/// order of its own.
const OVERLAP: u64 = 5000;

/// How the controller heard of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// By itself: it published it, or the node told it.
    Here,
    /// By another controller.
    Peer,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) kept: VecDeque<Kept>,
    pub(super) known: HashSet<EventId>,
    pub(super) bytes: usize,
    /// The place of the latest event.
    pub(super) latest: u64,
    /// The number of the latest event that was published here.
    pub(super) number: u64,
}

/// An event, and how the controller heard of it.
pub(super) struct Kept {
    pub(super) event: Arc<Event>,
    pub(super) source: Source,
}

impl Ring {
    /// Keeps an event, unless it is known; whether it was heard that way for the first time.
    pub(super) fn add(&mut self, event: Arc<Event>, source: Source) -> bool {
        if !self.known.insert(event.id.clone()) {
            return source == Source::Here && self.heard_here_too(&event.id);
        }
        self.bytes += event.size();
        self.latest += 1;
        self.kept.push_back(Kept { event, source });
        while self.kept.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.event.size();
            self.known.remove(&oldest.event.id);
        }
        true
    }

    /// An event that is known was heard here; whether by others only so far. A controller that has died had it, and may have
    /// delivered nothing.
    fn heard_here_too(&mut self, id: &EventId) -> bool {
        let mut latest = self.kept.iter_mut().rev();
        let known = latest.find(|kept| kept.event.id == *id);
        known.is_some_and(|kept| std::mem::replace(&mut kept.source, Source::Here) == Source::Peer)
    }

    /// The place of the earliest event that is kept, or of the next one.
    pub(super) fn first(&self) -> u64 {
        self.latest + 1 - self.kept.len() as u64
    }

    /// The place of the first event from shortly before the one of that id; `None` where that is not kept.
    pub(super) fn shortly_before(&self, id: &EventId) -> Option<u64> {
        if !self.known.contains(id) {
            return None;
        }
        let named = self.kept.iter().find(|kept| kept.event.id == *id)?;
        let from = named.event.at_milliseconds.saturating_sub(OVERLAP);
        let mut kept = self.kept.iter();
        let index = kept.position(|kept| kept.event.at_milliseconds >= from)?;
        Some(self.first() + index as u64)
    }
}
