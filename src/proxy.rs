//! Which requests of the commands go by the proxy that the environment names.
//!
//! It decides by the host alone. What is on this machine is asked directly, whatever `NO_PROXY` has: a proxy's own loopback is
//! another machine.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

/// The proxy for a request to `uri`; `None` where it goes there directly, for want of one too.
pub(crate) fn of(uri: &Uri) -> Option<Proxy> {
    if uri.host().is_some_and(is_here) {
        return None;
    }
    Proxy::try_from_env()
}

/// Whether a host of a URI is this machine, or a neighbour that no proxy reaches for it (metadata services are link-local).
fn is_here(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Ok(ip) = inner.unwrap_or(host).parse::<IpAddr>() {
        return match ip.to_canonical() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
        };
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_asked_by_no_proxy() {
        for (uri, expected) in [
            ("http://localhost:8080/v1/nodes", true),
            ("http://LOCALHOST.:8080", true),
            ("http://controller.localhost", true),
            ("https://127.0.0.1:8080", true),
            ("https://127.8.9.10", true),
            ("http://[::1]:8080", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://169.254.169.254/latest", true),
            ("http://[fe80::1]", true),
            ("http://localhost.example.org", false),
            ("http://notlocalhost", false),
            ("http://127.example.org", false),
            ("http://10.0.0.1:8080", false),
            ("http://[2001:db8::1]:8080", false),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(uri.host().is_some_and(is_here), expected, "{uri}");
        }
    }
}
