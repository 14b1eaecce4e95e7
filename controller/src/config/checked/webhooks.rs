//! The receivers of events, checked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::{Check, MIN_TOKEN, NAME, Opaque, is_name};
use crate::config::RawWebhook;
use crate::events::NAMED;

/// The most receivers: each has memory of its own.
const MAX_WEBHOOKS: usize = 16;

/// A receiver of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// What it is called.
    pub name: String,
    /// Where events are posted, `http` or `https`.
    pub url: Uri,
    /// What requests are signed with.
    pub secret: Opaque,
    /// The kinds of events, or the beginnings of several; all where there is none.
    pub kinds: Vec<String>,
    /// The tenant whose events it gets; everybody's where there is none.
    pub tenant: Option<String>,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long an event is tried.
    pub max_age: Duration,
    /// The authority of its certificate; the public ones where there is none.
    pub ca: Option<PathBuf>,
}

impl WebhookConfig {
    /// Whether events go to it over a network without TLS.
    pub(crate) fn is_overheard(&self) -> bool {
        let host = self.url.host().unwrap_or("");
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        self.url.scheme_str() == Some("http") && !is_here
    }
}

impl Check {
    pub(super) fn webhooks(&mut self, raw: Vec<RawWebhook>) -> Vec<WebhookConfig> {
        if raw.len() > MAX_WEBHOOKS {
            let expected = format!("at most {MAX_WEBHOOKS} entries");
            self.fail("webhooks", Some(raw.len().to_string()), expected);
        }
        let mut names = BTreeSet::new();
        for webhook in &raw {
            if !names.insert(webhook.name.clone()) {
                self.fail(
                    "webhooks.name",
                    Some(webhook.name.clone()),
                    "each name once",
                );
            }
        }
        let webhooks = raw.into_iter();
        webhooks.filter_map(|raw| self.webhook(raw)).collect()
    }

    fn webhook(&mut self, raw: RawWebhook) -> Option<WebhookConfig> {
        if !is_name(&raw.name) {
            self.fail("webhooks.name", Some(raw.name.clone()), NAME);
        }
        if raw.tenant.as_deref().is_some_and(|tenant| !is_name(tenant)) {
            self.fail("webhooks.tenant", raw.tenant.clone(), NAME);
        }
        for kind in &raw.kinds {
            if !NAMED.contains(&kind.trim_end_matches(".*")) {
                let expected = "a kind of docs/events.md such as allocation.opened, or its part before the dot";
                self.fail("webhooks.kinds", Some(kind.clone()), expected);
            }
        }
        self.within("webhooks.timeout_seconds", raw.timeout_seconds, 1, 60);
        self.within("webhooks.max_age_seconds", raw.max_age_seconds, 10, 86_400);
        if raw.secret.is_none() && raw.secret_file.is_none() {
            let expected = format!("a secret or secret_file for {:?}", raw.name);
            self.fail("webhooks.secret", None, expected);
        }
        let secret = self.secret("webhooks.secret", raw.secret, raw.secret_file, MIN_TOKEN);
        let url = raw.url.parse::<Uri>().ok().filter(is_receiver);
        let Some(url) = url.filter(|_| !raw.url.contains('#')) else {
            let expected = "a URL such as https://hooks.example.org/turn, without a user";
            self.fail("webhooks.url", Some(raw.url), expected);
            return None;
        };
        if raw.ca.is_some() && url.scheme_str() != Some("https") {
            let expected = "an https:// URL, because webhooks.ca is set";
            self.fail("webhooks.url", Some(raw.url), expected);
        }
        Some(WebhookConfig {
            name: raw.name,
            url,
            secret: secret?,
            kinds: raw.kinds,
            tenant: raw.tenant,
            timeout: Duration::from_secs(raw.timeout_seconds),
            max_age: Duration::from_secs(raw.max_age_seconds),
            ca: raw.ca,
        })
    }
}

fn is_receiver(url: &Uri) -> bool {
    let plain = |authority: &str| !authority.contains('@');
    matches!(url.scheme_str(), Some("http" | "https"))
        && url.authority().is_some_and(|it| plain(it.as_str()))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, RawConfig, RawWebhook};

    fn good() -> RawWebhook {
        RawWebhook {
            name: "app".to_owned(),
            url: "https://hooks.example.org/turn?key=a".to_owned(),
            secret: Some("0123456789abcdef".to_owned()),
            kinds: vec!["allocation".to_owned(), "node.lost".to_owned()],
            ..RawWebhook::default()
        }
    }

    /// The keys that are refused.
    fn refused(webhooks: Vec<RawWebhook>) -> Vec<String> {
        let raw = RawConfig {
            webhooks,
            ..RawConfig::default()
        };
        match Config::try_from(raw) {
            Ok(_) => Vec::new(),
            Err(errors) => {
                let text = errors.to_string();
                let lines = text.lines().map(str::trim_start);
                let keys = lines.filter_map(|line| line.split([' ', ':']).next());
                keys.map(str::to_owned).collect()
            }
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut RawWebhook), key: &str) {
        let mut webhook = good();
        change(&mut webhook);
        assert_eq!(refused(vec![webhook]), [key]);
    }

    #[test]
    fn a_webhook_that_could_never_work_is_refused() {
        assert_eq!(refused(vec![good()]), [""; 0]);
        for url in [
            "",
            "hooks",
            "ftp://a.example",
            "https://u:p@a.example/",
            "https://a.example/#b",
        ] {
            check(|it| it.url = url.to_owned(), "webhooks.url");
        }
        check(|it| it.secret = None, "webhooks.secret");
        check(|it| it.secret = Some("short".to_owned()), "webhooks.secret");
        check(|it| it.kinds = vec!["alloc".to_owned()], "webhooks.kinds");
        check(|it| it.name = "a b".to_owned(), "webhooks.name");
        check(|it| it.timeout_seconds = 0, "webhooks.timeout_seconds");
        check(|it| it.max_age_seconds = 1, "webhooks.max_age_seconds");
        assert_eq!(refused(vec![good(), good()]), ["webhooks.name"]);
    }
}
