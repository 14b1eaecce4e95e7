//! Feeds the engine, and does what follows from what it finds.
//!
//! Relays report every five seconds; whatever controller hears them tells the others. Every controller judges, so that it knows
//! what came before when it begins to lead. Where the fleet is so large that a look takes long, looks come more seldom.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use ring::rand::SystemRandom;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use turnfleet_proto::credentials::EphemeralUsername;

use super::claims::Claims;
use super::engine::Finding;
use super::exempt::Fleetwide;
use super::gather::gather;
use super::settings::Settings;
use super::told;
use crate::config::Config;
use crate::error::FleetError;
use crate::events::{Batch, Filter, Value};
use crate::fleet::FleetView;
use crate::fleet::audit::{AuditEntry, entry_id};
use crate::fleet::bans::{Ban, MAX_REASON_BYTES};
use crate::fleet::tenants::DEFAULT_TENANT;
use crate::metrics::Metrics;
use crate::reconcile::{Handle, random_bytes};
use crate::wall_clock::since_epoch;

/// Between two looks, at least.
const EVERY: Duration = Duration::from_secs(1);
/// A look takes at most one part of so many of the time.
const SHARE: u32 = 20;
/// Bans that one look places; the others are due in the next one.
const BANS_AT_ONCE: usize = 32;
/// STUN's Unauthenticated (RFC 8489 §14.8).
const UNAUTHENTICATED: Value = Value::Number(401);

/// What a configuration says of it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    settings: Settings,
    proxies: Vec<IpNet>,
    static_users: BTreeSet<String>,
    privacy: bool,
}

impl From<&Config> for Wanted {
    fn from(config: &Config) -> Self {
        let users = config.users.iter();
        Self {
            settings: config.abuse.clone(),
            proxies: config.trusted_proxies.clone(),
            static_users: users.map(|user| user.name.clone()).collect(),
            privacy: config.privacy,
        }
    }
}

/// The running task.
#[derive(Debug)]
pub(crate) struct Watch {
    task: JoinHandle<()>,
    wanted: watch::Sender<Wanted>,
}

impl Watch {
    /// Looks at what is told of the fleet of `handle` from now on.
    pub(crate) fn start(wanted: Wanted, handle: Handle, metrics: Arc<Metrics>) -> Self {
        let (wanted, told) = watch::channel(wanted);
        let task = Task {
            claims: Claims::default(),
            wanted: told,
            handle,
            metrics,
        };
        Self {
            task: tokio::spawn(task.run()),
            wanted,
        }
    }

    /// Takes over another configuration, but for privacy.
    pub(crate) fn configure(&self, config: &Config) {
        self.wanted.send_modify(|wanted| {
            *wanted = Wanted {
                privacy: wanted.privacy,
                ..Wanted::from(config)
            };
        });
    }

    pub(crate) fn stop(self) {
        self.task.abort();
    }
}

struct Task {
    handle: Handle,
    metrics: Arc<Metrics>,
    wanted: watch::Receiver<Wanted>,
    claims: Claims,
}

