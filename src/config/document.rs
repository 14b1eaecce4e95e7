//! JSON schemas of the configuration files, for editors: `docs/schemas` holds what this module makes.

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};

use super::{Configuration as _, Schema};
use crate::up::Flags;

/// Whose configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Configured {
    /// `turnfleet relay --config`
    Relay,
    /// `turnfleet controller --config`
    Controller,
    /// `turnfleet up --config`
    Up,
}

/// Where schemas keep the types that they refer to.
const TYPES: &str = "$defs";
const REFERENCE: &str = "$ref";

/// The schema as a file.
pub(crate) fn text(of: Configured) -> String {
    let (name, mut schema) = match of {
        Configured::Relay => ("relay", relay()),
        Configured::Controller => ("controller", controller()),
        Configured::Up => ("up", up()),
    };
    schema["title"] = json!(format!("The configuration of `turnfleet {name}`"));
    format!("{schema:#}\n")
}

fn relay() -> Json {
    turnfleet_relay::config::Config::schema().into_document()
}

fn controller() -> Json {
    turnfleet_controller::config::Config::schema().into_document()
}

/// The flags, with the keys of the relays and of the controller in their tables.
fn up() -> Json {
    let mut schema = Schema::of::<Flags>().into_document();
    for (part, inner) in [("relay", relay()), ("controller", controller())] {
        let description = schema["properties"][part]["description"].take();
        let (table, types) = within(part, inner);
        schema["properties"][part] = table;
        schema["properties"][part]["description"] = description;
        if !schema[TYPES].is_object() {
            schema[TYPES] = Json::Object(Map::new());
        }
        for (name, of) in types {
            schema[TYPES][name] = of;
        }
    }
    schema
}

/// A schema as part of another one: the types get names that no other part has, and no key has to be there.
fn within(part: &str, mut schema: Json) -> (Json, Map<String, Json>) {
    refer_to(part, &mut schema);
    let mut types = Map::new();
    if let Json::Object(keys) = &mut schema {
        for key in ["$schema", "title", "required"] {
            keys.remove(key);
        }
        if let Some(Json::Object(named)) = keys.remove(TYPES) {
            types = named;
        }
    }
    let types = types.into_iter();
    let types = types.map(|(name, of)| (format!("{part}.{name}"), of));
    (schema, types.collect())
}

/// Puts `part` before the names of the types that are referred to.
fn refer_to(part: &str, schema: &mut Json) {
    match schema {
        Json::Object(keys) => {
            for (key, value) in keys {
                if key == REFERENCE
                    && let Json::String(target) = value
                {
                    let prefix = format!("#/{TYPES}/");
                    if let Some(name) = target.strip_prefix(&prefix) {
                        *target = format!("{prefix}{part}.{name}");
                    }
                } else {
                    refer_to(part, value);
                }
            }
        }
        Json::Array(items) => {
            for item in items {
                refer_to(part, item);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}
