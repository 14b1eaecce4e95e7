//! promtool finds the rules good, their unit tests hold, and each alert has such tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use super::prometheus::{present, promtool};
use super::{RULES, chart, rules};

/// The unit tests that promtool runs.
fn unit_tests() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring");
    let entries = fs::read_dir(&folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".test.yaml"))
        .collect()
}

/// The only document of a YAML file.
#[track_caller]
fn document(text: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

/// What the list at `key` holds; nothing where there is none.
fn list<'y>(yaml: &'y Yaml, key: &str) -> &'y [Yaml] {
    let list = yaml[key].as_vec();
    list.map(Vec::as_slice).unwrap_or_default()
}

/// The text at `key`.
#[track_caller]
fn text<'y>(yaml: &'y Yaml, key: &str) -> &'y str {
    let text = yaml[key].as_str();
    text.unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

/// Every alert of the chart.
fn alerts() -> Vec<Yaml> {
    let document = document(&rules(RULES[1]));
    let groups = list(&document, "groups").iter();
    groups
        .flat_map(|group| list(group, "rules"))
        .cloned()
        .collect()
}

#[test]
fn promtool_finds_the_rules_good() {
    if !present() {
        return;
    }
    let files = RULES.map(chart);
    let mut arguments = vec!["check", "rules"];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    promtool(&arguments).unwrap();
}

#[test]
fn promtool_finds_that_rules_do_what_their_tests_say() {
    if !present() {
        return;
    }
    let tests = unit_tests();
    let mut arguments = vec!["test", "rules"];
    arguments.extend(tests.iter().map(|test| test.to_str().unwrap()));
    promtool(&arguments).unwrap();
}

/// promtool itself takes a case of an alert that does not exist, where it expects nothing to fire.
#[test]
fn every_alert_fires_in_one_unit_test_and_not_in_another() {
    let alerts = alerts();
    let expected: BTreeSet<&str> = alerts.iter().map(|alert| text(alert, "alert")).collect();
    let (mut fire, mut rest) = (BTreeSet::new(), BTreeSet::new());
    for path in unit_tests() {
        let document = document(&fs::read_to_string(path).unwrap());
        let tests = list(&document, "tests").iter();
        for case in tests.flat_map(|test| list(test, "alert_rule_test")) {
            let fires = !list(case, "exp_alerts").is_empty();
            let names = if fires { &mut fire } else { &mut rest };
            names.insert(text(case, "alertname").to_owned());
        }
    }
    for (what, names) in [("fires", fire), ("does not fire", rest)] {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let differ: Vec<_> = names.symmetric_difference(&expected).collect();
        assert!(
            differ.is_empty(),
            "no such alert, or no test in which it {what}: {differ:?}"
        );
    }
}

/// How much a counter grew is estimated, with a fraction that says nothing.
#[test]
fn no_description_has_the_bare_growth_of_a_counter() {
    let mut bare = Vec::new();
    for alert in alerts() {
        let expression = text(&alert, "expr");
        let is_growth = ["increase(", "rate(", "rate5m", "ratio"]
            .iter()
            .any(|word| expression.contains(word));
        let description = text(&alert["annotations"], "description");
        if is_growth && description.contains("{{ $value }}") {
            bare.push(text(&alert, "alert").to_owned());
        }
    }
    assert!(bare.is_empty(), "{bare:?}");
}
