//! Where the node's controllers are. They see the node as one of the fleet, so no client may reach them through it.
//!
//! Names are resolved at the start and whenever a session begins; what a name led to stays closed until it leads elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

/// Addresses of one name that are closed.
const MOST: usize = 16;
/// What a resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The addresses of the controllers, and which of them the running policy closes.
#[derive(Debug, Default)]
pub(crate) struct Controllers {
    /// By host: as many as the configuration names.
    found: BTreeMap<String, Vec<IpAddr>>,
    in_force: Vec<IpAddr>,
}

impl Controllers {
    /// Takes over what `host` leads to. A resolver that finds nothing changes nothing.
    pub(crate) fn found(&mut self, host: &str, addresses: Vec<IpAddr>) {
        if !addresses.is_empty() {
            self.found.insert(host.to_owned(), addresses);
        }
    }

    /// What is to be closed, if that is not what the running policy closes.
    pub(crate) fn change(&self) -> Option<Vec<IpAddr>> {
        let wanted = self.addresses();
        (wanted != self.in_force).then_some(wanted)
    }

    /// All addresses, in order.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.found.values().flatten().copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The running policy closes `addresses`.
    pub(crate) fn enforced(&mut self, addresses: Vec<IpAddr>) {
        self.in_force = addresses;
    }
}

/// The addresses of the host of `uri`; none where it cannot be resolved.
pub(crate) async fn resolve(uri: &http::Uri) -> Vec<IpAddr> {
    let host = host(uri);
    if let Ok(ip) = host.parse() {
        return vec![ip];
    }
    match timeout(PATIENCE, lookup_host((host, 0))).await {
        Ok(Ok(found)) => {
            let found = found.map(|address| address.ip().to_canonical());
            let mut found: Vec<IpAddr> = found.take(MOST).collect();
            found.sort_unstable();
            found
        }
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The host of `uri` as resolvers take it.
pub(crate) fn host(uri: &http::Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_that_leads_elsewhere_changes_what_is_closed() {
        let mut controllers = Controllers::default();
        assert_eq!(controllers.change(), None);
        controllers.found("a.example", ips(&["192.0.2.2", "192.0.2.1"]));
        let first = controllers.change().unwrap();
        assert_eq!(first, ips(&["192.0.2.1", "192.0.2.2"]));
        controllers.enforced(first);
        assert_eq!(controllers.change(), None);
        controllers.found("a.example", Vec::new());
        assert_eq!(controllers.change(), None, "the resolver was away");
        controllers.found("a.example", ips(&["192.0.2.3"]));
        assert_eq!(controllers.change(), Some(ips(&["192.0.2.3"])));
    }

    #[test]
    fn names_and_literals_are_resolved() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let resolved = |uri: &'static str| {
            let uri = http::Uri::from_static(uri);
            runtime.block_on(async move { resolve(&uri).await })
        };
        assert_eq!(
            resolved("https://[2001:db8::1]:8081"),
            ips(&["2001:db8::1"])
        );
        let local = resolved("http://localhost:8081");
        assert!(
            !local.is_empty() && local.iter().all(IpAddr::is_loopback),
            "{local:?}"
        );
    }
}
