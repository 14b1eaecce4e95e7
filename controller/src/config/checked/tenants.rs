//! The tenants that a configuration names.

use std::collections::BTreeMap;

use super::Check;
use crate::config::RawNamedTenant;
use crate::fleet::record::Terms;
use crate::fleet::tenants::{MAX_TENANTS, TenantError};

impl Check {
    pub(super) fn tenants(
        &mut self,
        raw: Vec<RawNamedTenant>,
        realm: &str,
    ) -> Vec<(String, Terms)> {
        if raw.len() > MAX_TENANTS {
            let expected = format!("at most {MAX_TENANTS} entries");
            self.fail("tenants", Some(raw.len().to_string()), expected);
            return Vec::new();
        }
        let tenants: Vec<_> = raw.into_iter().map(|raw| self.tenant(raw)).collect();
        let mut owners = BTreeMap::from([(("realm", realm), "the fleet")]);
        for (name, terms) in &tenants {
            let names = [("name", name)].into_iter();
            let realms = terms.realm.iter().map(|it| ("realm", it));
            let tls_names = terms.tls_names.iter().map(|it| ("tls_names", it));
            for (key, value) in names.chain(realms).chain(tls_names) {
                if let Some(owner) = owners.insert((key, value), name) {
                    let expected = format!("what is not that of {owner}");
                    self.fail(format!("tenants.{key}"), Some(value.clone()), expected);
                }
            }
        }
        tenants
    }

    fn tenant(&mut self, raw: RawNamedTenant) -> (String, Terms) {
        let terms = Terms {
            realm: raw.realm,
            tls_names: raw.tls_names,
            allow_peers: self.networks("tenants.allow_peers", &raw.allow_peers),
            deny_peers: self.networks("tenants.deny_peers", &raw.deny_peers),
            tcp_relaying: raw.tcp_relaying,
            suspended: raw.suspended,
            quotas: raw.quotas,
        }
        .normalized();
        if let Err(TenantError::Unfit { what, expected, .. }) = terms.check(&raw.name) {
            let value = format!("{what} of {:?}", raw.name);
            self.fail("tenants", Some(value), expected);
        }
        (raw.name, terms)
    }
}
