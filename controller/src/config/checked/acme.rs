//! The fleet's certificate, checked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::Check;
use crate::config::{AcmeChallenge, RawAcme};

/// The most names of a certificate: Let's Encrypt takes no more.
const MAX_DOMAINS: usize = 100;
/// The most where each has a certificate and a key for an answer: a value of the store holds no more of them.
const MAX_DOMAINS_BY_TLS: usize = 50;
const MAX_CONTACTS: usize = 8;

/// What is ordered, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeConfig {
    /// The authority's directory.
    pub directory: String,
    /// Whom it may write to.
    pub contact: Vec<String>,
    /// The names, in lower case, each once, in the order of the alphabet.
    pub domains: Vec<String>,
    /// How they are shown to be the fleet's.
    pub challenge: AcmeChallenge,
    /// The authority's own authority; the public ones where there is none.
    pub root: Option<PathBuf>,
    /// How long answers take to reach every relay.
    pub spread: Duration,
}

impl Check {
    pub(super) fn acme(&mut self, raw: RawAcme) -> Option<AcmeConfig> {
        let directory = raw.directory_url?;
        let is_https = |uri: &Uri| uri.scheme_str() == Some("https") && uri.host().is_some();
        if !directory.parse::<Uri>().is_ok_and(|uri| is_https(&uri)) {
            let expected = "an https URL, such as https://acme.example.org/directory";
            self.fail("acme.directory_url", Some(directory.clone()), expected);
        }
        if !raw.accept_terms {
            let expected = "true, once the authority's terms of service are read and accepted";
            self.fail("acme.accept_terms", Some("false".to_owned()), expected);
        }
        if raw.contact.len() > MAX_CONTACTS {
            let expected = format!("at most {MAX_CONTACTS} of them");
            let count = raw.contact.len().to_string();
            self.fail("acme.contact", Some(count), expected);
        }
        let is_mail = |text: &str| {
            let address = text.strip_prefix("mailto:").unwrap_or("");
            address.split_once('@').is_some_and(|(who, host)| {
                !who.is_empty() && is_domain(host) && !address.contains([',', '?', ' '])
            })
        };
        for contact in raw.contact.iter().filter(|contact| !is_mail(contact)) {
            let expected = "a mailbox such as mailto:turn@example.org";
            self.fail("acme.contact", Some(contact.clone()), expected);
        }
        let most = match raw.challenge {
            AcmeChallenge::TlsAlpn01 => MAX_DOMAINS_BY_TLS,
            AcmeChallenge::Http01 => MAX_DOMAINS,
        };
        if !(1..=most).contains(&raw.domains.len()) {
            let expected = format!("1 to {most} names, because acme.directory_url is set");
            let count = raw.domains.len().to_string();
            self.fail("acme.domains", Some(count), expected);
        }
        for domain in raw.domains.iter().filter(|domain| !is_domain(domain)) {
            let expected = "a full DNS name without a wildcard, such as turn.example.org";
            self.fail("acme.domains", Some(domain.clone()), expected);
        }
        self.within("acme.spread_seconds", raw.spread_seconds, 0, 300);
        let domains = raw.domains.iter().map(|domain| domain.to_ascii_lowercase());
        let domains: BTreeSet<_> = domains.collect();
        Some(AcmeConfig {
            directory,
            contact: raw.contact,
            domains: domains.into_iter().collect(),
            challenge: raw.challenge,
            root: raw.root_file,
            spread: Duration::from_secs(raw.spread_seconds),
        })
    }
}

/// Whether an authority gives certificates for `text`.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253
        && text.contains('.')
        && text.split('.').all(is_label)
        && text.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use crate::config::{AcmeChallenge, Config, RawAcme, RawConfig};

    fn good() -> RawAcme {
        RawAcme {
            directory_url: Some("https://acme.example.org/directory".to_owned()),
            contact: vec!["mailto:turn@example.org".to_owned()],
            domains: vec!["b.example.org".to_owned(), "A.example.org".to_owned()],
            accept_terms: true,
            ..RawAcme::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut RawAcme), key: &str) {
        let mut raw = RawConfig {
            acme: good(),
            ..RawConfig::default()
        };
        change(&mut raw.acme);
        let faults = Config::try_from(raw).err().map(|errors| errors.to_string());
        match faults {
            Some(faults) => assert!(!key.is_empty() && faults.contains(key), "{faults}"),
            None => assert_eq!(key, ""),
        }
    }

    #[test]
    fn what_an_authority_would_refuse_is_named() {
        check(|_| {}, "");
        check(|acme| *acme = RawAcme::default(), "");
        check(|acme| acme.accept_terms = false, "acme.accept_terms");
        for url in ["http://acme.example.org/", "acme", "https://"] {
            check(
                |acme| acme.directory_url = Some(url.to_owned()),
                "acme.directory_url",
            );
        }
        for domain in [
            "*.example.org",
            "192.0.2.1",
            "localhost",
            "a..b",
            "-a.example",
        ] {
            check(|acme| acme.domains.push(domain.to_owned()), "acme.domains");
        }
        check(|acme| acme.domains.clear(), "acme.domains");
        let many = |acme: &mut RawAcme| {
            acme.domains = (0..100).map(|n| format!("{n}.example.org")).collect();
        };
        check(many, "acme.domains");
        check(
            |acme| {
                acme.challenge = AcmeChallenge::Http01;
                many(acme);
            },
            "",
        );
        for contact in ["turn@example.org", "mailto:turn", "mailto:a@b.c,d@e.f"] {
            check(
                |acme| acme.contact = vec![contact.to_owned()],
                "acme.contact",
            );
        }
        check(|acme| acme.spread_seconds = 301, "acme.spread_seconds");
    }

    #[test]
    fn names_are_in_lower_case_and_in_order() {
        let mut raw = RawConfig {
            acme: good(),
            ..RawConfig::default()
        };
        raw.acme.domains.push("B.example.org".to_owned());
        let acme = Config::try_from(raw).unwrap().acme.unwrap();
        assert_eq!(acme.domains, ["a.example.org", "b.example.org"]);
    }
}
