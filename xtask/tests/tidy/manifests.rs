//! Cargo manifests: one place for versions, and an allow-list for `core`.

use crate::tree::{files, report};

/// What `core` may depend on. A new name needs a decision, since every application gets it.
const CORE_DEPENDENCIES: &[&str] = &[
    "async-trait",
    "base64",
    "bytes",
    "bytestring",
    "futures",
    "futures-timer",
    "jsonwebtoken",
    "postcard",
    "proptest",
    "saphyr-parser",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "tracing",
    "uuid",
];

/// Adapters depend on `core`, never on each other; tests may compose them.
const ADAPTERS: &[&str] =
    &["syncline-storage-sqlite", "syncline-source-postgres", "syncline-transport-http", "syncline-transport-ws"];

/// The lines of a manifest's dependency tables: table, line.
fn dependencies(manifest: &str) -> Vec<(String, &str)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
        } else if table.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            found.push((table.clone(), line));
        }
    }
    found
}

fn name_of(dependency: &str) -> &str {
    dependency.split(['.', ' ', '=']).next().unwrap_or_default()
}

#[test]
fn core_has_no_dependency_that_nobody_decided() {
    let manifest = std::fs::read_to_string(crate::tree::root().join("core/Cargo.toml")).unwrap();
    let complaints: Vec<String> = dependencies(&manifest)
        .into_iter()
        .filter(|(table, line)| table != "dev-dependencies" && !CORE_DEPENDENCIES.contains(&name_of(line)))
        .map(|(_, line)| format!("core/Cargo.toml: `{}` is not on the list in xtask/tests/tidy", name_of(line)))
        .collect();
    report(&complaints);
}

#[test]
fn versions_stand_in_the_workspace_table_alone() {
    let mut complaints = Vec::new();
    for file in files("", &["Cargo.toml"]) {
        if file.path == "Cargo.toml" || file.path.starts_with("fuzz/") {
            continue;
        }
        for (_, line) in dependencies(&file.text) {
            if !line.contains("workspace = true") {
                complaints.push(format!("{}: `{line}` should take its version from the workspace", file.path));
            }
        }
        for wanted in ["version", "edition", "rust-version", "license"] {
            if !file.text.contains(&format!("\n{wanted}.workspace = true")) {
                complaints.push(format!("{}: `{wanted}` should come from the workspace", file.path));
            }
        }
        if !file.text.contains("[lints]\nworkspace = true") {
            complaints.push(format!("{}: lints should come from the workspace", file.path));
        }
    }
    report(&complaints);
}

#[test]
fn dependencies_come_from_the_registry() {
    let mut complaints = Vec::new();
    for file in files("", &["Cargo.toml"]) {
        for (_, line) in dependencies(&file.text) {
            if line.contains("git =") || line.contains("git=") {
                complaints.push(format!("{}: `{line}` cannot be published", file.path));
            }
        }
    }
    report(&complaints);
}

#[test]
fn adapters_do_not_depend_on_each_other() {
    let mut complaints = Vec::new();
    for file in files("", &["Cargo.toml"]) {
        let own = ADAPTERS.iter().find(|name| file.text.contains(&format!("\nname = \"{name}\"")));
        let core = file.path == "core/Cargo.toml";
        if own.is_none() && !core {
            continue;
        }
        for (table, line) in dependencies(&file.text) {
            if table != "dev-dependencies" && ADAPTERS.contains(&name_of(line)) {
                complaints.push(format!("{}: {line}", file.path));
            }
        }
    }
    report(&complaints);
}
