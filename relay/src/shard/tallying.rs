//! What a shard has counted of its users goes to the relay's book: in slices, between the turns of the sources.

use super::worker::Shard;

/// Places of the table of allocations that one turn of the loop looks at.
const SWEPT_AT_ONCE: u32 = 128;

impl Shard {
    /// Sweeps a slice, and brings what was counted where it is added up. What has ended is brought at once when nothing lives
    /// any more: the relay may stop.
    pub(super) fn tally(&mut self) {
        let was_sweeping = self.sweeping;
        if was_sweeping {
            self.sweeping = !self.server.sweep_usage(SWEPT_AT_ONCE);
        }
        let tally = self.server.usage();
        let is_over = self.server.counters().allocations() == 0 && !tally.tenants.is_empty();
        if was_sweeping || is_over || tally.is_large() {
            self.bring_tally();
        }
    }

    /// Brings what was counted since the last time.
    pub(super) fn bring_tally(&mut self) {
        let tally = self.server.take_usage();
        if let Some(usage) = &self.usage {
            usage.absorb(tally);
        }
    }
}
