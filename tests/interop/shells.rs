//! Completions in real shells, and the pages of the manual.

use std::fs;
use std::process::Command;

use crate::tools;

const TURNFLEET: &str = env!("CARGO_BIN_EXE_turnfleet");
const BASH: &str = "/bin/bash";
const ZSH: &str = "/usr/bin/zsh";
const FISH: &str = "/usr/bin/fish";

/// Has `shell` read its completions, from a file at `$1`, and run `script`.
#[track_caller]
fn completes(shell: &str, name: &str, script: &str) -> String {
    let made = Command::new(TURNFLEET)
        .args(["completions", name])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("_turnfleet");
    fs::write(&file, made.stdout).unwrap();
    let output = Command::new(shell)
        .args(["-c", &script.replace("$1", file.to_str().unwrap())])
        .env("HOME", folder.path())
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    assert!(output.stderr.is_empty(), "{name}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn assert_offers(offered: &str, expected: &[&str]) {
    for word in expected {
        assert!(
            offered.split_whitespace().any(|it| it == *word),
            "{word} in {offered}"
        );
    }
}

#[test]
fn bash_completes_commands_and_flags() {
    if !tools::present(&[BASH]) {
        return;
    }
    let complete = |words: &str| {
        let script = format!(
            "source $1; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             last=${{COMP_WORDS[COMP_CWORD]}}; _turnfleet turnfleet \"$last\" ''; echo \"${{COMPREPLY[@]}}\""
        );
        completes(BASH, "bash", &script)
    };
    assert_offers(
        &complete("turnfleet con"),
        &["controller", "conformance", "config-schema"],
    );
    assert_offers(
        &complete("turnfleet fleet secrets ''"),
        &["rotate", "pin", "revoke"],
    );
    assert_offers(
        &complete("turnfleet config-schema ''"),
        &["relay", "controller", "up"],
    );
    assert_offers(
        &complete("turnfleet up --tls"),
        &["--tls-port", "--tls-cert"],
    );
}

#[test]
fn fish_completes_commands_and_flags() {
    if !tools::present(&[FISH]) {
        return;
    }
    let complete =
        |line: &str| completes(FISH, "fish", &format!("source $1; complete -C '{line}'"));
    assert_offers(&complete("turnfleet con"), &["controller", "conformance"]);
    assert_offers(
        &complete("turnfleet fleet secrets "),
        &["rotate", "pin", "revoke"],
    );
    assert_offers(
        &complete("turnfleet up --tls"),
        &["--tls-port", "--tls-cert"],
    );
}

/// What zsh would offer shows in its line editor alone, so this is less: it takes the file for the command.
#[test]
fn zsh_takes_the_completions() {
    if !tools::present(&[ZSH]) {
        return;
    }
    let script = "fpath=(${:-$1}(:h) $fpath); autoload -U compinit && compinit -u -D; \
                  echo ${_comps[turnfleet]}; autoload +X -U _turnfleet && whence -w _turnfleet; zsh -n $1";
    let said = completes(ZSH, "zsh", script);
    assert_offers(&said, &["_turnfleet", "function"]);
}

#[test]
fn every_command_has_a_page_in_the_manual() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(TURNFLEET)
        .args(["man", "--output"])
        .arg(folder.path().join("man1"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let page = |name: &str| {
        let file = folder.path().join("man1").join(format!("{name}.1"));
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let help = Command::new(TURNFLEET).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.contains(&"import-coturn"), "{names:?}");
    for name in &names {
        let text = page(&format!("turnfleet-{name}"));
        assert!(text.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(page("turnfleet").contains(".SH NAME"));
    assert!(page("turnfleet-fleet-secrets-rotate").contains("secret\\-file"));
}
