//! When a shard says of its allocations that they will be ended: in slices, as there is room for what it says.

use std::time::Duration;

use turnfleet_turn::{Instant, Now, Server};

use super::event_log::ShardEventLog;

/// Between two slices.
const PAUSE: Duration = Duration::from_millis(20);

/// What one shard has been told of the end.
#[derive(Default)]
pub(super) struct Evicting {
    /// Unix seconds; zero for none.
    deadline: u64,
    due: Option<Instant>,
}

impl Evicting {
    /// Everything ends at the Unix second `deadline`, or nothing does where that is zero.
    pub(super) fn set(&mut self, now: Now, deadline: u64, server: &mut Server) {
        if self.deadline != deadline {
            self.deadline = deadline;
            self.due = (deadline != 0).then_some(now.instant);
            server.begin_evicting(deadline);
        }
    }

    /// When there is something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Says as much as there is room for. The caller drains the events.
    pub(super) fn tell(&mut self, now: Now, log: &ShardEventLog, server: &mut Server) {
        let has_more = server.tell_evicting(log.room_for_evicting());
        self.due = has_more.then(|| now.instant.after(PAUSE));
    }
}
