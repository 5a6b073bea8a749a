//! The four layers of `core`: imports go downward only.

use std::collections::BTreeMap;

use crate::source::{code_lines, is_test_file, without_tests};
use crate::tree::{files, report};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Data,
    Logic,
    Traits,
    Drivers,
}

const DATA: &[&str] = &[
    "bucket",
    "checkpoint",
    "checksum",
    "chunk",
    "error",
    "identity",
    "json",
    "local_transaction",
    "lookup_change",
    "operation",
    "shared_pool",
    "sorted_list",
    "suggestion",
    "table",
    "time",
    "value",
    "value_options",
    "write_checkpoint",
];
const LOGIC: &[&str] = &["config", "protocol", "jwt"];
const TRAITS: &[&str] = &["bucket_store", "client_store", "clock", "conflict", "connector", "source", "transport"];
/// These hold logic and the drivers that obey it, side by side.
const MIXED: &[&str] = &["client", "server", "replication"];
/// The logic in them: pure, sans-IO. Anything else there is a driver.
const PURE: &[&str] = &[
    "client::connection",
    "client::credentials",
    "client::download",
    "client::event",
    "client::options",
    "client::reconnect",
    "client::session",
    "client::status",
    "client::subscription",
    "client::upload",
    "replication::progress",
    "replication::row_image",
    "replication::status",
    "server::event",
    "server::interest",
    "server::session",
    "server::shared_bucket",
    "server::standing",
    "server::tracked_bucket",
    "server::tracked_buckets",
    "server::wanted",
];
/// Logic may use the data that a trait's module defines, never a trait. `conflict` is pure.
const TRAIT_NAMES: &[&str] =
    &["BucketStore", "ClientStore", "Clock", "SystemClock", "Connector", "Source", "Transport", "LineStream"];

/// The layer of a module path such as `client::session`; `None` if nobody said.
fn layer(module: &[&str]) -> Option<Layer> {
    let top = *module.first()?;
    if DATA.contains(&top) {
        return Some(Layer::Data);
    }
    if LOGIC.contains(&top) {
        return Some(Layer::Logic);
    }
    if TRAITS.contains(&top) {
        return Some(Layer::Traits);
    }
    if MIXED.contains(&top) {
        let file = module.iter().take(2).copied().collect::<Vec<_>>().join("::");
        return Some(if PURE.contains(&file.as_str()) { Layer::Logic } else { Layer::Drivers });
    }
    // Whatever else there is drives the logic: memory, testing, replicator, service.
    Some(Layer::Drivers)
}

/// `core/src/client/session.rs` is `client::session`; `core/src/client/mod.rs` is `client::mod`.
fn module_of(path: &str) -> Vec<&str> {
    path.trim_start_matches("core/src/").trim_end_matches(".rs").split('/').collect()
}

/// The text of each `use` declaration, without `use` and `;`, with the number of its first line.
fn declarations(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in code_lines(text) {
        let line = line.trim();
        let start = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .find_map(|prefix| line.strip_prefix(prefix));
        match (&mut open, start) {
            (None, Some(rest)) => open = Some((number, rest.to_owned())),
            (Some((_, sum)), _) => sum.push_str(line),
            (None, None) => continue,
        }
        if line.ends_with(';')
            && let Some((number, sum)) = open.take()
        {
            found.push((number, sum.trim_end_matches(';').to_owned()));
        }
    }
    found
}

/// `a::{b, c::{d, e as f}}` becomes `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    if let Some((head, rest)) = tree.split_once('{') {
        let inner = rest.strip_suffix('}').unwrap_or(rest);
        let (mut depth, mut start) = (0_usize, 0);
        let prefix = format!("{prefix}{head}");
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    expand(&inner[start..at], &prefix, paths);
                    start = at + 1;
                }
                _ => {}
            }
        }
        expand(&inner[start..], &prefix, paths);
    } else if !tree.is_empty() {
        let name = tree.split(" as ").next().unwrap_or(tree);
        paths.push(format!("{prefix}{name}"));
    }
}

/// Which module a name that `lib.rs` re-exports comes from.
fn exports(lib: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for (_, tree) in declarations(lib) {
        let mut paths = Vec::new();
        expand(&tree, "", &mut paths);
        for path in paths {
            let parts: Vec<String> = path.split("::").map(str::to_owned).collect();
            if let Some((name, module)) = parts.split_last() {
                found.insert(name.clone(), module.to_vec());
            }
        }
    }
    found
}

