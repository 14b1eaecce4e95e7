//! Rules, dashboards, the page of metrics and the page of incidents hold together, and promtool takes every family.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::dashboards::sources;
use super::prometheus::{check_metrics, present};
use super::{RULES, rules, series, values};

/// Counters that say that a bound was hit or that something was lost: each has an alert.
const BOUNDS: [&str; 36] = [
    "turnfleet_controller_abuse_forgotten_total",
    "turnfleet_controller_connections_refused_total",
    "turnfleet_controller_dns_limited_total",
    "turnfleet_controller_homeserver_answers_total",
    "turnfleet_controller_homeserver_words_cut_short_total",
    "turnfleet_controller_quota_exceeded_total",
    "turnfleet_controller_quota_users_missed_total",
    "turnfleet_controller_rate_limited_total",
    "turnfleet_controller_spans_total",
    "turnfleet_controller_store_failures_total",
    "turnfleet_controller_usage_reports_refused_total",
    "turnfleet_controller_webhook_events_total",
    "turnfleet_controller_webhook_events_waiting",
    "turnfleet_relay_accept_pauses_total",
    "turnfleet_relay_challenges_crowded_total",
    "turnfleet_relay_claims_refused_total",
    "turnfleet_relay_datagrams_refused_total",
    "turnfleet_relay_datagrams_unserved_total",
    "turnfleet_relay_events_lost_total",
    "turnfleet_relay_events_not_logged_total",
    "turnfleet_relay_file_descriptors_used",
    "turnfleet_relay_handovers_refused_total",
    "turnfleet_relay_https_connections_total",
    "turnfleet_relay_journal_events_lost_total",
    "turnfleet_relay_journal_failures_total",
    "turnfleet_relay_journal_segments_dropped_total",
    "turnfleet_relay_limits_reached_total",
    "turnfleet_relay_ports_used",
    "turnfleet_relay_relayed_sockets_exhausted_total",
    "turnfleet_relay_relayed_sockets_failed_total",
    "turnfleet_relay_requests_banned_total",
    "turnfleet_relay_short_cut_dropped_total",
    "turnfleet_relay_spans_total",
    "turnfleet_relay_stream_data_dropped_total",
    "turnfleet_relay_streams_closed_total",
    "turnfleet_relay_usage_unnamed_total",
];

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    fs::read_to_string(docs.join(name)).unwrap()
}

#[test]
fn every_series_of_rules_and_dashboards_is_a_documented_metric_or_a_recorded_one() {
    let metrics = page("metrics.md");
    let rules = RULES.map(rules).join("\n");
    let recorded: BTreeSet<&str> = values(&rules, "record").collect();
    let dashboards: Vec<String> = sources()
        .iter()
        .flat_map(|dashboard| dashboard.expressions())
        .collect();
    let is_known = |name: &str| {
        let bare = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        let has = |name: &str| metrics.contains(&format!("| `{name}` |"));
        recorded.contains(name) || has(name) || has(bare)
    };
    let used = [rules.as_str(), &dashboards.join("\n")];
    let unknown: BTreeSet<&str> = used
        .iter()
        .flat_map(|text| series(text))
        .filter(|name| !is_known(name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Some families are there only after something has happened, so no one fleet shows them all.
#[test]
fn promtool_takes_every_family_of_the_page_of_metrics() {
    if !present() {
        return;
    }
    let page = page("metrics.md");
    let mut metrics = String::new();
    for line in page
        .lines()
        .filter(|line| line.starts_with("| `turnfleet_"))
    {
        let cells: Vec<&str> = line.split(" | ").collect();
        let name = cells[0].trim_matches(['|', ' ', '`']);
        let (kind, help) = (cells[1], cells[cells.len() - 1]);
        let samples = if kind == "histogram" {
            format!("{name}_bucket{{le=\"+Inf\"}} 0\n{name}_sum 0\n{name}_count 0")
        } else {
            format!("{name} 0")
        };
        let help = help.trim_end_matches(" |");
        writeln!(
            metrics,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}"
        )
        .unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    check_metrics(place.path(), &metrics).unwrap();
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let rules = rules(RULES[1]);
    let page = page("incidents.md");
    let alerts: Vec<&str> = values(&rules, "alert").collect();
    let sections: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    assert_eq!(alerts, sections);
    assert_eq!(
        alerts.len(),
        alerts.iter().collect::<BTreeSet<_>>().len(),
        "a name stands twice"
    );
    let anchors: Vec<&str> = values(&rules, "runbook_url").collect();
    let expected: Vec<String> = alerts
        .iter()
        .map(|alert| format!("\"docs/incidents.md#{}\"", alert.to_ascii_lowercase()))
        .collect();
    assert_eq!(anchors, expected);
    for key in ["summary", "description", "severity", "for"] {
        assert_eq!(values(&rules, key).count(), alerts.len(), "{key}");
    }
    for section in page.split("\n### ").skip(1) {
        for part in ["It means", "Users see", "Look at", "Do"] {
            let name = section.lines().next().unwrap();
            assert!(
                section.contains(&format!("- **{part}.** ")),
                "{name}: {part}"
            );
        }
    }
}

#[test]
fn every_bound_has_an_alert() {
    let rules = RULES.map(rules).join("\n");
    let used: BTreeSet<&str> = series(&rules).into_iter().collect();
    let missing: Vec<_> = BOUNDS
        .iter()
        .filter(|name| !used.contains(**name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let metrics = page("metrics.md");
    let words = [
        "too many",
        "too fast",
        "was reached",
        "did not take",
        "lost",
    ];
    let told = metrics.lines().filter(|line| {
        line.contains("| counter |") && words.iter().any(|word| line.contains(word))
    });
    let names = told.filter_map(|line| line.split('`').nth(1));
    let unwatched: Vec<&str> = names.filter(|name| !used.contains(name)).collect();
    assert!(unwatched.is_empty(), "{unwatched:?}");
}
