//! What a node tells Prometheus. Every metric is one line of one table: its name, its labels, what it means and where its
//! value comes from; the page and the reference in `docs/metrics.md` are both made from it.
//!
//! Labels come from closed enums, never from an address, a username or anything else that arrives by the network.

mod table;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Sample, MetricFamily, MetricType,
};
use turnfleet_turn::ledger::Usage;
use turnfleet_turn::{Counters, Durations};

use crate::control::{ControlCounts, ControlState, EventCounts};
use crate::journal;
use crate::process::ProcessUsage;
use crate::shard::DriverCounters;

/// One metric, as the reference shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricReference {
    /// The name, with the prefix `turnfleet_relay_`.
    pub name: &'static str,
    /// How its value moves.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// How the value of a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only upward, from zero at the start of the process.
    Counter,
    /// In both directions.
    Gauge,
    /// Counts of how long something took, in classes.
    Histogram,
}

impl MetricKind {
    /// The name that Prometheus has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Every metric of a relay node, in the order of the page.
pub fn metric_reference() -> impl Iterator<Item = MetricReference> {
    table::METRICS.iter().map(|metric| metric.reference)
}

/// What the values of each label are, whichever metric has it.
pub const LABELS: &[(&str, &str)] = &[
    ("ban", "what is banned: `user`, `tenant`, `source`, `peer`"),
    ("code", "STUN error codes that a relay answers with"),
    ("direction", "`to_peer`, `to_client`"),
    (
        "limit",
        "the bounds of a relay, which are named in its code",
    ),
    (
        "method",
        "the methods of requests in RFC 8489, RFC 8656 and RFC 6062",
    ),
    (
        "outcome",
        "what can become of it, named in the code: at most four",
    ),
    ("reason", "the reasons that are named in the code"),
    ("shard", "`same`, `other`"),
    ("state", "the states of a control session"),
    ("transport", "`udp`, `tcp`, `tls`"),
    ("version", "one: that of the program"),
];

/// Everything that the metrics are read from, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) core: Counters,
    pub(crate) drivers: DriverCounters,
    pub(crate) usage: Usage,
    pub(crate) allocations: u64,
    pub(crate) generation: u64,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    /// Servers that clients can be sent to.
    pub(crate) alternates: usize,
    pub(crate) control: ControlState,
    pub(crate) control_counts: ControlCounts,
    pub(crate) events: EventCounts,
    pub(crate) certificate: Option<CertificateCounts>,
    /// Names that were not kept, because there were too many.
    pub(crate) usage_unnamed: u64,
    /// Configurations that were taken over, and refused ones.
    pub(crate) reloads: (u64, u64),
    pub(crate) journal: journal::Figures,
    pub(crate) process: ProcessUsage,
    pub(crate) descriptor_limit: u64,
}

/// How often the certificate of TLS listeners changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CertificateCounts {
    pub(crate) replaced: u64,
    pub(crate) rejected: u64,
    /// The last second in which clients accept it, in Unix time; zero where that cannot be read.
    pub(crate) not_after: u64,
    /// Answers to challenges that were not held, because there were too many.
    pub(crate) answers_left_out: u64,
    /// Connections to the listeners for challenges that gave way to others.
    pub(crate) evicted: u64,
}

/// A line of the table.
struct Metric {
    reference: MetricReference,
    read: fn(&Observed, &mut Samples),
}

/// Collects the samples of one metric.
struct Samples {
    reference: MetricReference,
    list: Vec<Sample>,
}

impl Samples {
    /// Adds a sample without labels.
    fn plain(&mut self, value: impl Number) {
        self.add(&[], value);
    }

    /// Adds the sample of a histogram, which has no labels.
    fn durations(&mut self, durations: &Durations) {
        let buckets = durations.up_to().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(durations.count());
        histogram.set_sample_sum(durations.sum().as_secs_f64());
        let mut sample = self.sample(&[]);
        sample.set_histogram(histogram);
        self.list.push(sample);
    }

    /// Adds a sample with the values of the labels, in the order of the table.
    fn add(&mut self, labels: &[&str], value: impl Number) {
        let mut sample = self.sample(labels);
        match self.reference.kind {
            MetricKind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value.to_f64());
                sample.set_counter(counter);
            }
            MetricKind::Gauge | MetricKind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value.to_f64());
                sample.set_gauge(gauge);
            }
        }
        self.list.push(sample);
    }

    /// A sample with the values of the labels, in the order of the table, and no value.
    fn sample(&self, labels: &[&str]) -> Sample {
        debug_assert_eq!(labels.len(), self.reference.labels.len());
        let pairs = self
            .reference
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            });
        Sample::from_label(pairs.collect())
    }
}

/// What a sample can be.
trait Number {
    fn to_f64(self) -> f64;
}

impl Number for f64 {
    fn to_f64(self) -> f64 {
        self
    }
}

impl Number for u64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus knows floating point only"
    )]
    fn to_f64(self) -> f64 {
        self as f64
    }
}

impl Number for u32 {
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Number for bool {
    fn to_f64(self) -> f64 {
        u8::from(self).into()
    }
}

/// The page in the Prometheus text format.
pub(crate) fn render(observed: &Observed) -> String {
    let family = |metric: &Metric| {
        let mut samples = Samples {
            reference: metric.reference,
            list: Vec::new(),
        };
        (metric.read)(observed, &mut samples);
        let mut family = MetricFamily::default();
        family.set_name(metric.reference.name.to_owned());
        family.set_help(metric.reference.help.to_owned());
        family.set_field_type(match metric.reference.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(samples.list);
        family
    };
    let families: Vec<MetricFamily> = table::METRICS.iter().map(family).collect();
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("each metric has a name and at least one sample")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn page() -> String {
        render(&Observed {
            core: Counters::default(),
            drivers: DriverCounters::default(),
            usage: Usage::default(),
            allocations: 3,
            generation: 7,
            ready: true,
            draining: false,
            usage_unnamed: 0,
            alternates: 0,
            control: ControlState::Connected,
            events: EventCounts::default(),
            control_counts: ControlCounts::default(),
            certificate: None,
            reloads: (1, 2),
            journal: journal::Figures::default(),
            process: ProcessUsage::default(),
            descriptor_limit: 1024,
        })
    }

    #[test]
    fn every_metric_of_the_reference_is_on_the_page() {
        let page = page();
        for metric in metric_reference() {
            let line = format!("# TYPE {} {}\n", metric.name, metric.kind.name());
            assert!(page.contains(&line), "{line}");
        }
        assert!(page.contains("\nturnfleet_relay_allocations 3\n"));
        assert!(page.contains("turnfleet_relay_control_state{state=\"connected\"} 1\n"));
        assert!(page.contains("turnfleet_relay_control_state{state=\"refused\"} 0\n"));
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut names = HashSet::new();
        for metric in metric_reference() {
            assert!(names.insert(metric.name), "{} twice", metric.name);
            assert!(
                metric.name.starts_with("turnfleet_relay_"),
                "{}",
                metric.name
            );
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn the_values_of_every_label_are_told_of() {
        let mut used: Vec<&str> = metric_reference()
            .flat_map(|metric| metric.labels)
            .copied()
            .collect();
        used.sort_unstable();
        used.dedup();
        let told: Vec<&str> = LABELS.iter().map(|(label, _)| *label).collect();
        assert_eq!(used, told);
    }
}
