//! The recorded cases of the config language: what a config answers here must be what the official evaluator answers.
//!
//! `tests/data/sync-rules-cases/README.md` describes the files; `SYNC_CONFIG_CASES` names another folder of them. The list
//! `supported-cases.txt` is exact: a case on it must pass, and a case that passes must be on it. A config that loads and
//! answers differently is always an error, unless `deviating-cases.txt` gives the reason.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cases::{Area, Outcome};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn areas() -> Vec<Area> {
    let folder = std::env::var_os("SYNC_CONFIG_CASES").map_or_else(|| data("sync-rules-cases"), PathBuf::from);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no cases in {}", folder.display());
    files.iter().map(|path| Area::parse(&std::fs::read_to_string(path).unwrap())).collect()
}

/// Lines of a list, without comments: the id, and what follows it.
fn list(name: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(data(name)).unwrap();
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(char::is_whitespace).unwrap_or((line, "")))
        .map(|(id, rest)| (id.to_owned(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn every_recorded_case_passes_or_is_refused() {
    let supported = list("supported-cases.txt");
    let deviating = list("deviating-cases.txt");
    let mut problems = Vec::new();
    let mut passing = BTreeSet::new();
    for area in areas() {
        let (mut passed, mut refused, mut failed, mut elsewhere) = (0, 0, 0, 0);
        for case in &area.cases {
            let outcome = cases::run(case);
            match &outcome {
                Outcome::Passed => {
                    passed += 1;
                    passing.insert(case.id.clone());
                    if !supported.contains_key(&case.id) {
                        problems.push(format!("{} passes, and is not on supported-cases.txt", case.id));
                    }
                }
                Outcome::Refused(kinds) => {
                    refused += 1;
                    println!("  {} is refused: {kinds}", case.id);
                    if supported.contains_key(&case.id) {
                        problems.push(format!("{} is refused: {kinds}", case.id));
                    }
                }
                Outcome::Failed(reason) => {
                    failed += 1;
                    match deviating.get(&case.id) {
                        Some(why) => println!("  {} differs on purpose: {why}", case.id),
                        None => problems.push(format!("{} fails: {reason}", case.id)),
                    }
                }
                Outcome::Elsewhere => elsewhere += 1,
            }
        }
        let rest = if elsewhere > 0 { format!(", {elsewhere} tested elsewhere") } else { String::new() };
        println!("{}: {passed} passed, {failed} failed, {refused} refused{rest}", area.area);
    }
    if std::env::var_os("SYNC_CONFIG_CASES").is_none() {
        for id in supported.keys().filter(|id| !passing.contains(*id)) {
            problems.push(format!("{id} is on supported-cases.txt, and does not pass"));
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// The naive evaluator is no oracle unless it agrees with what was recorded; what it does not know is on a list of its own.
#[cfg(feature = "testing")]
#[test]
fn the_naive_evaluator_sees_what_was_recorded() {
    let known = list("naive-exceptions.txt");
    let mut problems = Vec::new();
    let mut answers = 0;
    for case in areas().iter().flat_map(|area| &area.cases) {
        match (cases::naive::run(case), known.contains_key(&case.id)) {
            (Ok(found), false) => answers += found,
            (Ok(_), true) => problems.push(format!("{} agrees, and is on naive-exceptions.txt", case.id)),
            (Err(reason), false) => problems.push(format!("{}: {reason}", case.id)),
            (Err(_), true) => {}
        }
    }
    println!("{answers} requests, {} cases left out", known.len());
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert!(answers > 0);
}
