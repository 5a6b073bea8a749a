//! The list of mutations fits the code, and the docs fit the list. Whether the checks find them is looked at by
//! `cargo mutations`, which takes long.

use std::fs;

use xtask::mutations::{in_docs, list};

use crate::tree::{report, root};

#[test]
fn every_mutation_can_still_be_made() {
    let mutations = list::read(root()).unwrap();
    assert!(mutations.len() >= 40, "only {} mutations found: reading the list is broken", mutations.len());
    report(&list::problems(&mutations, root()));
}

#[test]
fn the_table_of_the_docs_is_that_of_the_list() {
    let docs = fs::read_to_string(root().join("docs/mutations.md")).unwrap();
    let should_be = in_docs(&docs, &list::read(root()).unwrap()).unwrap();
    assert!(docs == should_be, "the table in docs/mutations.md is not that of the list: run `cargo mutations --table`");
}
