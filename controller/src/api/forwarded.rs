//! Whom a reverse proxy speaks for: the client's address in `X-Forwarded-For`, which is believed of the operator's own proxies
//! and of nobody else.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// The header, to which each proxy adds the address that it was called from.
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies of `http.trusted_proxies`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(Vec<IpNet>);

impl Proxies {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The client of a request from `caller`: that one itself, or whom it speaks for. `None` for a proxy that does not say.
    pub(super) fn client(&self, caller: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if self.trusts(caller) {
            self.named(headers)
        } else {
            Some(caller)
        }
    }

    /// Whom `caller` speaks for, where it is a proxy that says so.
    pub(super) fn spoken_for(&self, caller: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        self.trusts(caller).then(|| self.named(headers)).flatten()
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// The last address that is not a proxy's, because what stands before it may be the client's own invention; the first one
    /// where all are.
    fn named(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut named = None;
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for text in line.to_str().ok()?.rsplit(',') {
                let ip = text.trim().parse::<IpAddr>().ok()?.to_canonical();
                named = Some(ip);
                if !self.trusts(ip) {
                    return named;
                }
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[track_caller]
    fn check(caller: &str, lines: &[&'static str], client: Option<&str>) {
        let networks = ["127.0.0.0/8", "10.1.0.0/16", "2001:db8:1::/48"];
        let networks = networks.map(|network| network.parse().expect("a network"));
        let proxies = Proxies::new(networks.to_vec());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let found = proxies.client(ip(caller), &headers);
        assert_eq!(found, client.map(ip), "{caller} {lines:?}");
        let is_proxy = proxies.trusts(ip(caller));
        let spoken_for = proxies.spoken_for(ip(caller), &headers);
        assert_eq!(spoken_for, found.filter(|_| is_proxy));
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        check("127.0.0.1", &["192.0.2.1"], Some("192.0.2.1"));
        check("127.0.0.1", &["::ffff:192.0.2.1"], Some("192.0.2.1"));
        check("2001:db8:1::7", &["2001:db8::1"], Some("2001:db8::1"));
        check("192.0.2.9", &["192.0.2.1"], Some("192.0.2.9"));
        check("192.0.2.9", &[], Some("192.0.2.9"));
        check("127.0.0.1", &[], None);
    }

    #[test]
    fn what_a_client_invents_stands_before_its_own_address() {
        let invented = ["203.0.113.1, 192.0.2.1"];
        check("127.0.0.1", &invented, Some("192.0.2.1"));
        let of_two_proxies = ["203.0.113.1, 192.0.2.1", "10.1.2.3"];
        check("127.0.0.1", &of_two_proxies, Some("192.0.2.1"));
        let with_rubbish = ["rubbish, 192.0.2.1 ,10.1.2.3"];
        check("127.0.0.1", &with_rubbish, Some("192.0.2.1"));
    }

    #[test]
    fn what_is_no_address_names_nobody() {
        for line in ["", "unknown", "192.0.2.1, ", "192.0.2.1:443", "a, 10.1.0.1"] {
            check("127.0.0.1", &[line], None);
        }
        check("127.0.0.1", &["10.1.0.2, 10.1.0.1"], Some("10.1.0.2"));
    }
}
