//! Quotas over the fleet: what relays take goes to the leader, and what they may have comes back.

use std::sync::Arc;

use turnfleet_proto::{NodeId, fleet as wire};
use turnfleet_turn::Now;

use super::Reconciler;
use crate::error::FleetError;
use crate::fleet::quota::Demand;
use crate::reconcile::{QuotasSaid, SessionKey};

impl Reconciler {
    /// Takes what is said of quotas.
    pub(super) fn quotas_said(&mut self, said: QuotasSaid) {
        match said {
            QuotasSaid::Demand {
                session,
                demand,
                answer,
            } => drop(answer.send(self.demanded(&session, &demand))),
            QuotasSaid::Word(word) => self.quotas_told(&word),
        }
    }

    /// A node says what is taken of quotas.
    fn demanded(&mut self, session: &SessionKey, demand: &wire::Demand) -> Result<(), FleetError> {
        let (node, _) = self.current(session)?;
        let demand = Demand::read(demand);
        self.quotas.demanded(&node, &session.incarnation, demand);
        self.quota_news = true;
        Ok(())
    }

    /// Another controller tells what it knows of quotas.
    fn quotas_told(&mut self, word: &wire::QuotaWord) {
        for told in &word.demands {
            let Ok(node) = told.node_id.parse::<NodeId>() else {
                continue;
            };
            // What the node says here is later.
            if let Some(demand) = &told.demand
                && !self.sessions.contains_key(&node)
            {
                let demand = Demand::read(demand);
                self.quotas.demanded(&node, &told.incarnation, demand);
            }
        }
        if self.quotas.followed(word.term, &word.shares) {
            self.tell_shares();
        }
    }

    /// Shares out what there is, where this controller leads, and tells what has changed.
    pub(super) fn look_after_quotas(&mut self, now: Now, every_second: bool) {
        let fleet = self.mirror.fleet();
        if every_second {
            let exhausted = self.usage.exhausted(now.unix, &fleet.daily_quotas());
            self.exhausted = Arc::new(exhausted);
        }
        let throttled = self.abuse.throttled();
        let wanted = fleet.wanted_quotas(Arc::clone(&self.exhausted), throttled);
        let millis = now.unix.saturating_mul(1000);
        let leads = self.mirror.leads();
        if self.quotas.look(now.instant, millis, leads, &wanted) {
            self.quota_news = true;
            self.tell_shares();
        }
        if std::mem::take(&mut self.quota_news) {
            let word = self.quotas.word(self.sessions.keys());
            self.quota_words.send_replace(word.into());
        }
        if every_second {
            self.quota_states = Arc::new(self.quotas.states(&wanted));
        }
    }

    fn tell_shares(&self) {
        for (node, channels) in &self.sessions {
            let shares = self.quotas.shares(node);
            channels.shares.send_if_modified(|known| {
                let changed = *known != shares;
                if changed {
                    *known = shares;
                }
                changed
            });
        }
    }
}
