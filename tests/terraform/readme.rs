//! The tables of inputs and outputs in each module's README are those of its variables and outputs.
//!
//! `UPDATE_EXPECT=1 cargo test --test terraform readme` writes them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::workshop::{ROOT, configurations};

/// What stands before the tables; the rest of the page is made.
const MARK: &str = "<!-- The rest of this page is made by `UPDATE_EXPECT=1 cargo test --test terraform readme`. -->\n";

/// A `variable` or `output` block, as `terraform fmt` lays it out.
struct Block {
    name: String,
    description: String,
    default: Option<String>,
}

/// The blocks of `kind` in `text`.
fn blocks(kind: &str, text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let head = format!("{kind} \"");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix(&head) {
            found.push(Block {
                name: rest.split('"').next().unwrap().to_owned(),
                description: String::new(),
                default: None,
            });
        }
        let Some(block) = found.last_mut() else {
            continue;
        };
        // Two blanks: a member of the block itself, and none of a block within it.
        let member = line
            .strip_prefix("  ")
            .filter(|member| !member.starts_with(' '));
        let Some((key, value)) = member.and_then(|member| member.split_once(" = ")) else {
            continue;
        };
        match key.trim() {
            "description" if block.description.is_empty() => {
                block.description = value.trim().trim_matches('"').replace("\\\"", "\"");
            }
            "default" => {
                let value = value.trim();
                let opens = value.ends_with(['[', '{']);
                block.default = Some(if opens {
                    "see `variables.tf`".to_owned()
                } else {
                    format!("`{value}`")
                });
            }
            _ => {}
        }
    }
    found
}

fn tables(folder: &Path) -> String {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let mut text =
        String::from("\n## Inputs\n\n| name | default | what it is |\n| --- | --- | --- |\n");
    for block in blocks("variable", &read("variables.tf")) {
        let default = block.default.as_deref().unwrap_or("required");
        let description = block.description.replace('|', "\\|");
        writeln!(text, "| `{}` | {default} | {description} |", block.name).unwrap();
    }
    text.push_str("\n## Outputs\n\n| name | what it is |\n| --- | --- |\n");
    for block in blocks("output", &read("outputs.tf")) {
        writeln!(text, "| `{}` | {} |", block.name, block.description).unwrap();
    }
    text
}

#[test]
fn readmes_have_every_input_and_output() {
    for name in configurations() {
        let folder = Path::new(ROOT).join("terraform").join(&name);
        let page = folder.join("README.md");
        let there = fs::read_to_string(&page).unwrap_or_default();
        let (said, _) = there
            .split_once(MARK)
            .unwrap_or_else(|| panic!("terraform/{name}/README.md has no line {MARK}"));
        let made = format!("{said}{MARK}{}", tables(&folder));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&page, &made).unwrap();
        }
        assert!(
            fs::read_to_string(&page).unwrap() == made,
            "terraform/{name}/README.md is out of date; UPDATE_EXPECT=1 cargo test --test terraform readme writes it"
        );
    }
}

#[test]
fn every_input_and_output_says_what_it_is() {
    for name in configurations() {
        let folder = Path::new(ROOT).join("terraform").join(&name);
        for (kind, file) in [("variable", "variables.tf"), ("output", "outputs.tf")] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            let found = blocks(kind, &text);
            assert!(!found.is_empty(), "{name}/{file}");
            for block in found {
                assert!(
                    block.description.ends_with('.'),
                    "{name}/{file}: {}",
                    block.name
                );
            }
        }
    }
}