impl Task {
    async fn run(mut self) {
        let filter = Filter {
            kinds: vec!["allocation.refused".to_owned()],
            ..Filter::default()
        };
        let mut refusals = self.handle.events().subscribe(filter, None);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                batch = refusals.next() => self.note(&batch),
                () = sleep_until(next) => {
                    let begun = Instant::now();
                    self.look().await;
                    next = begun + EVERY.max(begun.elapsed() * SHARE);
                }
            }
        }
    }

    /// Notes whom requests with bad credentials named.
    fn note(&mut self, refusals: &Batch) {
        let now = self.handle.abuse().millis();
        for (_, event) in &refusals.events {
            if event.field("code") == Some(&UNAUTHENTICATED)
                && let Some(Value::User(name)) = event.field("username")
            {
                let user = EphemeralUsername::parse(name).and_then(|parsed| parsed.user);
                self.claims.failed(now, user.unwrap_or(name));
            }
        }
    }

    async fn look(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let desk = self.handle.abuse().clone();
        desk.configure(wanted.settings.clone());
        let claims = self.claims.of_last_minute(desk.millis());
        let usage = self.handle.usage();
        let signals = usage.look_now(|aggregate, millis| gather(aggregate, millis, claims));
        let view = self.handle.view();
        let fleet = fleetwide(&view, &wanted);
        let findings = desk.judge(&signals, &fleet, view.leads);
        let forgotten = &self.metrics.abuse.forgotten;
        let all = desk.dropped().saturating_add(self.claims.unnamed());
        forgotten.inc_by(all.saturating_sub(forgotten.get()));
        let mut bans = 0;
        for finding in findings {
            if finding.tell {
                let (about, what) = told::words(&finding, &fleet, wanted.privacy);
                let verdict = finding.case.verdict.name();
                let labels = [finding.rule.name(), verdict];
                self.metrics.abuse.found.with_label_values(&labels).inc();
                self.handle.events().publish(about, what);
            }
            if finding.throttle {
                let throttled = &self.metrics.abuse.throttles;
                throttled.with_label_values(&[finding.rule.name()]).inc();
            }
            let Some(time) = finding.ban else {
                continue;
            };
            bans += 1;
            if bans > BANS_AT_ONCE {
                desk.undone(finding.rule, &finding.subject);
            } else if let Err(error) = self.ban(&view, &finding, time).await {
                tracing::warn!(%error, rule = %finding.rule, "a ban could not be placed");
                if !matches!(error, FleetError::Ban(_) | FleetError::Tenant(_)) {
                    desk.undone(finding.rule, &finding.subject);
                }
            }
        }
    }

    async fn ban(
        &self,
        view: &FleetView,
        finding: &Finding,
        time: Duration,
    ) -> Result<(), FleetError> {
        let Some(whom) = finding.subject.whom() else {
            return Ok(());
        };
        let now = since_epoch();
        let since = now.as_secs();
        // One that leads since a moment ago finds what its predecessor has done.
        if view.bans.of(&whom).is_some_and(|ban| !ban.has_ended(since)) {
            return Ok(());
        }
        let rule = finding.rule;
        let mut reason = finding.case.evidence.clone();
        let mut ends = 0..=MAX_REASON_BYTES;
        let end = ends.rfind(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or(0));
        let ban = Ban {
            reason,
            by: rule.name().to_owned(),
            since,
            until: Some(since.saturating_add(time.as_secs())),
            automatic: true,
            whom,
        };
        let entry = AuditEntry {
            at_milliseconds: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            id: entry_id(now, random_bytes(&SystemRandom::new())?),
            by: format!("rule {rule}"),
            from: None,
            action: "ban".to_owned(),
            target: ban.whom.shown(&view.tenants).to_string(),
            detail: ban.reason.clone(),
        };
        let handle = self.handle.asked_by(entry);
        handle
            .change(move |fleet, _| fleet.plan_ban(ban.clone(), false, None))
            .await?;
        let banned = &self.metrics.abuse.bans;
        banned.with_label_values(&[rule.name()]).inc();
        Ok(())
    }
}

/// What of the fleet itself no verdict may concern.
fn fleetwide(view: &FleetView, wanted: &Wanted) -> Fleetwide {
    let relays = view.nodes.iter().flat_map(|node| {
        let listeners = node.identity.listeners.iter().map(|it| it.address.ip());
        node.identity.public_ips.iter().copied().chain(listeners)
    });
    let controllers = view.controllers.iter();
    let controllers = controllers.filter_map(|controller| address(&controller.grpc));
    let tenants = view.tenants.by_name();
    Fleetwide {
        addresses: relays.chain(controllers).collect(),
        proxies: wanted.proxies.clone(),
        static_users: wanted.static_users.clone(),
        tenants: tenants
            .filter(|it| it.id != DEFAULT_TENANT)
            .map(|it| (it.id, it.name.clone()))
            .collect(),
    }
}

/// The address in a URL, where its host is one.
fn address(url: &str) -> Option<IpAddr> {
    let url: Uri = url.parse().ok()?;
    url.host()?.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_at_an_address_is_known_by_it() {
        let of = |url| address(url).map(|ip| ip.to_string());
        assert_eq!(of("https://192.0.2.1:8081").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("http://[2001:db8::1]:1").as_deref(), Some("2001:db8::1"));
        assert_eq!(of("https://turn.example.org:8081"), None);
        assert_eq!(of(""), None);
    }
}
