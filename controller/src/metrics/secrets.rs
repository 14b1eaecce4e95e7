//! How the shared secrets stand, in metrics.

use prometheus::{IntGauge, IntGaugeVec};

use super::{Maker, signed};
use crate::fleet::FleetView;
use crate::fleet::record::SecretState;
use crate::wall_clock::since_epoch;

/// Set from the view whenever the metrics are rendered.
#[derive(Debug)]
pub(super) struct SecretGauges {
    generations: IntGaugeVec,
    staged: IntGauge,
    minted: IntGauge,
}

impl SecretGauges {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            generations: make.gauges(
                "secret_generations",
                "Generations of shared secrets, of the fleet and of tenants, by state.",
                &["state"],
            ),
            staged: make.gauge(
                "secret_staged_seconds",
                "How long the oldest staged secret waits for relays to take it; 0 where none does.",
            ),
            minted: make.gauge(
                "secret_minted_age_seconds",
                "The age of the oldest secret that credentials are minted with.",
            ),
        }
    }

    pub(super) fn set(&self, view: &FleetView) {
        let count = |name: &str| {
            let of_state = view.secrets.iter().filter(|it| it.state.name() == name);
            signed(of_state.count() as u64)
        };
        for name in ["staged", "active", "pinned", "retiring", "revoked"] {
            let generations = self.generations.with_label_values(&[name]);
            generations.set(count(name));
        }
        let now = since_epoch().as_secs();
        let oldest = |ages: &mut dyn Iterator<Item = u64>| {
            signed(ages.map(|at| now.saturating_sub(at)).max().unwrap_or(0))
        };
        let secrets = view.secrets.iter();
        let staged = secrets.clone().filter(|it| it.state == SecretState::Staged);
        self.staged.set(oldest(&mut staged.map(|it| it.created_at)));
        let minted = secrets.filter(|it| it.minted);
        self.minted.set(oldest(&mut minted.map(|it| it.created_at)));
    }
}
