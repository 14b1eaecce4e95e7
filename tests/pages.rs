//! The pages of `docs/` that are made from the code are as the code makes them.
//!
//! `UPDATE_EXPECT=1 cargo test --test pages` writes them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

#[track_caller]
fn assert_page(name: &str, made: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&page, made).unwrap();
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == made,
        "docs/{name} is out of date; UPDATE_EXPECT=1 cargo test --test pages writes it"
    );
}

#[test]
fn the_configuration_page_is_what_the_command_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .arg("config-reference")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_page("configuration.md", str::from_utf8(&output.stdout).unwrap());
}

const METRICS: &str = "\
# Metrics

Relays and controllers serve these families in the text format of Prometheus at `/metrics`: a controller on its HTTP
listener, a relay on `metrics.address`. Labels take their values from closed sets; no address, user, node or token is ever a label.
Who uses a node is told by the controller's API.
";

#[test]
fn the_metrics_page_lists_every_family() {
    let mut page = METRICS.to_owned();
    page.push_str(&section("The relay", "turnfleet_relay_"));
    for metric in turnfleet_relay::metrics::metric_reference() {
        let kind = metric.kind.name();
        page.push_str(&line(metric.name, kind, metric.labels, metric.help));
    }
    page.push_str(&section("The controller", "turnfleet_controller_"));
    for metric in turnfleet_controller::metric_reference() {
        let labels: Vec<&str> = metric.labels.iter().map(String::as_str).collect();
        page.push_str(&line(&metric.name, metric.kind, &labels, &metric.help));
    }
    assert_page("metrics.md", &page);
}

fn section(title: &str, prefix: &str) -> String {
    format!("\n## {title}: `{prefix}*`\n\n| Name | Type | Labels | Meaning |\n|---|---|---|---|\n")
}

fn line(name: &str, kind: &str, labels: &[&str], help: &str) -> String {
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
}
