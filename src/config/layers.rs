//! Lays one source of keys over another and finds what does not fit the schema.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::schema::{Node, Schema, Shape};
use turnfleet_proto::{ConfigError, ConfigErrors};

/// The keys written so far, and what was wrong with them.
#[derive(Debug)]
pub(crate) struct Layers {
    schema: Schema,
    table: Table,
    problems: ConfigErrors,
}

impl Layers {
    /// No key written.
    pub(crate) fn new(schema: Schema) -> Self {
        Self {
            schema,
            table: Table::new(),
            problems: ConfigErrors::default(),
        }
    }

    /// Lays the keys of a TOML file over what is there.
    pub(crate) fn file(&mut self, path: &Path) {
        match read(path) {
            Ok(table) => self.table(table),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// Lays a table over what is there: tables are merged, everything else is replaced.
    pub(crate) fn table(&mut self, table: Table) {
        merge(&mut self.table, table);
    }

    /// Lays environment variables over what is there: behind `prefix` follows the key in capitals, `__` for each dot.
    pub(crate) fn environment(
        &mut self,
        prefix: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) {
        for (name, text) in variables {
            if let Some(key) = name.strip_prefix(prefix) {
                self.text(&key.to_lowercase().replace("__", "."), &text, &name);
            }
        }
    }

    /// Lays pairs of a dotted key and a text over what is there.
    pub(crate) fn sets(&mut self, pairs: &[(String, String)]) {
        for (key, text) in pairs {
            self.text(key, text, "--set");
        }
    }

    /// Writes one key from a text, which the schema tells how to read.
    fn text(&mut self, key: &str, text: &str, origin: &str) {
        let names: Vec<&str> = key.split('.').collect();
        let mut node = self.schema.root();
        for (depth, name) in names.iter().enumerate() {
            let Some(next) = node.property(name) else {
                let path = names[..=depth].join(".");
                self.problems.push(unknown(&path, name, node, Some(origin)));
                return;
            };
            node = next;
        }
        let Some(value) = parse(node, text) else {
            let key = format!("{key} (from {origin})");
            let problem = ConfigError::new(key, Some(text.to_owned()), node.expected());
            self.problems.push(problem);
            return;
        };
        insert(&mut self.table, key, value);
    }

    /// The keys as a TOML file.
    pub(crate) fn to_toml(&self) -> String {
        self.table.to_string()
    }

    /// The keys as `R`, and everything that was wrong. A key that does not fit is left out, so that the rest can be judged
    /// in the same run.
    pub(crate) fn finish<R: DeserializeOwned>(self) -> (Option<R>, ConfigErrors) {
        let Self {
            schema,
            mut table,
            mut problems,
        } = self;
        keep_what_fits(schema.root(), &mut table, "", &mut problems);
        match R::deserialize(Value::Table(table)) {
            Ok(raw) => (Some(raw), problems),
            Err(error) => {
                if problems.is_empty() {
                    problems.push(ConfigError::new("configuration", None, error.message()));
                }
                (None, problems)
            }
        }
    }
}

/// Reads a TOML file. Its text is never shown, since it may hold secrets.
pub(crate) fn read(path: &Path) -> Result<Table, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(&name, None, format!("a readable file: {error}")))?;
    text.parse::<Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        ConfigError::new(
            format!("{name}:{line}"),
            None,
            format!("TOML: {}", error.message()),
        )
    })
}

fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Writes a dotted key. What stands where a table is needed makes way for it.
pub(crate) fn insert(table: &mut Table, key: &str, value: Value) {
    let Some((name, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let mut inner = match table.remove(name) {
        Some(Value::Table(inner)) => inner,
        Some(_) | None => Table::new(),
    };
    insert(&mut inner, rest, value);
    table.insert(name.to_owned(), Value::Table(inner));
}

/// Reads `text` as what `node` expects. A list may be written as TOML or with commas.
fn parse(node: Node<'_>, text: &str) -> Option<Value> {
    let shapes = node.shapes();
    let toml = || format!("it = {text}").parse::<Table>().ok()?.remove("it");
    shapes.into_iter().find_map(|shape| match shape {
        Shape::Boolean => text.parse().ok().map(Value::Boolean),
        Shape::Integer => text.parse().ok().map(Value::Integer),
        Shape::Number => text.parse().ok().map(Value::Float),
        Shape::Text => Some(Value::String(text.to_owned())),
        Shape::Table => toml().filter(Value::is_table),
        Shape::List if text.trim_start().starts_with('[') => toml().filter(Value::is_array),
        Shape::List => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            items
                .map(|item| parse(node.items()?, item))
                .collect::<Option<_>>()
                .map(Value::Array)
        }
    })
}

/// Removes from `table` what the schema does not allow, and says so; returns whether the rest has every key that it needs.
fn keep_what_fits(
    node: Node<'_>,
    table: &mut Table,
    path: &str,
    problems: &mut ConfigErrors,
) -> bool {
    let path_of = |key: &str| match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    };
    let keys: Vec<String> = table.keys().cloned().collect();
    for key in keys {
        let path = path_of(&key);
        let Some(property) = node.property(&key) else {
            problems.push(unknown(&path, &key, node, None));
            table.remove(&key);
            continue;
        };
        let fits = table
            .get_mut(&key)
            .is_none_or(|value| fits(property, value, &path, problems));
        if !fits {
            table.remove(&key);
        }
    }
    let absent = |key: &&str| !table.contains_key(*key);
    let missing: Vec<&str> = node.required().into_iter().filter(absent).collect();
    for key in &missing {
        let expected = node.property(key).map_or_else(String::new, Node::expected);
        problems.add(ConfigError::new(path_of(key), None, expected));
    }
    missing.is_empty()
}

