//! The pages of `docs/` that are made from the code are as the code makes them, and the configurations that pages show are
//! good.
//!
//! `UPDATE_EXPECT=1 cargo test --test pages` writes them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[track_caller]
fn assert_page(name: &str, made: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(page.parent().unwrap()).unwrap();
        fs::write(&page, made).unwrap();
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == made,
        "docs/{name} is out of date; UPDATE_EXPECT=1 cargo test --test pages writes it"
    );
}

/// The page is what the command prints.
#[track_caller]
fn assert_printed(name: &str, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_page(name, str::from_utf8(&output.stdout).unwrap());
}

#[test]
fn the_configuration_page_is_what_the_command_prints() {
    assert_printed("configuration.md", &["config-reference"]);
}

#[test]
fn the_schemas_are_what_the_command_prints() {
    for of in ["relay", "controller", "up"] {
        assert_printed(&format!("schemas/{of}.json"), &["config-schema", of]);
    }
}

#[test]
fn the_page_of_coturns_options_is_what_the_command_prints() {
    assert_printed("coturn-options.md", &["import-coturn", "--options"]);
}

#[test]
fn the_document_of_the_api_is_what_the_controller_serves() {
    let document = serde_json::to_string_pretty(&turnfleet_controller::openapi_document()).unwrap();
    assert_page("openapi.json", &format!("{document}\n"));
}

/// What people read, with its place.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["docs", "docs/guides"].map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let pages = folders.into_iter().flatten();
    let pages = pages.map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages = pages.chain([root.join("README.md")]);
    pages
        .map(|page| {
            let text = fs::read_to_string(&page).unwrap();
            (page, text)
        })
        .collect()
}

#[test]
fn what_pages_ask_of_a_fleet_is_a_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["fleet", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let indented = help.lines().filter_map(|line| line.strip_prefix("  "));
    let commands: Vec<&str> = indented
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut seen = 0;
    for (page, text) in pages() {
        for rest in text.split("turnfleet fleet ").skip(1) {
            let is_part = |c: char| c.is_ascii_lowercase() || c == '-';
            let word = rest.split(|c: char| !is_part(c)).next().unwrap();
            if word.is_empty() || word.starts_with('-') {
                continue;
            }
            assert!(commands.contains(&word), "{}: {word}", page.display());
            seen += 1;
        }
    }
    assert!(seen >= 50, "{seen}");
}

#[test]
fn configurations_that_pages_show_are_good() {
    let mut seen = Vec::new();
    for (page, text) in pages() {
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let what = match block.lines().next().unwrap() {
                "# turnfleet.toml" => "up",
                "# relay.toml" => "relay",
                "# controller.toml" => "controller",
                other => panic!("{}: no file is called {other:?}", page.display()),
            };
            assert_good(&page, what, block);
            seen.push(what);
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, ["controller", "relay", "up"]);
}

#[test]
fn every_guide_is_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides");
    let listed = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let link = format!("]({name})");
        assert!(name == "README.md" || listed.contains(&link), "{name}");
    }
}

/// Each begins with the schema of the command that its name begins with.
#[test]
fn examples_are_good_and_name_their_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let listed = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut seen = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(".toml") else {
            continue;
        };
        let (what, _) = name.split_once('-').unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let schema = format!("#:schema ../schemas/{what}.json\n");
        assert!(text.starts_with(&schema), "{name}");
        assert!(listed.contains(&format!("]({name}.toml)")), "{name}");
        assert_good(&file, what, &text);
        seen.push(what.to_owned());
    }
    seen.sort_unstable();
    let mut kinds = seen.clone();
    kinds.dedup();
    assert_eq!(kinds, ["controller", "relay", "up"]);
    assert!(seen.len() >= 9, "{seen:?}");
}

/// Has `check-config` judge the configuration of `what`, which stands at `place`.
#[track_caller]
fn assert_good(place: &Path, what: &str, text: &str) {
    // The paths and the addresses are those of another machine.
    const FILES: &str = "/etc/turnfleet/";
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["turn.example.org".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for named in text.split(FILES).skip(1) {
        let name = named.split('"').next().unwrap();
        let contents = match name.rsplit('.').next().unwrap() {
            _ if name == "privkey.pem" => key.as_str(),
            "pem" => &certificate,
            "key" => &key,
            _ => "0123456789abcdef\n",
        };
        fs::write(folder.path().join(name), contents).unwrap();
    }
    let here = format!("{}/", folder.path().display());
    let file = folder.path().join("config.toml");
    fs::write(&file, text.replace(FILES, &here)).unwrap();
    let here: &[&str] = match what {
        "up" if text.contains("public-ip = ") => &[
            "--listen-ip",
            "127.0.0.1",
            "--public-ip",
            "203.0.113.7/127.0.0.1",
        ],
        "up" => &["--listen-ip", "127.0.0.1"],
        _ => &[],
    };
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["check-config", what, "--config"])
        .arg(&file)
        .args(here)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {output:?}", place.display());
}

