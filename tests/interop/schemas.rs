//! The schemas in docs/schemas, by a validator that others wrote: the examples fit them, and mistakes do not.

use std::path::Path;
use std::process::{Command, Output};

use crate::synapse::PYTHON;
use crate::tools;

/// Reads a schema and a TOML file, and fails with what does not fit.
const VALIDATE: &str = "
import json, sys, tomllib
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
errors = list(Draft202012Validator(schema).iter_errors(tomllib.load(open(sys.argv[2], 'rb'))))
print('\\n'.join(error.message for error in errors))
sys.exit(1 if errors else 0)
";

fn validate(schema: &str, file: &Path) -> Output {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    Command::new(PYTHON)
        .args(["-c", VALIDATE])
        .arg(docs.join(format!("schemas/{schema}.json")))
        .arg(file)
        .output()
        .unwrap()
}

#[test]
fn examples_fit_their_schemas() {
    if !tools::present(&[PYTHON]) {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let files = std::fs::read_dir(folder).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for file in files.filter(|file| file.extension().is_some_and(|it| it == "toml")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let output = validate(name.split_once('-').unwrap().0, &file);
        assert!(output.status.success(), "{name}: {output:?}");
        seen += 1;
    }
    assert!(seen >= 9, "{seen}");
}

#[test]
fn mistakes_do_not_fit() {
    if !tools::present(&[PYTHON]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    for (schema, text, words) in [
        ("relay", "regionn = 'a'", "regionn"),
        ("relay", "shards = 'many'", "many"),
        ("controller", "peers.alow = []", "alow"),
        ("controller", "probe.mode = 'never'", "never"),
        ("up", "relay-port = '1-2'", "relay-port"),
        ("up", "port = 70000", "70000"),
        ("up", "[relay]\nshard = 1", "shard"),
        ("up", "[controller.limits]\nallocations_per_user = -1", "-1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = validate(schema, &file);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{schema}: {text}: {output:?}");
        assert!(said.contains(words), "{schema}: {text}: {said}");
    }
}
