//! Every module and example: form, types, and its own tests, with stand-ins for what would be made.

use crate::workshop::{Workshop, configurations};

#[test]
fn terraform_files_are_formatted() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let output = workshop.try_terraform(".", &["fmt", "-check", "-recursive", "-list=true"]);
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "terraform fmt would change:\n{listed}"
    );
}

#[test]
fn modules_and_examples_are_valid_and_their_tests_pass() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    for folder in configurations() {
        workshop.terraform(&folder, &["init", "-backend=false"]);
        workshop.terraform(&folder, &["validate"]);
        let told = workshop.terraform(&folder, &["test"]);
        assert!(told.contains(" 0 failed"), "{folder} has no tests:\n{told}");
    }
}

#[test]
fn a_mistyped_attribute_is_found() {
    let Some(workshop) = Workshop::new() else {
        return;
    };
    let folder = "modules/aws-dns";
    let main = workshop.path(folder).join("main.tf");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, text.replace("set_identifier", "set_identifer")).unwrap();
    workshop.terraform(folder, &["init", "-backend=false"]);
    let output = workshop.try_terraform(folder, &["validate"]);
    assert!(!output.status.success(), "validate checks nothing");
}