const METRICS: &str = "\
# Metrics

Relays and controllers serve these families in the text format of Prometheus at `/metrics`: a controller on its HTTP
listener, a relay on `metrics.address`. Labels take their values from closed sets; no address, user, node or token is ever a label.
Who uses a node is told by the controller's API.

The unit is that of the base of Prometheus: seconds and bytes; what is counted stands in the meaning. A histogram has the series
`_bucket`, `_sum` and `_count`. What the alerts and the dashboards that come with the chart make of it: [incidents](incidents.md).
";

#[test]
fn the_metrics_page_lists_every_family() {
    let mut page = METRICS.to_owned();
    page.push_str(&section("The relay", "turnfleet_relay_"));
    for metric in turnfleet_relay::metrics::metric_reference() {
        let kind = metric.kind.name();
        page.push_str(&line(metric.name, kind, metric.labels, metric.help));
    }
    page.push_str(&labels("The relay", turnfleet_relay::metrics::LABELS));
    page.push_str(&section("The controller", "turnfleet_controller_"));
    for metric in turnfleet_controller::metric_reference() {
        let labels: Vec<&str> = metric.labels.iter().map(String::as_str).collect();
        page.push_str(&line(&metric.name, metric.kind, &labels, &metric.help));
    }
    page.push_str(&labels(
        "The controller",
        turnfleet_controller::METRIC_LABELS,
    ));
    assert_page("metrics.md", &page);
}

/// What stands before the part of the page of events that is made from the code.
const MADE: &str =
    "<!-- The rest of this page is made by `UPDATE_EXPECT=1 cargo test --test pages`. -->\n";

#[test]
fn the_events_page_lists_every_kind_and_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let written = fs::read_to_string(path).unwrap();
    let (written, _) = written.split_once(MADE).unwrap();
    let mut page = [written, MADE].concat();
    let kinds = turnfleet_controller::events::kind_reference();
    for (place, kind) in kinds.iter().enumerate() {
        page.push_str(&format!("\n### `{}`\n\n{}\n", kind.name, kind.text));
        // A short table is read sooner than another one is looked up.
        let is_long = kind.fields.len() > 2;
        let mut others = kinds[..place].iter();
        let same = others.find(|other| is_long && other.fields == kind.fields);
        if let Some(other) = same {
            page.push_str(&format!("\nIts fields are those of `{}`.\n", other.name));
            continue;
        }
        if !kind.fields.is_empty() {
            page.push_str("\n| Field | Form | Meaning |\n|---|---|---|\n");
        }
        for field in &kind.fields {
            let (name, form, text) = (field.name, field.form, &field.text);
            page.push_str(&format!("| `{name}` | {form} | {text} |\n"));
        }
    }
    assert_page("events.md", &page);
}

#[test]
fn the_page_of_the_doctor_lists_every_check() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let written = fs::read_to_string(path).unwrap();
    let (written, _) = written.split_once(MADE).unwrap();
    let mut page = [written, MADE].concat();
    page.push_str("\n| Check | What is looked at | What to do | Needs |\n|---|---|---|---|\n");
    let output = Command::new(env!("CARGO_BIN_EXE_turnfleet"))
        .args(["doctor", "--list", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for check in checks.as_array().unwrap() {
        let text = |key: &str| check[key].as_str().unwrap();
        let (id, what, fix, needs) = (text("id"), text("what"), text("fix"), text("needs"));
        page.push_str(&format!("| `{id}` | {what} | {fix} | {needs} |\n"));
    }
    assert_page("doctor.md", &page);
}

fn section(title: &str, prefix: &str) -> String {
    format!(
        "\n## {title}: `{prefix}*`\n\n| Name | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n"
    )
}

fn line(name: &str, kind: &str, labels: &[&str], help: &str) -> String {
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    let (unit, labels) = (unit(name), labels.join(", "));
    format!("| `{name}` | {kind} | {unit} | {labels} | {help} |\n")
}

/// What a value is measured in, which the name of the family says; a count has no unit.
fn unit(name: &str) -> &'static str {
    let base = name.strip_suffix("_total").unwrap_or(name);
    let rates = ["bytes_per_second", "packets_per_second"];
    if let Some(rate) = rates.into_iter().find(|rate| base.ends_with(rate)) {
        return match rate {
            "bytes_per_second" => "bytes/s",
            _ => "packets/s",
        };
    }
    match base.rsplit('_').next() {
        Some("seconds") => "seconds",
        Some("bytes") => "bytes",
        _ if base.ends_with("_seconds_to_full") => "seconds",
        _ => "",
    }
}

fn labels(title: &str, labels: &[(&str, &str)]) -> String {
    let mut text = format!("\n### {title}: values of labels\n\n| Label | Values |\n|---|---|\n");
    for (label, values) in labels {
        text.push_str(&format!("| `{label}` | {values} |\n"));
    }
    text
}
