//! The arrows between the crates: who may know whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every crate and the crates it may depend on.
const ALLOWED: [(&str, &str, &[&str]); 5] = [
    ("cache", "spdflow-cache", &[]),
    ("engine", "spdflow-engine", &["spdflow-cache"]),
    ("engine/cli", "spdflow", &["spdflow-engine", "spdflow-stages"]),
    ("stages", "spdflow-stages", &["spdflow-engine", "spdflow-kernels"]),
    ("stages/kernels", "spdflow-kernels", &[]),
];

fn manifest(folder: &str) -> toml::Table {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the crates of this repository that a manifest names in any table of dependencies.
fn own_dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let of_target = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
    let sections = of_target.filter_map(toml::Value::as_table).chain([manifest]);
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    sections
        .flat_map(|section| kinds.into_iter().filter_map(|kind| section.get(kind)?.as_table()))
        .flat_map(toml::Table::keys)
        .filter(|name| name.starts_with("spdflow"))
        .cloned()
        .collect()
}

#[test]
fn crates_depend_only_along_the_allowed_arrows() {
    for (folder, name, allowed) in ALLOWED {
        let manifest = manifest(folder);
        assert_eq!(manifest["package"]["name"].as_str(), Some(name));
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let forbidden: Vec<_> = own_dependencies(&manifest).difference(&allowed).cloned().collect();
        assert!(forbidden.is_empty(), "{name} may not depend on {forbidden:?}");
    }
}

#[test]
fn every_member_of_the_workspace_is_in_the_table() {
    let root = manifest("");
    let members = root["workspace"]["members"].as_array().expect("a list of members");
    let members: BTreeSet<_> = members.iter().filter_map(toml::Value::as_str).collect();
    let listed: BTreeMap<_, _> = ALLOWED.iter().map(|(folder, name, _)| (*folder, *name)).collect();
    assert_eq!(members, listed.keys().copied().collect());
}
