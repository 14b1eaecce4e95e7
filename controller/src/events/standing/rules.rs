//! What changes of tenants and bans from one view of the fleet to the next. Who changed it is in the audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::bus::About;
use super::super::event::{Place, Username};
use super::super::kinds::What;
use crate::fleet::FleetView;
use crate::fleet::bans::{Ban, Bans, Whom};
use crate::fleet::tenants::{DEFAULT_NAME, Tenant, Tenants};

/// What was last seen of them.
pub(super) struct Rules {
    tenants: Arc<Tenants>,
    bans: Arc<Bans>,
}

impl Rules {
    pub(super) fn of(view: &FleetView) -> Self {
        Self {
            tenants: Arc::clone(&view.tenants),
            bans: Arc::clone(&view.bans),
        }
    }

    /// What has happened since the last view, at the second `unix`.
    pub(super) fn follow(&mut self, view: &FleetView, unix: u64) -> Vec<(About, What)> {
        let mut told = Vec::new();
        let before = std::mem::replace(self, Self::of(view));
        if !Arc::ptr_eq(&before.tenants, &self.tenants) {
            let by_id = |all: &Tenants| by_key(all.by_name().map(|it| (it.id, Arc::clone(it))));
            let (made, gone) = differences(&by_id(&before.tenants), &by_id(&self.tenants));
            told.extend(made.iter().map(|tenant| changed(tenant)));
            told.extend(gone.iter().map(|tenant| {
                let about = About::tenant(tenant.name.as_str());
                (about, What::TenantRemoved {})
            }));
        }
        if !Arc::ptr_eq(&before.bans, &self.bans) {
            let all = |bans: &Bans| by_key(bans.latest_first(None).map(named));
            let (placed, lifted) = differences(&all(&before.bans), &all(&self.bans));
            told.extend(placed.iter().map(|ban| self.placed(ban)));
            let lifted = lifted.iter();
            told.extend(lifted.map(|ban| before.lifted(ban, ban.has_ended(unix))));
        }
        told
    }

    fn placed(&self, ban: &Ban) -> (About, What) {
        let network = ban.whom.network().map(|it| it.to_string());
        let (client, peer) = match ban.whom {
            Whom::Peer(_) => (None, network),
            Whom::Source(_) | Whom::User { .. } | Whom::Tenant(_) => (network, None),
        };
        let username = match &ban.whom {
            Whom::User { user, .. } => Some(Username(user.clone())),
            Whom::Tenant(_) | Whom::Source(_) | Whom::Peer(_) => None,
        };
        let what = What::BanPlaced {
            ban: ban.id(),
            whom: ban.whom.kind().to_owned(),
            username,
            client: client.map(Place),
            peer,
            reason: ban.reason.clone(),
            by: ban.by.clone(),
            until: ban.until,
        };
        (self.about(ban), what)
    }

    fn lifted(&self, ban: &Ban, ended: bool) -> (About, What) {
        let what = What::BanLifted {
            ban: ban.id(),
            whom: ban.whom.kind().to_owned(),
            ended,
        };
        (self.about(ban), what)
    }

    fn about(&self, ban: &Ban) -> About {
        let name = ban.whom.tenant().and_then(|id| self.tenants.name(id));
        let named = name.filter(|name| *name != DEFAULT_NAME);
        named.map_or_else(About::default, About::tenant)
    }
}

fn changed(tenant: &Tenant) -> (About, What) {
    let about = About::tenant(tenant.name.as_str());
    let suspended = tenant.terms.suspended;
    (about, What::TenantChanged { suspended })
}

fn named(ban: &Arc<Ban>) -> (String, Arc<Ban>) {
    (ban.id(), Arc::clone(ban))
}

fn by_key<K: Ord, T>(all: impl Iterator<Item = (K, Arc<T>)>) -> BTreeMap<K, Arc<T>> {
    all.collect()
}

/// What is there in other words than before, and what is there no longer.
fn differences<K: Ord, T: PartialEq>(
    before: &BTreeMap<K, Arc<T>>,
    after: &BTreeMap<K, Arc<T>>,
) -> (Vec<Arc<T>>, Vec<Arc<T>>) {
    let differs = |(key, it): &(&K, &Arc<T>)| before.get(key) != Some(it);
    let is_gone = |(key, _): &(&K, &Arc<T>)| !after.contains_key(key);
    let cloned = |(_, it): (&K, &Arc<T>)| Arc::clone(it);
    let other = after.iter().filter(differs).map(cloned).collect();
    (other, before.iter().filter(is_gone).map(cloned).collect())
}