/// An import, made absolute: module path below `crate`, and the name at its end.
fn resolve(path: &str, from: &[&str], exports: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
    // A module's own path: `client::mod` is `client`.
    let mut base: Vec<String> = from.iter().filter(|part| **part != "mod").map(|part| (*part).to_owned()).collect();
    match parts.first().map(String::as_str) {
        Some("crate") => base.clear(),
        Some("self") => {}
        Some("super") => {
            base.pop();
        }
        _ => return None,
    }
    parts.remove(0);
    while parts.first().is_some_and(|part| part == "super") {
        base.pop();
        parts.remove(0);
    }
    base.extend(parts);
    // `crate::Value::Null` is `value::Value`, as lib.rs re-exports it.
    if let Some(name) = base.first()
        && let Some(module) = exports.get(name)
    {
        base = module.iter().cloned().chain([name.clone()]).collect();
    }
    Some(base)
}

fn complaints_about(path: &str, text: &str, exports: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let from = module_of(path);
    let Some(own) = layer(&from) else { return Vec::new() };
    let mut complaints = Vec::new();
    let text = without_tests(text);
    let mut paths: Vec<(usize, String)> = Vec::new();
    for (number, tree) in declarations(text) {
        let mut expanded = Vec::new();
        expand(&tree, "", &mut expanded);
        paths.extend(expanded.into_iter().map(|path| (number, path)));
    }
    for (number, line) in code_lines(text) {
        let line = line.trim_start();
        if line.starts_with("use ") || line.starts_with("pub use ") || line.starts_with("pub(") {
            continue;
        }
        for (at, _) in line.match_indices("crate::") {
            // `$crate::` is a macro's; `pub(in crate::…)` names no import.
            if line[..at].ends_with('$') || line[..at].ends_with("in ") {
                continue;
            }
            let end = line[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            let path = end.map_or(&line[at..], |end| &line[at..at + end]);
            paths.push((number, path.trim_end_matches(':').to_owned()));
        }
    }
    for (number, import) in paths {
        let Some(target) = resolve(&import, &from, exports) else { continue };
        let parts: Vec<&str> = target.iter().map(String::as_str).collect();
        let Some(theirs) = layer(&parts) else { continue };
        let last = parts.last().copied().unwrap_or_default();
        let uses_data_of_a_trait = own == Layer::Logic && theirs == Layer::Traits && !TRAIT_NAMES.contains(&last);
        if theirs > own && !uses_data_of_a_trait {
            complaints.push(format!("{path}:{number}: {own:?} imports {theirs:?}: {import}"));
        }
    }
    complaints
}

#[test]
fn core_imports_only_downward() {
    let lib = std::fs::read_to_string(crate::tree::root().join("core/src/lib.rs")).unwrap();
    let exports = exports(&lib);
    assert!(exports.len() > 50, "only {} exports found: reading lib.rs is broken", exports.len());
    let mut complaints = Vec::new();
    for file in files("core/src", &[".rs"]) {
        if file.path != "core/src/lib.rs" && !is_test_file(&file.path) {
            complaints.extend(complaints_about(&file.path, &file.text, &exports));
        }
    }
    report(&complaints);
}

#[test]
fn an_upward_import_is_found() {
    let exports = exports("pub use bucket_store::{\n    AppendBatch, BucketStore,\n};\npub use checksum::Checksum;\n");
    let about = |path: &str, text: &str| complaints_about(path, text, &exports).len();
    assert_eq!(about("core/src/checksum.rs", "use crate::protocol::SyncRequest;\n"), 1);
    assert_eq!(about("core/src/checksum.rs", "use crate::{Checksum, BucketStore};\n"), 1);
    assert_eq!(about("core/src/checksum.rs", "fn f(x: crate::source::SourceEvent) {}\n"), 1);
    assert_eq!(about("core/src/protocol/line.rs", "use crate::{\n    AppendBatch,\n    Checksum,\n};\n"), 0);
    assert_eq!(about("core/src/protocol/line.rs", "use crate::bucket_store::{AppendBatch, BucketStore};\n"), 1);
    assert_eq!(about("core/src/client/session.rs", "use super::driver::SyncClient;\n"), 1);
    assert_eq!(about("core/src/client/session.rs", "use super::download::Download;\n"), 0);
    assert_eq!(about("core/src/client/session.rs", "fn f() -> crate::Checksum { crate::Checksum::ZERO }\n"), 0);
    assert_eq!(about("core/src/client/driver.rs", "use crate::bucket_store::BucketStore;\n"), 0);
    assert_eq!(about("core/src/value.rs", "#[cfg(test)]\nmod tests {\n    use crate::testing::World;\n}\n"), 0);
    assert_eq!(about("core/src/bucket_store.rs", "use crate::memory::MemoryBucketStore;\n"), 1);
}
