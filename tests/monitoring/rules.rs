//! promtool finds the rules good, and their unit tests hold.

use std::fs;
use std::path::Path;

use super::prometheus::{present, promtool};
use super::{RULES, chart};

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring");
    let entries = fs::read_dir(&folder).unwrap();
    let tests: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".test.yaml"))
        .collect();
    assert!(tests.len() >= 4, "{tests:?}");
    let mut arguments = vec!["test", "rules"];
    arguments.extend(tests.iter().map(|test| test.to_str().unwrap()));
    promtool(&arguments).unwrap();
}
