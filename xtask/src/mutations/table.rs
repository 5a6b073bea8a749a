//! The table of `docs/mutations.md`, made from the list.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::list::{Check, MEASURED, Mutation};
use crate::workspace;

/// Where it is, from the root.
const DOCS: &str = "docs/mutations.md";
/// What stands before and after it.
const BEGINS: &str = "<!-- table: cargo mutations --table -->\n\n";
const ENDS: &str = "\n<!-- end of the table -->\n";

/// Puts the table of a list into the docs.
pub(super) fn write(mutations: &[Mutation]) -> Result<()> {
    let path = workspace::root().join(DOCS);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCS}"))?;
    let new = in_docs(&text, mutations).with_context(|| format!("{DOCS} does not say where the table is"))?;
    Ok(fs::write(&path, new)?)
}

/// The docs with the table of a list; `None` if they do not say where it is.
pub fn in_docs(docs: &str, mutations: &[Mutation]) -> Option<String> {
    let (before, rest) = docs.split_once(BEGINS)?;
    let (_, after) = rest.split_once(ENDS)?;
    Some(format!("{before}{BEGINS}{}{ENDS}{after}", table(mutations)))
}

/// One table per area, in Markdown.
fn table(mutations: &[Mutation]) -> String {
    let mut text = String::new();
    let mut area = "";
    for mutation in mutations {
        if mutation.area != area {
            area = &mutation.area;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{}### {}\n\n| Mistake | Found by | Seeds of {MEASURED}, first |\n|---|---|---|\n",
                if text.is_empty() { "" } else { "\n" },
                area.replace('-', " ")
            );
        }
        let (by, seeds) = match mutation.check() {
            Check::World(world) => {
                let counts: Vec<String> =
                    mutation.found.iter().map(|(name, count)| format!("{name} {count}")).collect();
                let counts = if counts.is_empty() { "not counted".to_owned() } else { counts.join(", ") };
                (world.join(", "), format!("{counts}; {}", mutation.first))
            }
            Check::Test(test) => {
                let name = test.name.rsplit("::").next().unwrap_or(&test.name);
                (format!("`{}`: {}", test.package, name.replace('_', " ")), String::new())
            }
        };
        let _ = writeln!(text, "| {} | {by} | {seeds} |", mutation.mistake);
    }
    text
}
