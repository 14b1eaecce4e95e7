//! What the controller counts, as `turnfleet_controller_*` in Prometheus text.
//!
//! Labels come from closed enums, or name a region or one of the largest tenants: never an address, a user, a node or a
//! token. What can be read off the fleet's view is read off it when somebody asks, and not kept twice.

mod abuse;
mod acme;
mod labels;
mod policy;
mod quotas;
mod secrets;
mod store;
mod usage;
mod zeros;

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::events::WebhookStanding;
use crate::fleet::record::Stage;
use crate::fleet::{
    CLOCK_LIMIT, CLOCK_WARNING, CertificateState, FleetView, Health, NodeView, Totals,
};
use crate::usage::UsageDesk;
use abuse::AbuseCounters;
use acme::AcmeCounters;
pub use labels::METRIC_LABELS;
pub(crate) use policy::{PolicyCounters, Word};
use quotas::QuotaCounters;
use secrets::SecretGauges;
pub(crate) use store::StoreCounters;
use turnfleet_proto::spans::FIGURES;
use usage::UsageCounters;

/// One metric, as the reference shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricReference {
    /// The name, with the prefix `turnfleet_controller_`.
    pub name: String,
    /// The name that Prometheus has for its type.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

/// Every metric of a controller, in the order of this file.
#[must_use]
pub fn metric_reference() -> Vec<MetricReference> {
    let maker = Maker::default();
    Metrics::made_by(&maker);
    maker.references.into_inner()
}

/// The counters of one controller.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// HTTP requests, by route and status.
    pub(crate) requests: IntCounterVec,
    pub(crate) credentials_minted: IntCounter,
    pub(crate) credential_seconds: Histogram,
    pub(crate) authentication_failures: IntCounter,
    pub(crate) rate_limited: IntCounter,
    pub(crate) homeserver_answers: IntCounterVec,
    pub(crate) homeserver_words_cut_short: IntCounter,
    pub(crate) connections_refused: IntCounterVec,
    pub(crate) enrolments: IntCounterVec,
    pub(crate) sessions: IntGauge,
    pub(crate) controllers_in_sight: IntGauge,
    pub(crate) sessions_ended: IntCounterVec,
    pub(crate) reloads: IntCounterVec,
    pub(crate) probes: IntCounterVec,
    pub(crate) webhook_events: IntCounterVec,
    pub(crate) webhook_waiting: IntGauge,
    pub(crate) probe_seconds: Histogram,
    pub(crate) policy: PolicyCounters,
    pub(crate) store: StoreCounters,
    spans: IntCounterVec,
    bans: IntGauge,
    secrets: SecretGauges,
    pub(crate) dns: DnsCounters,
    pub(crate) abuse: AbuseCounters,
    pub(crate) acme: AcmeCounters,
    pub(crate) quotas: QuotaCounters,
    usage: UsageCounters,
    fleet: FleetGauges,
    /// One page at a time: two that are made at once would count twice what is kept elsewhere.
    rendering: Mutex<()>,
}

/// What the DNS responder counts.
#[derive(Debug)]
pub(crate) struct DnsCounters {
    /// By type and response code.
    pub(crate) queries: IntCounterVec,
    pub(crate) limited: IntCounterVec,
    pub(crate) unanswered: IntCounterVec,
}

impl DnsCounters {
    fn new(make: &Maker) -> Self {
        Self {
            queries: make.counters(
                "dns_queries_total",
                "DNS queries answered, by type of the records asked for and by response code; type `none` for malformed ones.",
                &["type", "rcode"],
            ),
            limited: make.counters(
                "dns_limited_total",
                "DNS queries by UDP beyond the rate of their network: sent to TCP, or dropped.",
                &["outcome"],
            ),
            unanswered: make.counters(
                "dns_unanswered_total",
                "DNS messages without an answer: too short or too long, answers themselves, or not taken by the network.",
                &["reason"],
            ),
        }
    }
}

