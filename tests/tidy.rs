//! The house rules that a program can check, over the files of this repository.
//!
//! Each test names every offending place at once.

#![expect(
    clippy::unwrap_used,
    reason = "what is missing ends the test, and says where"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a source file, its unit tests apart.
const MAX_LINES: usize = 600;

/// Files that may be longer, each with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// The dependencies of the TURN core: hashing, and nothing that could reach a socket, a clock or randomness.
const CORE_DEPENDENCIES: [&str; 7] = [
    "foldhash",
    "hmac",
    "md-5",
    "sha1",
    "sha2",
    "subtle",
    "thiserror",
];

/// Folders whose files may hold unsafe code, each block with its reason.
const UNSAFE_FOLDERS: [&str; 1] = ["relay/src/driver/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text file of the repository.
struct Source {
    /// Relative to the root, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// The lines before the unit tests, which stand last.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = (1..).zip(self.text.lines());
        numbered.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
    }

    fn all(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// The files below the root that end in `suffix`, generated ones and build results apart.
fn sources(suffix: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with('.') || name == "target" || name == "generated" || name == "corpus"
            {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(suffix) {
                let text = fs::read_to_string(&path).unwrap();
                let path = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no file ends in {suffix}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[track_caller]
fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// Places where a line of code or comment holds one of `words`. This file names them and is left out.
fn places_with(words: &[&str], suffix: &str) -> Vec<String> {
    let mut places = Vec::new();
    for source in sources(suffix)
        .iter()
        .filter(|source| source.path != "tests/tidy.rs")
    {
        for (number, line) in source.all() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                places.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    places
}

#[test]
fn no_file_is_too_long() {
    let mut offences = Vec::new();
    for source in sources(".rs") {
        let lines = source.code().count();
        let excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        let is_test = source.path.starts_with("tests/") || source.path.contains("/tests/");
        if lines > MAX_LINES && !excused && !is_test {
            offences.push(format!(
                "{}: {lines} lines, {MAX_LINES} at most",
                source.path
            ));
        }
        if lines <= MAX_LINES && excused {
            offences.push(format!(
                "{}: is short enough; take it off the list",
                source.path
            ));
        }
    }
    assert_none(&offences);
}

#[test]
fn every_file_says_what_it_is_for() {
    let undocumented = |source: &Source| {
        // The unit tests of a module beside it, and the entry points that name a fuzz target.
        if source.path.ends_with("/tests.rs") || source.path.contains("/fuzz_targets/") {
            return false;
        }
        let first = source
            .text
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with("#!"));
        !first.is_some_and(|line| line.starts_with("//! "))
    };
    let offences = sources(".rs").into_iter().filter(undocumented);
    let offences: Vec<String> = offences
        .map(|source| format!("{}: no module doc", source.path))
        .collect();
    assert_none(&offences);
}

#[test]
fn nothing_is_left_for_later() {
    let mut offences = Vec::new();
    for suffix in [".rs", ".md", ".toml", ".proto"] {
        offences.extend(places_with(&["TODO", "FIXME", "XXX", "#[ignore"], suffix));
    }
    offences.extend(places_with(&["todo!(", "unimplemented!(", "dbg!("], ".rs"));
    assert_none(&offences);
}

#[test]
fn no_file_knows_the_machine_that_it_was_written_on() {
    let mut offences = Vec::new();
    for suffix in [".rs", ".md", ".toml", ".proto"] {
        offences.extend(places_with(&["/work/", "/root/", "/home/"], suffix));
    }
    assert_none(&offences);
}

#[test]
fn comments_tell_no_history_and_draw_no_banners() {
    let mut offences = Vec::new();
    for source in sources(".rs")
        .iter()
        .filter(|source| source.path != "tests/tidy.rs")
    {
        for (number, line) in source.all() {
            let Some(comment) = line.trim_start().strip_prefix("//") else {
                continue;
            };
            let comment = comment.trim_start_matches(['/', '!', ' ']);
            let banner = ["====", "----", "####", "****"]
                .iter()
                .any(|art| comment.starts_with(art));
            let history = ["used to be", "previously", "for now"];
            let past = history.iter().any(|words| comment.contains(words));
            if banner || past {
                offences.push(format!("{}:{number}: {comment}", source.path));
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn names_are_those_of_the_field() {
    let mut offences = places_with(
        &["fn get_", "fn do_", "mod util", "mod common", "mod helper"],
        ".rs",
    );
    for source in sources(".rs")
        .iter()
        .filter(|source| source.path != "tests/tidy.rs")
    {
        for (number, line) in source.code() {
            let kinds = ["struct ", "enum ", "trait "];
            let named = kinds.iter().filter_map(|kind| line.split(kind).nth(1));
            let vague = |name: &str| {
                ["Manager", "Helper", "Util"]
                    .iter()
                    .any(|word| name.contains(word))
            };
            offences.extend(
                named
                    .filter(|name| vague(name))
                    .map(|name| format!("{}:{number}: {name}", source.path)),
            );
        }
    }
    assert_none(&offences);
}

#[test]
fn unsafe_code_stands_in_its_folder_alone() {
    let mut offences = Vec::new();
    for source in sources(".rs")
        .iter()
        .filter(|source| source.path != "tests/tidy.rs")
    {
        let allowed = UNSAFE_FOLDERS
            .iter()
            .any(|folder| source.path.starts_with(folder));
        for (number, line) in source.all() {
            let code = line.split("//").next().unwrap_or_default();
            let block = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
            if !allowed && block.iter().any(|form| code.contains(form)) {
                offences.push(format!("{}:{number}: unsafe code", source.path));
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn lints_are_suppressed_with_a_reason() {
    let mut offences = Vec::new();
    for source in sources(".rs")
        .iter()
        .filter(|source| source.path != "tests/tidy.rs")
    {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let line = line.trim_start();
            let suppresses = ["#[allow(", "#![allow(", "#[expect(", "#![expect("];
            if !suppresses.iter().any(|form| line.starts_with(form)) {
                continue;
            }
            let end = lines[index..].iter().position(|line| line.contains(")]"));
            let attribute = lines[index..].iter().take(end.unwrap_or(0) + 1);
            if !attribute.into_iter().any(|line| line.contains("reason = ")) {
                offences.push(format!("{}:{}: no reason", source.path, index + 1));
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn the_turn_core_depends_on_hashing_alone() {
    let manifest = fs::read_to_string(root().join("relay/turn/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap().keys();
    let offences = dependencies.filter(|name| !CORE_DEPENDENCIES.contains(&name.as_str()));
    let offences: Vec<String> = offences
        .map(|name| format!("relay/turn/Cargo.toml: {name}"))
        .collect();
    assert_none(&offences);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let page = fs::read_to_string(root().join("docs/decisions/0001-dependencies.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named: Vec<&str> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|names| names.split([',', ' ']))
        .collect();
    let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
    let offences: Vec<String> = dependencies
        .keys()
        .filter(|name| !name.starts_with("turnfleet-") && !named.contains(&name.as_str()))
        .map(|name| format!("docs/decisions/0001-dependencies.md: {name}"))
        .collect();
    assert_none(&offences);
}

#[test]
fn links_between_pages_lead_to_files() {
    let mut offences = Vec::new();
    for page in sources(".md") {
        let folder: PathBuf = root().join(&page.path).parent().unwrap().to_owned();
        for (number, line) in page.all() {
            for link in line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
            {
                let file = link.split('#').next().unwrap_or_default();
                let elsewhere = link.contains("://") || file.is_empty();
                if !elsewhere && !folder.join(file).exists() {
                    offences.push(format!("{}:{number}: {link}", page.path));
                }
            }
        }
    }
    assert_none(&offences);
}
