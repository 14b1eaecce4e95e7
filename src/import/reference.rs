//! The table of coturn's options as a page: `docs/coturn-options.md`.

use std::fmt::Write as _;

use super::options::{GROUPS, Takes};

const INTRODUCTION: &str = "\
# Coturn's options

<!-- Printed by `turnfleet import-coturn --options`; a test compares. -->

What becomes of each option of coturn in `turnfleet import-coturn`, which writes a file for `turnfleet up --config`. The options are
those of coturn 4.6.1, as Debian has it, with older and later names. The [guide](guides/from-coturn.md) goes through the whole way.

- *translated*: to the keys that are named. Those with `relay.` and `controller.` stand in the tables `[relay]` and `[controller]`.
- *default here*: it is so without being said.
- *not needed*: it means nothing here, and nobody misses it.
- *no equivalent*: it is not to be had; the last column says why, or what comes nearest.

A value may make the difference: the command tells it for each line.
";

/// The whole page.
pub(super) fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (title, options) in &GROUPS {
        let _ = write!(
            page,
            "\n## {title}\n\n| Option | Becomes | |\n| --- | --- | --- |\n"
        );
        for option in *options {
            let others = option
                .others
                .iter()
                .map(|name| format!(", `{}`", dashed(name)));
            let value = match option.takes {
                Takes::Nothing => "",
                Takes::Text | Takes::Secret => "=…",
                Takes::Perhaps => "[=…]",
            };
            let verdict = option.verdict.kind().name();
            let becomes = if option.keys.is_empty() {
                verdict.to_owned()
            } else {
                let keys = option.keys.iter().map(|key| format!("`{key}`"));
                format!("{verdict}: {}", keys.collect::<Vec<_>>().join(", "))
            };
            let _ = writeln!(
                page,
                "| `{}{value}`{} | {becomes} | {} |",
                option.name,
                others.collect::<String>(),
                option.why
            );
        }
    }
    page
}

/// The spelling on the command line of a name that is one letter.
fn dashed(name: &str) -> String {
    if name.len() == 1 {
        format!("-{name}")
    } else {
        name.to_owned()
    }
}
