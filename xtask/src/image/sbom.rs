//! The bill of materials of the command: a CycloneDX document of the crates that are in it, made of `cargo metadata` and the lock
//! file. The same sources give the same document.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value as Json, json};

use crate::process::{capture, cargo, root};

/// The system that images are for.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The document.
///
/// # Errors
/// When cargo does not tell what the command is made of.
pub(super) fn make() -> Result<Json> {
    let told = capture(cargo().args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        PLATFORM,
    ]))?;
    let told: Json = serde_json::from_str(&told)?;
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    document(&told, &checksums(&lock)).context("cargo metadata has no package turnfleet")
}

/// The SHA-256 of each package's archive, by name and version, as the lock file has them.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let text = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key));
        line.map(|line| line.trim_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]");
    let entries = blocks.filter_map(|block| {
        let place = (text(block, "name = ")?, text(block, "version = ")?);
        Some((place, text(block, "checksum = ")?))
    });
    entries.collect()
}

fn document(told: &Json, checksums: &BTreeMap<(String, String), String>) -> Option<Json> {
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Json> = list(&told["packages"])
        .into_iter()
        .filter_map(|package| Some((package["id"].as_str()?.to_owned(), package)))
        .collect();
    // What each is linked with: not what builds or tests it.
    let needs: BTreeMap<String, Vec<String>> = list(&told["resolve"]["nodes"])
        .into_iter()
        .filter_map(|node| {
            let linked = |it: &Json| {
                list(&it["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            };
            let needed = list(&node["deps"]).into_iter().filter(linked);
            let needed = needed.filter_map(|it| Some(it["pkg"].as_str()?.to_owned()));
            Some((node["id"].as_str()?.to_owned(), needed.collect()))
        })
        .collect();
    let is_it = |(_, package): &(&String, &Json)| package["name"] == "turnfleet";
    let (top, _) = packages.iter().find(is_it)?;
    let (mut inside, mut waiting) = (BTreeSet::new(), vec![top.clone()]);
    while let Some(id) = waiting.pop() {
        if inside.insert(id.clone()) {
            waiting.extend(needs.get(&id).into_iter().flatten().cloned());
        }
    }
    let url = |id: &String| {
        let package = packages.get(id)?;
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        Some(format!("pkg:cargo/{name}@{version}"))
    };
    let component = |id: &String| {
        let (package, url) = (packages.get(id)?, url(id)?);
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        let kind = if id == top { "application" } else { "library" };
        let mut component =
            json!({ "type": kind, "bom-ref": url, "name": name, "version": version, "purl": url });
        if let Some(licence) = package["license"].as_str() {
            // Some still write a slash, which SPDX does not know.
            let licence = licence.replace('/', " OR ").replace("  ", " ");
            component["licenses"] = json!([{ "expression": licence }]);
        }
        if let Some(sum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        Some(component)
    };
    let dependencies = inside.iter().filter_map(|id| {
        let needed: BTreeSet<String> = needs.get(id)?.iter().filter_map(url).collect();
        Some(json!({ "ref": url(id)?, "dependsOn": needed }))
    });
    let libraries = inside.iter().filter(|id| *id != top).filter_map(component);
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(top)? },
        "components": libraries.collect::<Vec<Json>>(),
        "dependencies": dependencies.collect::<Vec<Json>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_what_the_command_is_linked_with_and_nothing_else() {
        let package = |name: &str, licence: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": licence });
        let dep = |name: &str, kind: Json| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let told = json!({
            "packages": [package("turnfleet", "MIT"), package("a", "MIT/Apache-2.0"), package("b", "ISC"), package("builder", "MIT")],
            "resolve": { "nodes": [
                { "id": "turnfleet", "deps": [dep("a", Json::Null), dep("builder", json!("build"))] },
                { "id": "a", "deps": [dep("b", Json::Null), dep("turnfleet", json!("dev"))] },
                { "id": "b", "deps": [dep("a", Json::Null)] },
                { "id": "builder", "deps": [] },
            ] },
        });
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n\n[[package]]\nname = \"b\"\n";
        let made = document(&told, &checksums(lock)).unwrap();
        let components = made["components"].as_array().unwrap();
        let urls: Vec<&str> = components
            .iter()
            .map(|it| it["purl"].as_str().unwrap())
            .collect();
        assert_eq!(urls, ["pkg:cargo/a@1.0.0", "pkg:cargo/b@1.0.0"]);
        assert_eq!(
            components[0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(components[0]["hashes"][0]["content"], "abc");
        assert_eq!(
            made["metadata"]["component"]["purl"],
            "pkg:cargo/turnfleet@1.0.0"
        );
        assert_eq!(made["dependencies"].as_array().unwrap().len(), 3);
    }
}
