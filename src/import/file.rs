//! The configuration as a file: each key below the lines of coturn's file that it comes from.

use std::fmt::Write as _;
use std::path::Path;

use toml::Value;

use super::draft::{Draft, Key, Part};
use super::options::{self, Takes};
use super::report::shown;

/// Whether secrets are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    /// As they are.
    Shown,
    /// As dots.
    Hidden,
}

/// The whole file.
pub(super) fn text(draft: &Draft<'_>, source: &Path, secrets: Secrets) -> String {
    let mut text = format!(
        "# Made by `turnfleet import-coturn` from {}; `turnfleet up --config` reads it.\n\n\
         # One relay, as coturn is one server.\nrelays = 1\n\n\
         # Where a service keeps its state; without it, a folder of the user who runs it.\n\
         # state-dir = \"/var/lib/turnfleet\"\n",
        source.display()
    );
    let mut part = Part::Up;
    for key in &draft.keys {
        if key.part != part {
            part = key.part;
            text.push_str(match part {
                Part::Up => "",
                Part::Relay => "\n[relay]\n",
                Part::Controller => "\n[controller]\n",
            });
        }
        self::key(&mut text, key, secrets);
    }
    text
}

fn key(text: &mut String, key: &Key, secrets: Secrets) {
    text.push('\n');
    let mut has_secret = false;
    for setting in &key.from {
        let option = options::find(&setting.name);
        has_secret |= option.is_some_and(|option| option.takes == Takes::Secret);
        let _ = writeln!(text, "# line {}: {}", setting.line, shown(setting, option));
    }
    let is_path = key.name.ends_with("_file");
    let value = if has_secret && !is_path && secrets == Secrets::Hidden {
        let dots = Value::String("…".to_owned());
        if key.value.is_array() {
            Value::Array(vec![dots])
        } else {
            dots
        }
    } else {
        key.value.clone()
    };
    if let Value::Array(list) = &value
        && list.len() > 2
    {
        let _ = writeln!(text, "{} = [", key.name);
        for entry in list {
            let _ = writeln!(text, "    {entry},");
        }
        text.push_str("]\n");
    } else {
        let _ = writeln!(text, "{} = {value}", key.name);
    }
}
