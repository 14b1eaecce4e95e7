//! Tells of live allocations that they will be ended, so that their applications move in time.

use super::{ENDED_AT_ONCE, Server};
use crate::event::Event;
use crate::table::AllocationId;

/// The allocations that have not been told of yet.
#[derive(Default)]
pub(super) struct Evicting {
    deadline: u64,
    left: Vec<AllocationId>,
}

impl Server {
    /// What lives now will end at the Unix second `deadline`: [`Self::tell_evicting`] says so of each. Replaces what was not
    /// told yet of an earlier deadline; zero takes that back alone.
    pub fn begin_evicting(&mut self, deadline: u64) {
        self.evicting.deadline = deadline;
        self.evicting.left = match deadline {
            0 => Vec::new(),
            _ => self.table.ids(),
        };
    }

    /// Tells of at most `most` allocations, and of no more than there is room for; `true` while there are others. The caller
    /// drains the events before it goes on.
    #[must_use]
    pub fn tell_evicting(&mut self, most: usize) -> bool {
        let deadline = self.evicting.deadline;
        for _ in 0..most.min(ENDED_AT_ONCE) {
            let Some(id) = self.evicting.left.pop() else {
                break;
            };
            let Some(allocation) = self.table.allocation(id) else {
                continue;
            };
            if allocation.pending.is_some() {
                continue;
            }
            let event = Event::Evicting {
                allocation: allocation.number,
                client: allocation.client,
                username: allocation.owner.username.clone(),
                tenant: allocation.owner.tenant,
                deadline,
            };
            self.push_event(event);
        }
        !self.evicting.left.is_empty()
    }
}
