//! A view of a JSON schema: which keys a configuration has, of which type each is, what it means and what it is by default.

use schemars::JsonSchema;
use serde_json::Value as Json;

/// The JSON schema of a raw configuration.
#[derive(Debug)]
pub(crate) struct Schema(Json);

impl Schema {
    /// The schema of `R`.
    pub(crate) fn of<R: JsonSchema>() -> Self {
        Self(schemars::schema_for!(R).to_value())
    }

    /// The schema itself.
    pub(crate) fn into_document(self) -> Json {
        self.0
    }

    /// The whole table.
    pub(crate) fn root(&self) -> Node<'_> {
        Node {
            document: &self.0,
            outer: &self.0,
        }
    }
}

/// One place in a schema: the whole table, a key, or an item of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'s> {
    document: &'s Json,
    /// Holds the description and default; the type may stand behind a reference.
    outer: &'s Json,
}

/// What may be written at a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// A string.
    Text,
    /// An array.
    List,
    /// A table.
    Table,
}

impl<'s> Node<'s> {
    /// The shapes that may be written here, "nothing" apart.
    pub(crate) fn shapes(self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for alternative in self.alternatives() {
            let Some(types) = alternative.outer.get("type") else {
                continue;
            };
            let types = types
                .as_array()
                .map_or_else(|| vec![types], |list| list.iter().collect());
            for shape in types
                .into_iter()
                .filter_map(Json::as_str)
                .filter_map(shape_named)
            {
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
        }
        shapes
    }

    /// The keys of a table, in the order of their declaration where the schema keeps it.
    pub(crate) fn properties(self) -> Vec<(&'s str, Self)> {
        let alternatives = self.alternatives().into_iter();
        let tables = alternatives.filter_map(|node| node.outer.get("properties")?.as_object());
        tables
            .flatten()
            .map(|(key, outer)| (key.as_str(), Self { outer, ..self }))
            .collect()
    }

    /// The key `name` of a table.
    pub(crate) fn property(self, name: &str) -> Option<Self> {
        self.properties()
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, node)| node)
    }

    /// The keys without which a table is not complete.
    pub(crate) fn required(self) -> Vec<&'s str> {
        let alternatives = self.alternatives().into_iter();
        let lists = alternatives.filter_map(|node| node.outer.get("required")?.as_array());
        lists.flatten().filter_map(Json::as_str).collect()
    }

    /// The items of a list.
    pub(crate) fn items(self) -> Option<Self> {
        let mut alternatives = self.alternatives().into_iter();
        alternatives.find_map(|node| {
            Some(Self {
                outer: node.outer.get("items")?,
                ..self
            })
        })
    }

    /// The only texts that may be written here, or nothing where any may.
    pub(crate) fn choices(self) -> Vec<&'s str> {
        let alternatives = self.alternatives().into_iter();
        alternatives
            .flat_map(|node| {
                let listed = node.outer.get("enum").and_then(Json::as_array);
                listed.into_iter().flatten().chain(node.outer.get("const"))
            })
            .filter_map(Json::as_str)
            .collect()
    }

    /// The doc comment of the key.
    pub(crate) fn description(self) -> Option<&'s str> {
        self.outer.get("description")?.as_str()
    }

    /// The doc comment of the type behind the key, for tables that are described there.
    pub(crate) fn type_description(self) -> Option<&'s str> {
        self.alternatives().into_iter().find_map(Self::description)
    }

    /// The value of a key that is not written.
    pub(crate) fn default(self) -> Option<&'s Json> {
        self.outer.get("default").filter(|value| !value.is_null())
    }

    /// What is expected here, in words.
    pub(crate) fn expected(self) -> String {
        let choices = self.choices();
        if !choices.is_empty() {
            return format!("one of {}", choices.join(", "));
        }
        let words: Vec<String> = self
            .shapes()
            .into_iter()
            .map(|shape| self.in_words(shape))
            .collect();
        if words.is_empty() {
            "a value".to_owned()
        } else {
            words.join(" or ")
        }
    }

    fn in_words(self, shape: Shape) -> String {
        match shape {
            Shape::Boolean => "true or false".to_owned(),
            Shape::Integer => match (self.bound("minimum"), self.bound("maximum")) {
                (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
                (Some(least), None) => format!("a whole number, {least} or more"),
                (None, _) => "a whole number".to_owned(),
            },
            Shape::Number => "a number".to_owned(),
            Shape::Text => "a text".to_owned(),
            Shape::Table => "a table".to_owned(),
            Shape::List => match self.items() {
                Some(item) if item.shapes() == [Shape::Table] => "a list of tables".to_owned(),
                Some(item) if item.choices().is_empty() && item.shapes() == [Shape::Text] => {
                    "a list of texts".to_owned()
                }
                Some(item) => format!("a list, each item {}", item.expected()),
                None => "a list".to_owned(),
            },
        }
    }

    /// Whether a whole number lies within the bounds of the type.
    pub(crate) fn in_bounds(self, number: i64) -> bool {
        self.bound("minimum").is_none_or(|least| number >= least)
            && self.bound("maximum").is_none_or(|most| number <= most)
    }

    fn bound(self, name: &str) -> Option<i64> {
        self.alternatives()
            .into_iter()
            .find_map(|node| node.outer.get(name)?.as_i64())
    }

    /// The node itself and whatever its references and alternatives lead to.
    fn alternatives(self) -> Vec<Self> {
        let mut found = vec![self];
        let mut next = 0;
        while let Some(node) = found.get(next).copied() {
            next += 1;
            let target = node.outer.get("$ref").and_then(Json::as_str);
            let target = target.and_then(|path| self.document.pointer(path.strip_prefix('#')?));
            let one_of = ["anyOf", "oneOf", "allOf"];
            let several = one_of
                .iter()
                .filter_map(|name| node.outer.get(name)?.as_array())
                .flatten();
            for outer in target.into_iter().chain(several) {
                found.push(Self { outer, ..self });
            }
        }
        found
    }
}

fn shape_named(name: &str) -> Option<Shape> {
    match name {
        "boolean" => Some(Shape::Boolean),
        "integer" => Some(Shape::Integer),
        "number" => Some(Shape::Number),
        "string" => Some(Shape::Text),
        "array" => Some(Shape::List),
        "object" => Some(Shape::Table),
        _ => None,
    }
}
