//! The homeserver whose users get lists by their access tokens, checked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::{Check, NAME, is_name};
use crate::config::RawMatrix;

/// A Matrix homeserver, and what its users get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixConfig {
    /// Where it serves its client API: `http` or `https`, a host, and the path before `/_matrix`, if any.
    pub homeserver: Uri,
    /// The authority of its certificate; the public ones where there is none.
    pub ca: Option<PathBuf>,
    /// The tenant that its users belong to.
    pub tenant: Option<String>,
    /// Whether guests get lists.
    pub allow_guests: bool,
    /// How long a credential is good for.
    pub ttl: Duration,
}

impl MatrixConfig {
    /// Whether access tokens go to it over a network without TLS.
    pub(crate) fn is_overheard(&self) -> bool {
        let host = self.homeserver.host().unwrap_or("");
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        self.homeserver.scheme_str() == Some("http") && !is_here
    }
}

impl Check {
    pub(super) fn matrix(&mut self, raw: RawMatrix) -> Option<MatrixConfig> {
        self.within("matrix.ttl_seconds", raw.ttl_seconds, 3600, 86400);
        if raw.tenant.as_deref().is_some_and(|tenant| !is_name(tenant)) {
            self.fail("matrix.tenant", raw.tenant.clone(), NAME);
        }
        let Some(text) = raw.homeserver else {
            if raw.ca.is_some() || raw.tenant.is_some() {
                let expected = "the URL of a homeserver, because matrix.ca or matrix.tenant is set";
                self.fail("matrix.homeserver", None, expected);
            }
            return None;
        };
        let homeserver = text.parse::<Uri>().ok().filter(is_base);
        let Some(homeserver) = homeserver.filter(|_| !text.contains('#')) else {
            let expected = "a URL such as http://127.0.0.1:8008 or https://matrix.example.org, without a user or a query";
            self.fail("matrix.homeserver", Some(text), expected);
            return None;
        };
        if raw.ca.is_some() && homeserver.scheme_str() != Some("https") {
            let expected = "an https:// homeserver, because matrix.ca is set";
            self.fail("matrix.homeserver", Some(text), expected);
        }
        Some(MatrixConfig {
            homeserver,
            ca: raw.ca,
            tenant: raw.tenant,
            allow_guests: raw.allow_guests,
            ttl: Duration::from_secs(raw.ttl_seconds),
        })
    }
}

/// Whether paths of the client API can stand behind `url`.
fn is_base(url: &Uri) -> bool {
    let plain = |authority: &str| !authority.contains('@');
    matches!(url.scheme_str(), Some("http" | "https"))
        && url.authority().is_some_and(|it| plain(it.as_str()))
        && url.query().is_none()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, MatrixConfig, RawConfig, RawMatrix};

    fn checked(matrix: RawMatrix) -> Option<Option<MatrixConfig>> {
        let raw = RawConfig {
            matrix,
            ..RawConfig::default()
        };
        Config::try_from(raw).ok().map(|config| config.matrix)
    }

    fn homeserver(url: &str) -> RawMatrix {
        RawMatrix {
            homeserver: Some(url.to_owned()),
            ..RawMatrix::default()
        }
    }

    #[test]
    fn a_homeserver_is_a_plain_url() {
        for url in [
            "http://127.0.0.1:8008",
            "https://matrix.example.org",
            "https://example.org/hidden/",
        ] {
            assert!(checked(homeserver(url)).flatten().is_some(), "{url}");
        }
        for url in [
            "",
            "synapse:8008",
            "/_matrix",
            "ftp://example.org",
            "https://u:p@example.org",
            "https://example.org/?a=b",
            "https://example.org/#a",
        ] {
            assert!(checked(homeserver(url)).is_none(), "{url}");
        }
    }

    #[test]
    fn what_only_a_homeserver_needs_is_refused_without_one() {
        assert_eq!(checked(RawMatrix::default()), Some(None));
        let tenant = |matrix| RawMatrix {
            tenant: Some("acme".to_owned()),
            ..matrix
        };
        assert!(checked(tenant(RawMatrix::default())).is_none());
        assert!(checked(tenant(homeserver("http://[::1]:8008"))).is_some());
        let ca = RawMatrix {
            ca: Some("ca.pem".into()),
            ..homeserver("http://[::1]:8008")
        };
        assert!(checked(ca).is_none());
        let short = RawMatrix {
            ttl_seconds: 300,
            ..homeserver("http://[::1]:8008")
        };
        assert!(checked(short).is_none());
    }
}
