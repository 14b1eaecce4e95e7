//! Rules, dashboards and traces as their readers have them: promtool, a Prometheus that scrapes a fleet of processes, an
//! Alertmanager, and a collector of traces.

mod dashboards;
mod live;
mod pages;
mod prometheus;
mod rules;
mod traces;

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the chart.
fn chart(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("helm/turnfleet/files")
        .join(path)
}

/// The rules, as the chart ships them.
const RULES: [&str; 2] = ["rules/recording.yaml", "rules/alerts.yaml"];

fn rules(file: &str) -> String {
    fs::read_to_string(chart(file)).unwrap()
}

/// What stands behind `key: ` at the beginning of lines, in their order.
fn values<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    let lines = text.lines().map(str::trim_start);
    let lines = lines.map(|line| line.strip_prefix("- ").unwrap_or(line));
    lines.filter_map(move |line| line.strip_prefix(key)?.strip_prefix(": "))
}

/// The names of metrics and recorded series in `text`.
fn series(text: &str) -> Vec<&str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_of_name(c));
    let is_series = |word: &&str| {
        ["turnfleet_relay_", "turnfleet_controller_", "turnfleet:"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    words.filter(is_series).collect()
}
