//! Each obligation of a trait has a case in its conformance suite.

use std::fs;

use crate::source::code_lines;
use crate::tree::{files, report, root};

/// Traits with a conformance suite, if one has been written: module, trait.
const SUITES: &[(&str, &str)] = &[
    ("bucket_store", "BucketStore"),
    ("client_store", "ClientStore"),
    ("source", "Source"),
    ("transport", "Transport"),
];

/// The names of the methods that a trait declares.
fn methods<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let head = format!("pub trait {name}");
    let mut found = Vec::new();
    let mut inside = false;
    for (_, line) in code_lines(text) {
        if line.starts_with(&head) {
            inside = true;
        } else if inside && line.starts_with('}') {
            break;
        } else if inside {
            let declared = line.strip_prefix("    async fn ").or_else(|| line.strip_prefix("    fn "));
            if let Some(rest) = declared {
                found.push(rest.split(['(', '<']).next().unwrap_or(rest));
            }
        }
    }
    found
}

#[test]
fn every_method_of_a_trait_is_named_in_its_suite() {
    let mut complaints = Vec::new();
    for (module, name) in SUITES {
        let text = fs::read_to_string(root().join(format!("core/src/{module}.rs"))).unwrap();
        let methods = methods(&text, name);
        assert!(methods.len() > 1, "only {methods:?} found in {name}: reading it is broken");
        // One file, or a directory of that name.
        let suite: String = files("core/src", &[".rs"])
            .into_iter()
            .filter(|file| file.path.starts_with(&format!("core/src/testing/{module}_suite")))
            .map(|file| file.text)
            .collect();
        if suite.is_empty() {
            continue;
        }
        for method in methods {
            if !suite.contains(&format!(".{method}(")) {
                complaints.push(format!("{name}::{method} has no case in core/src/testing/{module}_suite"));
            }
        }
    }
    report(&complaints);
}

#[test]
fn methods_of_a_trait_are_found() {
    let text = "pub trait Store: Send {\n    /// Docs.\n    async fn append(&self);\n    fn read<'a>(&self) -> X;\n}\nfn other() {}\n";
    assert_eq!(methods(text, "Store"), ["append", "read"]);
}
