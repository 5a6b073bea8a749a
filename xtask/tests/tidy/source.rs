//! Rust files: size, module docs, names, and words that have no place here.

use crate::tree::{files, report};

const MAX_LINES: usize = 800;
const BANNED_NAMES: &[&str] = &["utils", "util", "common", "helpers", "types", "traits", "misc", "prelude"];
/// What `core` may not name: it does no I/O, knows no runtime, and takes time and randomness as arguments.
const FORBIDDEN_IN_CORE: &[&str] = &[
    "tokio",
    "async_std",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "getrandom",
    "thread_rng",
    "new_v4",
    "rusqlite",
    "tokio_postgres",
    "hyper",
    "futures::select!",
];

#[test]
fn files_are_of_a_size_that_one_can_read() {
    let mut complaints = Vec::new();
    for file in files("", &[".rs"]) {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            complaints.push(format!("{} has {lines} lines, more than {MAX_LINES}: split it", file.path));
        }
    }
    report(&complaints);
}

#[test]
fn every_file_says_what_it_is() {
    let files = files("", &[".rs"]);
    assert!(files.len() > 20, "only {} files found: the walk is broken", files.len());
    let mut complaints = Vec::new();
    for file in files {
        if !file.text.starts_with("//!") && !file.path.ends_with("build.rs") && !file.path.starts_with("fuzz/") {
            complaints.push(format!("{} does not begin with a `//!` line", file.path));
        }
    }
    report(&complaints);
}

#[test]
fn names_tell_what_is_inside() {
    let mut complaints = Vec::new();
    for file in files("", &[".rs"]) {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if BANNED_NAMES.contains(&part) {
                complaints.push(format!("{}: nobody can guess what is in `{part}`", file.path));
            }
        }
        for (number, line) in code_lines(&file.text) {
            let Some((_, rest)) = line.split_once("mod ") else { continue };
            let name = rest.trim_end_matches(['{', ';', ' ']);
            if BANNED_NAMES.contains(&name) {
                complaints.push(format!("{}:{number}: nobody can guess what is in `{name}`", file.path));
            }
        }
    }
    report(&complaints);
}

#[test]
fn core_does_no_io_and_knows_no_runtime() {
    let mut complaints = Vec::new();
    for file in files("core/src", &[".rs"]) {
        if file.path == "core/src/clock.rs" || file.path.starts_with("core/src/testing") || is_test_file(&file.path) {
            continue;
        }
        for (number, line) in code_lines(without_tests(&file.text)) {
            for name in FORBIDDEN_IN_CORE {
                if contains_path(line, name) {
                    complaints.push(format!("{}:{number}: `{name}` has no place in core: {}", file.path, line.trim()));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn nothing_is_left_undone_in_silence() {
    // Built from pieces, since this file is read as well.
    let dead_code = concat!("allow(", "dead_code");
    let ignored = concat!("#[", "ignore");
    let mut complaints = Vec::new();
    for file in files("", &[".rs"]) {
        for (number, line) in code_lines(&file.text) {
            if line.contains(dead_code) {
                complaints.push(format!("{}:{number}: remove what is not used", file.path));
            }
            if line.contains(ignored) && !is_started_by_another_test(&file.text, number) {
                complaints.push(format!("{}:{number}: a test that is skipped proves nothing", file.path));
            }
        }
    }
    report(&complaints);
}

/// Whether the test after this line is the other half of one in the same file, which starts it by name.
fn is_started_by_another_test(text: &str, line: usize) -> bool {
    let declared = text.lines().skip(line).find_map(|line| line.split_once("fn "));
    let name = declared.and_then(|(_, rest)| rest.split('(').next()).unwrap_or_default();
    !name.is_empty() && text.contains(&format!("\"{name}\""))
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let foreign = [concat!("/wo", "rk/"), concat!("helper ", "session")];
    let mut complaints = Vec::new();
    for file in files("", &[]) {
        for (number, line) in file.text.lines().enumerate() {
            for word in foreign {
                if line.to_lowercase().contains(word) {
                    complaints.push(format!("{}:{}: {:?}", file.path, number + 1, word));
                }
            }
        }
    }
    report(&complaints);
}

/// Lines of code with their numbers, without comments.
pub(crate) fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let code = match line.find("//") {
            // An address in a string is not a comment.
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        };
        (!code.trim().is_empty()).then_some((index + 1, code))
    })
}

/// The text before the tests module at its end.
pub(crate) fn without_tests(text: &str) -> &str {
    text.match_indices("#[cfg(test)]")
        .find(|(at, attribute)| {
            let rest = text[at + attribute.len()..].trim_start();
            rest.starts_with("mod ") || rest.starts_with("#[")
        })
        .map_or(text, |(at, _)| &text[..at])
}

/// Whether a file is compiled for tests only.
pub(crate) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/")
}

/// Whether a line names a path, as whole words.
fn contains_path(line: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let open_end = path.ends_with(|c| !is_word(c));
        !before.is_some_and(is_word) && (open_end || !after.is_some_and(is_word))
    })
}

#[test]
fn words_are_found_as_words() {
    assert!(contains_path("let x = rand::random();", "rand::"));
    assert!(!contains_path("let x = operand::new();", "rand::"));
    assert!(contains_path("use tokio::sync;", "tokio"));
    assert!(!contains_path("use tokio_postgres::Row;", "tokio"));
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {}"), "a\n");
    assert_eq!(code_lines("// no\nlet a = 1; // yes\n").collect::<Vec<_>>(), [(2, "let a = 1; ")]);
}