/// Set from the view whenever the metrics are rendered.
#[derive(Debug)]
struct FleetGauges {
    nodes: IntGaugeVec,
    listed: IntGauge,
    draining: IntGauge,
    generation: IntGauge,
    rollout: IntGaugeVec,
    restored: IntGauge,
    refused: IntGauge,
    leader: IntGauge,
    store_stale: IntGauge,
    behind: IntGauge,
    allocations: IntGauge,
    ports_used: IntGauge,
    ports: IntGauge,
    region_ports: IntGaugeVec,
    headroom: IntGaugeVec,
    headroom_n1: IntGaugeVec,
    seconds_to_full: IntGaugeVec,
    bytes: IntGauge,
    packets: IntGauge,
    suspects: IntGauge,
    panics: IntGauge,
    damped: IntGauge,
    clocks: IntGaugeVec,
    certificates: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self::made_by(&Maker::default());
        metrics.begin_at_zero();
        metrics
    }

    fn made_by(make: &Maker) -> Self {
        Self {
            requests: make.counters(
                "http_requests_total",
                "HTTP requests, by route and status code.",
                &["route", "status"],
            ),
            credentials_minted: make.counter(
                "credentials_minted_total",
                "Ephemeral credentials handed out.",
            ),
            credential_seconds: credential_seconds(make),
            authentication_failures: make.counter(
                "authentication_failures_total",
                "HTTP requests without a known token, or without the scope.",
            ),
            rate_limited: make.counter(
                "rate_limited_total",
                "HTTP requests beyond the rate of their token.",
            ),
            homeserver_answers: homeserver_answers(make),
            homeserver_words_cut_short: homeserver_words_cut_short(make),
            connections_refused: make.counters(
                "connections_refused_total",
                "Connections closed because the listener had as many as it takes, at all or of their address.",
                &["listener"],
            ),
            enrolments: make.counters(
                "enrolments_total",
                "Requests of nodes for a credential.",
                &["outcome"],
            ),
            sessions: make.gauge("sessions", "Control sessions of nodes that are open."),
            controllers_in_sight: make.gauge(
                "controllers_in_sight",
                "Other controllers of the fleet that this one follows.",
            ),
            sessions_ended: make.counters(
                "sessions_ended_total",
                "Control sessions that ended.",
                &["how"],
            ),
            reloads: make.counters(
                "reloads_total",
                "Configurations that were read again while the controller ran, and taken over or refused.",
                &["outcome"],
            ),
            webhook_events: webhook_events(make),
            webhook_waiting: webhook_waiting(make),
            probes: make.counters("probes_total", "Probes of relays.", &["outcome"]),
            probe_seconds: probe_seconds(make),
            policy: PolicyCounters::new(make),
            store: StoreCounters::new(make),
            spans: spans(make),
            bans: make.gauge("bans", "Bans that are in force."),
            secrets: SecretGauges::new(make),
            dns: DnsCounters::new(make),
            abuse: AbuseCounters::new(make),
            acme: AcmeCounters::new(make),
            quotas: QuotaCounters::new(make),
            usage: UsageCounters::new(make),
            fleet: FleetGauges::new(make),
            rendering: Mutex::default(),
            registry: make.registry.clone(),
        }
    }

    /// Counts a connection to the listener of that name that was closed at once.
    pub(crate) fn connection_refused(&self, listener: &'static str) {
        self.connections_refused
            .with_label_values(&[listener])
            .inc();
    }

    /// Counts a probe that ended: its duration, or why it failed.
    pub(crate) fn probed(&self, outcome: Result<Duration, &'static str>) {
        let label = outcome.err().unwrap_or("good");
        self.probes.with_label_values(&[label]).inc();
        if let Ok(duration) = outcome {
            self.probe_seconds.observe(duration.as_secs_f64());
        }
    }

    /// Takes over how the webhooks stand.
    fn note_webhooks(&self, webhooks: &[WebhookStanding]) {
        let sum = |count: fn(&WebhookStanding) -> u64| webhooks.iter().map(count).sum::<u64>();
        let outcomes = [
            ("delivered", sum(|it| it.delivered)),
            ("given_up", sum(|it| it.dead)),
        ];
        for (outcome, count) in outcomes {
            let counter = self.webhook_events.with_label_values(&[outcome]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        let waiting = sum(|it| it.queued as u64);
        self.webhook_waiting.set(signed(waiting));
    }

    /// Everything, with the fleet as `view` has it, how the webhooks stand, and what each tenant used.
    pub(crate) fn render(
        &self,
        view: &FleetView,
        webhooks: &[WebhookStanding],
        usage: &UsageDesk,
    ) -> String {
        let rendering = self.rendering.lock();
        let _alone = rendering.unwrap_or_else(PoisonError::into_inner);
        self.note_webhooks(webhooks);
        self.fleet.set(view);
        self.secrets.set(view);
        self.bans.set(signed(view.bans.len() as u64));
        for (outcome, count) in FIGURES.outcomes() {
            let counter = self.spans.with_label_values(&[outcome]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.acme.set(view);
        self.usage.set(view, usage);
        self.quotas.set(usage);
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("a vector takes every byte");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

fn credential_seconds(make: &Maker) -> Histogram {
    make.histogram(
        "credential_duration_seconds",
        "From the arrival of a request for a credential to the answer that holds one, by HTTP of any form.",
        &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    )
}

fn spans(make: &Maker) -> IntCounterVec {
    make.counters(
        "spans_total",
        "Spans for a trace: exported to the collector, lost because too many waited for it, or refused by it; of the whole process.",
        &["outcome"],
    )
}

fn homeserver_answers(make: &Maker) -> IntCounterVec {
    make.counters(
        "homeserver_answers_total",
        "What came of asking the homeserver about access tokens; `busy` where it was not asked, because too many were before.",
        &["outcome"],
    )
}

fn homeserver_words_cut_short(make: &Maker) -> IntCounter {
    make.counter(
        "homeserver_words_cut_short_total",
        "Words of the homeserver that were forgotten before their time, because there were too many.",
    )
}

fn probe_seconds(make: &Maker) -> Histogram {
    make.histogram(
        "probe_duration_seconds",
        "How long successful probes took.",
        &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    )
}

fn webhook_events(make: &Maker) -> IntCounterVec {
    make.counters(
        "webhook_events_total",
        "Events that webhooks were to deliver, by what became of them: delivered, or given up.",
        &["outcome"],
    )
}

fn webhook_waiting(make: &Maker) -> IntGauge {
    make.gauge(
        "webhook_events_waiting",
        "Events that wait for the receivers of webhooks.",
    )
}

fn region_ports(make: &Maker) -> IntGaugeVec {
    make.gauges(
        "region_relayed_ports",
        "Relayed ports of a region: granted to nodes, in use, or nobody's until their quarantine ends.",
        &["region", "state"],
    )
}

impl FleetGauges {
    fn new(make: &Maker) -> Self {
        Self {
            nodes: make.gauges("nodes", "Enrolled nodes, by health.", &["health"]),
            listed: make.gauge("nodes_listed", "Nodes that lists may name."),
            draining: make.gauge("nodes_draining", "Nodes that are being emptied."),
            generation: make.gauge("policy_generation", "Generation of the policy snapshot."),
            rollout: make.gauges(
                "policy_rollout",
                "1 for how far the latest change of the policy has come; `stopped` wants an operator.",
                &["stage"],
            ),
            restored: make.gauge(
                "store_restored",
                "1 while the store is older than what a relay runs, and nothing is pushed: wants an operator.",
            ),
            refused: make.gauge("store_values_refused", "Foreign and old values in the store."),
            leader: make.gauge("leader", "1 on the controller that does what one alone may do."),
            store_stale: make.gauge(
                "store_stale",
                "1 while the store does not answer: what is known is served, and nothing can be changed.",
            ),
            behind: make.gauge(
                "nodes_behind",
                "Connected nodes that do not run the current generation.",
            ),
            allocations: make.gauge("allocations", "Live allocations of all nodes."),
            ports_used: make.gauge("relayed_ports_used", "Relayed ports in use."),
            ports: make.gauge("relayed_ports", "Relayed ports granted to nodes."),
            region_ports: region_ports(make),
            headroom: make.gauges(
                "headroom",
                "What is left below 80 % of the limit.",
                &["resource"],
            ),
            headroom_n1: make.gauges(
                "headroom_without_largest_zone",
                "The same when the largest zone fails and its use goes to the others; below zero where so much is missing, 0 where there is one zone.",
                &["resource"],
            ),
            seconds_to_full: make.gauges(
                "seconds_to_full",
                "Until the fleet is full if use grows as in the last fifteen minutes; absent where it does not grow.",
                &["scope"],
            ),
            bytes: make.gauge("bytes_per_second", "Traffic of all nodes, both ways."),
            packets: make.gauge("packets_per_second", "Packets of all nodes, both ways."),
            suspects: make.gauge(
                "nodes_suspect",
                "Silent nodes that the panic rule keeps in lists, behind the others.",
            ),
            panics: make.gauge(
                "regions_in_panic",
                "Regions of which half or more fell silent at once: this controller may be cut off.",
            ),
            damped: make.gauge(
                "nodes_damped",
                "Nodes left out of lists because they failed more than three times in ten minutes.",
            ),
            clocks: make.gauges(
                "nodes_clock_wrong",
                "Nodes whose wall clock is so far away, by what follows: warn beyond 5 s, out of lists beyond 30 s.",
                &["level"],
            ),
            certificates: make.gauges(
                "nodes_certificate",
                "Nodes by the state of the certificate of their TLS listeners.",
                &["state"],
            ),
        }
    }

    fn set(&self, view: &FleetView) {
        let count = |matches: &dyn Fn(&NodeView) -> bool| {
            signed(view.nodes.iter().filter(|node| matches(node)).count() as u64)
        };
        for health in Health::ALL {
            self.nodes
                .with_label_values(&[health.name()])
                .set(count(&|node| node.health == health));
        }
        self.listed.set(count(&|node| node.listed));
        self.draining.set(count(&|node| node.draining));
        self.behind.set(count(&|node| {
            node.connected && node.applied_generation != view.generation
        }));
        self.generation.set(signed(view.generation));
        let stage = view
            .rollout
            .as_ref()
            .map_or("all", |rollout| rollout.stage.name());
        for name in Stage::NAMES {
            let gauge = self.rollout.with_label_values(&[name]);
            gauge.set(i64::from(name == stage));
        }
        self.restored.set(i64::from(view.restored.is_some()));
        let refused = i64::try_from(view.refused).unwrap_or(i64::MAX);
        self.refused.set(refused);
        self.leader.set(view.leads.into());
        self.store_stale.set(view.store_stale.into());
        let total = view.capacity().total;
        self.allocations.set(signed(total.allocations.used));
        self.ports_used.set(signed(total.ports.used));
        self.ports.set(signed(total.ports.limit));
        self.region_ports.reset();
        for (region, ports) in view.ports_by_region() {
            let states = [
                ("granted", ports.granted),
                ("used", ports.used),
                ("quarantined", ports.quarantined),
            ];
            for (state, count) in states {
                let gauge = self.region_ports.with_label_values(&[region, state]);
                gauge.set(signed(count));
            }
        }
        self.set_capacity(&total);
        self.set_trust(view, count);
    }

    fn set_capacity(&self, total: &Totals) {
        let left = total.without_largest_zone.unwrap_or_default();
        let resources = [
            ("allocations", total.allocations),
            ("relayed_ports", total.ports),
        ];
        for ((resource, gauge), left) in resources.into_iter().zip(left) {
            let headroom = self.headroom.with_label_values(&[resource]);
            headroom.set(signed(gauge.headroom()));
            self.headroom_n1.with_label_values(&[resource]).set(left);
        }
        self.seconds_to_full.reset();
        if let Some(seconds) = total.seconds_to_full {
            let time = self.seconds_to_full.with_label_values(&["fleet"]);
            time.set(signed(seconds));
        }
        self.bytes.set(rounded(total.rates.bytes()));
        self.packets.set(rounded(total.rates.packets()));
    }

    fn set_trust(&self, view: &FleetView, count: impl Fn(&dyn Fn(&NodeView) -> bool) -> i64) {
        self.suspects.set(count(&|node| node.suspect));
        self.panics.set(signed(view.panics.len() as u64));
        self.damped.set(count(&|node| node.damped_for.is_some()));
        let beyond = |node: &NodeView, limit: Duration| {
            let millis = node.clock_skew_millis;
            millis.is_some_and(|it| u128::from(it.unsigned_abs()) > limit.as_millis())
        };
        for (level, limit) in [("warn", CLOCK_WARNING), ("out", CLOCK_LIMIT)] {
            let clocks = self.clocks.with_label_values(&[level]);
            clocks.set(count(&|node| beyond(node, limit)));
        }
        for state in CertificateState::ALL {
            let certificates = self.certificates.with_label_values(&[state.name()]);
            certificates.set(count(&|node| node.certificate == state));
        }
    }
}

/// A rate as a whole number.
fn rounded(rate: f64) -> i64 {
    format!("{rate:.0}").parse().unwrap_or(i64::MAX)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Makes metrics and registers them. The names are constants of this file, so nothing here can fail.
#[derive(Default)]
struct Maker {
    registry: Registry,
    references: RefCell<Vec<MetricReference>>,
}

impl Maker {
    fn opts(name: &str, text: &str) -> Opts {
        Opts::new(format!("turnfleet_controller_{name}"), text)
    }

    fn registered<M: Collector + Clone + 'static>(
        &self,
        kind: &'static str,
        metric: prometheus::Result<M>,
    ) -> M {
        let metric = metric.expect("the names and labels of this file are valid");
        let described = metric.desc().into_iter().map(|desc| MetricReference {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        self.references.borrow_mut().extend(described);
        self.registry
            .register(Box::new(metric.clone()))
            .expect("each name is registered once");
        metric
    }

    fn counter(&self, name: &str, text: &str) -> IntCounter {
        self.registered("counter", IntCounter::with_opts(Self::opts(name, text)))
    }

    fn counters(&self, name: &str, text: &str, labels: &[&str]) -> IntCounterVec {
        let metric = IntCounterVec::new(Self::opts(name, text), labels);
        self.registered("counter", metric)
    }

    fn gauge(&self, name: &str, text: &str) -> IntGauge {
        self.registered("gauge", IntGauge::with_opts(Self::opts(name, text)))
    }

    fn gauges(&self, name: &str, text: &str, labels: &[&str]) -> IntGaugeVec {
        let metric = IntGaugeVec::new(Self::opts(name, text), labels);
        self.registered("gauge", metric)
    }

    fn histogram(&self, name: &str, text: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, text)).buckets(buckets.to_vec());
        self.registered("histogram", Histogram::with_opts(opts))
    }
}