/// Whether `value` has one of the shapes of `node`, once parts of it that do not fit are removed.
fn fits(node: Node<'_>, value: &mut Value, path: &str, problems: &mut ConfigErrors) -> bool {
    let shapes = node.shapes();
    let fits = match value {
        Value::Boolean(_) => shapes.contains(&Shape::Boolean),
        Value::Integer(number) => {
            shapes.contains(&Shape::Number)
                || shapes.contains(&Shape::Integer) && node.in_bounds(*number)
        }
        Value::Float(_) => shapes.contains(&Shape::Number),
        Value::String(text) => {
            let choices = node.choices();
            shapes.contains(&Shape::Text)
                && (choices.is_empty() || choices.contains(&text.as_str()))
        }
        Value::Array(items) if shapes.contains(&Shape::List) => {
            let mut index = 0;
            items.retain_mut(|item| {
                let path = format!("{path}[{index}]");
                index += 1;
                node.items()
                    .is_none_or(|node| fits(node, item, &path, problems))
            });
            true
        }
        Value::Table(table) if shapes.contains(&Shape::Table) => {
            // A table without keys of its own is for others to judge.
            return node.properties().is_empty() || keep_what_fits(node, table, path, problems);
        }
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => false,
    };
    if !fits {
        problems.push(ConfigError::new(
            path,
            Some(value.to_string()),
            node.expected(),
        ));
    }
    fits
}

fn unknown(path: &str, name: &str, within: Node<'_>, origin: Option<&str>) -> ConfigError {
    let keys: Vec<&str> = within
        .properties()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let near = keys.iter().map(|key| (distance(name, key), *key)).min();
    let mut expected = "a known key".to_owned();
    match near {
        Some((distance, key)) if distance <= name.len().max(3) / 3 => {
            expected.push_str(&format!(" (did you mean {key}?)"));
        }
        Some(_) if keys.len() <= 12 => expected.push_str(&format!(": one of {}", keys.join(", "))),
        Some(_) | None => {}
    }
    let key = origin.map_or_else(
        || path.to_owned(),
        |origin| format!("{path} (from {origin})"),
    );
    ConfigError::new(key, None, expected)
}

/// How many insertions, deletions and replacements of characters make `b` of `a`.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Raw {
        shards: u16,
        name: Option<String>,
        shared_secret: Option<String>,
        hosts: Vec<String>,
        inner: Inner,
        listeners: Vec<Listener>,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        on: bool,
        limit: Option<u64>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Listener {
        transport: Transport,
        address: String,
    }

    #[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Transport {
        /// Datagrams.
        Udp,
        /// Streams.
        Tcp,
    }

    fn layers(toml: &str) -> Layers {
        let mut layers = Layers::new(Schema::of::<Raw>());
        layers.table(toml.parse().unwrap());
        layers
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[track_caller]
    fn assert_problems(layers: Layers, expected: &[&str]) {
        let (_, problems) = layers.finish::<Raw>();
        let found: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_later_layer_wins() {
        let mut layers = layers("shards = 1\nname = 'file'\n[inner]\non = true\nlimit = 1");
        let variables = [
            pair("R__NAME", "12"),
            pair("R__INNER__LIMIT", "2"),
            pair("OTHER", "x"),
        ];
        layers.environment("R__", variables.into_iter());
        layers.sets(&[pair("inner.limit", "3"), pair("hosts", "a, b")]);
        let (raw, problems) = layers.finish::<Raw>();
        assert_eq!(problems, ConfigErrors::default());
        let raw = raw.unwrap();
        assert_eq!((raw.shards, raw.name.as_deref()), (1, Some("12")));
        assert_eq!(
            raw.inner,
            Inner {
                on: true,
                limit: Some(3)
            }
        );
        assert_eq!(raw.hosts, ["a", "b"]);
    }

    #[test]
    fn a_list_of_tables_may_come_as_toml() {
        let mut layers = layers("");
        layers.sets(&[pair("listeners", "[{transport = 'udp', address = 'x'}]")]);
        let (raw, _) = layers.finish::<Raw>();
        let expected = Listener {
            transport: Transport::Udp,
            address: "x".to_owned(),
        };
        assert_eq!(raw.unwrap().listeners, [expected]);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut layers = layers(
            "shard = 1\nname = 5\nshards = 70000\nshared_secret = 7\n[inner]\non = 'yes'\n\
             [[listeners]]\ntransport = 'sctp'",
        );
        layers.sets(&[pair("shards", "many"), pair("inner.color", "1")]);
        assert_problems(
            layers,
            &[
                "shards (from --set) = many: expected a whole number from 0 to 65535",
                "inner.color (from --set): expected a known key: one of limit, on",
                "inner.on = \"yes\": expected true or false",
                "listeners[0].transport = \"sctp\": expected one of udp, tcp",
                "listeners[0].address: expected a text",
                "name = 5: expected a text",
                "shard: expected a known key (did you mean shards?)",
                "shards = 70000: expected a whole number from 0 to 65535",
                "shared_secret: expected a text",
            ],
        );
    }

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
