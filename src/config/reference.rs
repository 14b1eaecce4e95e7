//! The reference of all configuration keys, as Markdown, from the schemas.

use std::fmt::Write as _;

use super::Configuration;
use super::schema::{Node, Schema, Shape};
use crate::up::Flags;

/// The whole reference; `docs/configuration.md` holds this text.
pub(crate) fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    section::<turnfleet_relay::config::Config>(&mut page);
    section::<turnfleet_controller::config::Config>(&mut page);
    page.push_str(UP);
    table(&mut page, Schema::of::<Flags>().root(), "");
    page
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Printed by `turnfleet config-reference`; a test compares. -->

`turnfleet relay` and `turnfleet controller` read, each over the one before:

1. the TOML file of `--config`,
2. the environment: `TURNFLEET_RELAY__` or `TURNFLEET_CONTROLLER__`, then the key in capitals with `__` for each dot, such as
   `TURNFLEET_RELAY__CONTROLLER__CA=/etc/turnfleet/ca.pem`,
3. `--set key=value`.

From the environment and `--set`, a list is written with commas, or as TOML: `[\"a\", \"b\"]`. `turnfleet check-config` in front of
`relay`, `controller` or `up` reads the same configuration and shows every error at once.

Whole files to begin with are in [examples](examples/README.md). JSON schemas for editors are in [schemas](schemas), and
`turnfleet config-schema` prints them: a file that begins with `#:schema FILE` is completed and checked while it is written, by Taplo
and Even Better TOML. Who comes from coturn finds each of its options in [coturn-options.md](coturn-options.md).
";

const UP: &str = "
## `turnfleet up`

The keys of the file that `turnfleet up --config` reads are the command's flags; a flag on the command line stands over the
file. The tables `[relay]` and `[controller]` hold keys of the two sections above, for every relay and for the controller, as
`--set relay.KEY=VALUE` and `--set controller.KEY=VALUE` do.

";

fn section<C: Configuration>(page: &mut String) {
    let _ = write!(page, "\n## `turnfleet {}`\n\n", C::NAME);
    table(page, C::schema().root(), "");
}

/// The keys of one table, then those of the tables within.
fn table(page: &mut String, node: Node<'_>, path: &str) {
    let properties = node.properties();
    let (tables, keys): (Vec<_>, Vec<_>) = properties
        .into_iter()
        .partition(|(_, node)| inner_table(*node).is_some());
    for (name, key) in keys {
        let _ = writeln!(page, "- `{path}{name}`: {}", key_line(key));
        for paragraph in key.description().unwrap_or_default().split("\n\n") {
            let _ = writeln!(
                page,
                "  {}",
                paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
            );
        }
    }
    for (name, key) in tables {
        let list = key.shapes().contains(&Shape::List);
        let heading = if list {
            format!("[[{path}{name}]]")
        } else {
            format!("[{path}{name}]")
        };
        let _ = write!(page, "\n### `{heading}`\n\n");
        if let Some(text) = key.description().or_else(|| key.type_description()) {
            let _ = write!(
                page,
                "{}\n\n",
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            );
        }
        if let Some(inner) = inner_table(key) {
            table(page, inner, &format!("{path}{name}."));
        }
    }
}

/// The table, or the table of each item, that a key holds.
fn inner_table(node: Node<'_>) -> Option<Node<'_>> {
    let table = if node.shapes().contains(&Shape::List) {
        node.items()?
    } else {
        node
    };
    (!table.properties().is_empty()).then_some(table)
}

fn key_line(node: Node<'_>) -> String {
    let mut line = node.expected();
    if let Some(default) = node.default() {
        let empty = default.as_array().is_some_and(Vec::is_empty) || default == "";
        if !empty {
            let _ = write!(line, ", by default `{default}`");
        }
    }
    line.push('.');
    line
}
