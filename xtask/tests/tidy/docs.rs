//! Markdown: code that is shown is code that is compiled, and links lead somewhere.

use std::fs;

use crate::tree::{files, report, root};

/// A code block, and the `<!-- from: FILE -->` or `<!-- from: FILE#region -->` that stands before it.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    language: String,
    from: Option<String>,
    code: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut from: Option<String> = None;
    let mut open: Option<Block> = None;
    for (index, line) in markdown.lines().enumerate() {
        if let Some(fence) = line.strip_prefix("```") {
            if let Some(block) = open.take() {
                found.push(block);
            } else {
                let language = fence.to_owned();
                open = Some(Block { line: index + 1, language, from: from.take(), code: String::new() });
            }
        } else if let Some(block) = &mut open {
            block.code.push_str(line);
            block.code.push('\n');
        } else if let Some(name) = line.strip_prefix("<!-- from: ").and_then(|rest| rest.strip_suffix(" -->")) {
            from = Some(name.to_owned());
        } else if !line.trim().is_empty() {
            from = None;
        }
    }
    found
}

/// The lines between `region: NAME` and `endregion: NAME` comments, or the whole file without its `//!` lines.
fn region(text: &str, name: Option<&str>) -> Option<String> {
    let lines: Vec<&str> = match name {
        None => text.lines().skip_while(|line| line.starts_with("//!") || line.is_empty()).collect(),
        Some(name) => {
            let is = |line: &str, word: &str| {
                let line = line.trim_start().trim_start_matches(['/', '#', '-']).trim();
                line == format!("{word}: {name}")
            };
            let start = text.lines().position(|line| is(line, "region"))?;
            let end = text.lines().position(|line| is(line, "endregion"))?;
            text.lines().take(end).skip(start + 1).collect()
        }
    };
    let indent =
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| line.len() - line.trim_start().len()).min()?;
    Some(lines.iter().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect())
}

#[test]
fn shown_code_is_compiled_code() {
    let mut complaints = Vec::new();
    for file in files("", &[".md"]) {
        for block in blocks(&file.text) {
            let place = format!("{}:{}", file.path, block.line);
            let Some(from) = block.from else {
                if block.language == "rust" {
                    complaints.push(format!("{place}: name the file it comes from: `<!-- from: FILE#region -->`"));
                }
                continue;
            };
            let (path, name) = from.split_once('#').map_or((from.as_str(), None), |(path, name)| (path, Some(name)));
            let Ok(text) = fs::read_to_string(root().join(path)) else {
                complaints.push(format!("{place}: cannot read {path}"));
                continue;
            };
            match region(&text, name) {
                None => complaints.push(format!("{place}: {from} is not there")),
                Some(code) if code.trim_end() != block.code.trim_end() => {
                    complaints.push(format!("{place}: differs from {from}"));
                }
                Some(_) => {}
            }
        }
    }
    report(&complaints);
}

#[test]
fn links_between_files_lead_somewhere() {
    let mut complaints = Vec::new();
    for file in files("", &[".md"]) {
        let directory = root().join(&file.path).parent().unwrap().to_owned();
        for (at, _) in file.text.match_indices("](") {
            let target = file.text[at + 2..].split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            if !directory.join(path).exists() {
                complaints.push(format!("{}: {target} does not exist", file.path));
            }
        }
    }
    report(&complaints);
}

/// `path` in backticks in the architecture's tables must exist, and each member of the workspace must be on the map, so that it
/// cannot drift.
#[test]
fn the_map_names_files_that_exist() {
    let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) else {
        panic!("ARCHITECTURE.md is missing");
    };
    let mut complaints = Vec::new();
    for word in text.split('`').skip(1).step_by(2) {
        let file = word.split('#').next().unwrap_or(word);
        let is_path = file.contains('/') && (file.ends_with('/') || file.ends_with(".rs") || file.ends_with(".md"));
        if is_path && !file.contains([' ', '*', '{', '…']) && !root().join(file).exists() {
            complaints.push(format!("ARCHITECTURE.md: {file} does not exist"));
        }
    }
    let map = text.split_once("\n## Code map\n").unwrap().1.split("\n## ").next().unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.split_once("members = [").unwrap().1.split(']').next().unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() > 10, "only {members:?} found: reading the manifest is broken");
    for member in members {
        if !map.contains(&format!("`{member}/")) {
            complaints.push(format!("ARCHITECTURE.md: the code map lacks {member}/"));
        }
    }
    report(&complaints);
}

/// Programs that people would start from are of no use if nobody is told of them.
#[test]
fn what_one_can_run_is_named_where_one_begins() {
    let named = |path: &str, words: &[&str]| {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let missing = words.iter().filter(|word| !text.contains(**word));
        missing.map(|word| format!("{path} does not name {word}")).collect::<Vec<_>>()
    };
    let programs = ["examples/server", "examples/backend", "syncline.toml", " check", "examples/backend/schema.sql"];
    let mut complaints = named("docs/getting-started.md", &programs);
    complaints.extend(named("README.md", &programs));
    let aliases = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    for alias in aliases.lines().filter_map(|line| line.split_once(" = \"run").map(|(name, _)| name)) {
        if alias != "xtask" {
            complaints.extend(named("README.md", &[&format!("cargo {alias}")]));
        }
    }
    report(&complaints);
}

#[test]
fn blocks_and_regions_are_read() {
    let markdown = "<!-- from: a.rs#main -->\n```rust\nfn main() {}\n```\ntext\n```sh\nls\n```\n";
    let found = blocks(markdown);
    assert_eq!(found[0].from.as_deref(), Some("a.rs#main"));
    assert_eq!(found[0].code, "fn main() {}\n");
    assert_eq!((found[1].from.as_deref(), found[1].language.as_str()), (None, "sh"));
    let source = "//! Doc.\n\nmod x {\n    // region: main\n    fn main() {\n    }\n    // endregion: main\n}\n";
    assert_eq!(region(source, Some("main")).as_deref(), Some("fn main() {\n}\n"));
    assert_eq!(region("//! Doc.\n\nfn a() {}\n", None).as_deref(), Some("fn a() {}\n"));
    assert_eq!(region(source, Some("other")), None);
}
