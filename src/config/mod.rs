//! Reads a configuration in layers: a TOML file, over it the environment, over it `--set key=value`.
//!
//! The keys, their types, defaults and descriptions stand once, in the raw struct of the crate that is configured; its JSON
//! schema tells this module which keys exist and what a text from the environment means. All problems are found before any
//! is reported. Owns no key of its own and opens nothing but the file.

pub(crate) mod document;
mod layers;
pub(crate) mod reference;
mod schema;

use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use turnfleet_proto::ConfigErrors;

pub(crate) use layers::{Layers, distance, insert, read};
use schema::Node;
pub(crate) use schema::Schema;

/// A configuration that can be read in layers.
pub(crate) trait Configuration: TryFrom<Self::Raw, Error = ConfigErrors> {
    /// The keys as they are written.
    type Raw: DeserializeOwned + JsonSchema;
    /// What is configured, as messages name it.
    const NAME: &'static str;
    /// What the names of environment variables begin with.
    const ENVIRONMENT: &'static str;

    /// The JSON schema of the keys.
    fn schema() -> Schema {
        Schema::of::<Self::Raw>()
    }
}

impl Configuration for turnfleet_relay::config::Config {
    type Raw = turnfleet_relay::config::RawConfig;
    const NAME: &'static str = "relay";
    const ENVIRONMENT: &'static str = "TURNFLEET_RELAY__";
}

impl Configuration for turnfleet_controller::config::Config {
    type Raw = turnfleet_controller::config::RawConfig;
    const NAME: &'static str = "controller";
    const ENVIRONMENT: &'static str = "TURNFLEET_CONTROLLER__";
}

/// Reads `file`, the process's environment and `sets`, each over the one before.
///
/// # Errors
/// With every problem at once.
pub(crate) fn load<C: Configuration>(
    file: Option<&Path>,
    sets: &[(String, String)],
) -> Result<C, ConfigErrors> {
    let mut layers = Layers::new(C::schema());
    if let Some(file) = file {
        layers.file(file);
    }
    let variables = std::env::vars_os();
    let variables = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    layers.environment(C::ENVIRONMENT, variables);
    layers.sets(sets);
    finish(layers)
}

/// The names of the variables of the environment that stand for single keys.
pub(crate) fn variables<C: Configuration>() -> Vec<String> {
    let schema = C::schema();
    let mut names = Vec::new();
    within(schema.root(), C::ENVIRONMENT, &mut names);
    names
}

fn within(table: Node<'_>, prefix: &str, names: &mut Vec<String>) {
    for (key, node) in table.properties() {
        let name = format!("{prefix}{}", key.to_uppercase());
        within(node, &format!("{name}__"), names);
        names.push(name);
    }
}

/// Reads what `layers` hold.
///
/// # Errors
/// With every problem at once, those of the layers included.
pub(crate) fn finish<C: Configuration>(layers: Layers) -> Result<C, ConfigErrors> {
    let (raw, mut problems) = layers.finish::<C::Raw>();
    match raw.map(C::try_from) {
        Some(Ok(config)) if problems.is_empty() => Ok(config),
        Some(Ok(_)) | None => Err(problems),
        Some(Err(more)) => {
            problems.append(more);
            Err(problems)
        }
    }
}
