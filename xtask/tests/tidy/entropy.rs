//! No hidden entropy in `core`: what `core/clippy.toml` cannot see, and what is exempted from it.

use crate::source::{code_lines, is_test_file, without_tests};
use crate::tree::{files, report};

/// The only places that may know more than their arguments, with the lint that they are exempted from.
const EXEMPTED: &[(&str, &str)] = &[
    ("core/src/clock.rs", "disallowed_methods"),
    ("core/src/compaction.rs", "disallowed_types"),
    ("core/src/testing/bucket_store_suite/subscribing.rs", "disallowed_methods"),
    ("core/src/testing/deadline.rs", "disallowed_methods"),
];
/// Addresses, which are others in every process.
const ADDRESSES: &[&str] = &[":p}", "as *const", "as *mut", "ptr::from_ref(", ".addr()", "type_id()", "TypeId::of"];
/// Lists of what clippy must refuse, with an entry that must not get lost.
const REFUSED: &[(&str, &str)] = &[
    ("disallowed-methods", "std::time::Instant::now"),
    ("disallowed-methods", "futures_timer::Delay::new"),
    ("disallowed-methods", "uuid::Uuid::new_v4"),
    ("disallowed-types", "std::collections::HashMap"),
    ("disallowed-types", "std::collections::HashSet"),
    ("disallowed-types", "std::hash::RandomState"),
    ("disallowed-macros", "futures::select"),
];

/// Lines that mention an address or exempt themselves from a lint, the simulated world included.
fn complaints_about(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in code_lines(without_tests(text)) {
        for address in ADDRESSES.iter().filter(|address| line.contains(**address)) {
            complaints.push(format!("{path}:{number}: `{address}`: an address is another one in every process"));
        }
        for (at, _) in line.match_indices("clippy::disallowed_") {
            let lint = line[at + "clippy::".len()..].split([',', ')']).next().unwrap_or_default();
            if !EXEMPTED.contains(&(path, lint)) {
                complaints.push(format!("{path}:{number}: nothing here is exempted from `{lint}`"));
            }
        }
    }
    complaints
}

#[test]
fn core_has_no_hidden_entropy() {
    let files: Vec<_> = files("core/src", &[".rs"]).into_iter().filter(|file| !is_test_file(&file.path)).collect();
    let mut complaints: Vec<_> = files.iter().flat_map(|file| complaints_about(&file.path, &file.text)).collect();
    for (path, lint) in EXEMPTED {
        let used = files.iter().any(|file| file.path == *path && file.text.contains(&format!("clippy::{lint}")));
        if !used {
            complaints.push(format!("{path} is exempted from `{lint}`, and does not need it"));
        }
    }
    report(&complaints);
}

#[test]
fn clippy_refuses_entropy_in_core() {
    let text = std::fs::read_to_string(crate::tree::root().join("core/clippy.toml")).unwrap();
    let parsed: toml::Table = text.parse().unwrap();
    let mut complaints = Vec::new();
    for (list, path) in REFUSED {
        let entries = parsed.get(*list).and_then(toml::Value::as_array);
        let found =
            entries.into_iter().flatten().any(|entry| entry.get("path").and_then(toml::Value::as_str) == Some(path));
        if !found {
            complaints.push(format!("core/clippy.toml no longer lists `{path}` under `{list}`"));
        }
    }
    report(&complaints);
}

#[test]
fn an_address_and_an_exemption_are_found() {
    let about = |text: &str| complaints_about("core/src/time.rs", text).len();
    assert_eq!(about("let x = Arc::new(1);\n"), 0);
    assert_eq!(about("let x = format!(\"{y:p}\");\n"), 1);
    assert_eq!(about("let x = &y as *const u8 as usize;\n"), 1);
    assert_eq!(about("#[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = \"x\")]\n"), 2);
    assert_eq!(complaints_about("core/src/clock.rs", "#[allow(clippy::disallowed_methods)]\n").len(), 0);
}
