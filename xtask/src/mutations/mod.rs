//! `cargo mutations`: makes each mistake of a list in a copy of the workspace, and requires that the check that is named for
//! it finds it.

pub mod list;
mod table;
mod workshop;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use self::list::{MEASURED, Mutation};
pub use self::table::in_docs;
use self::workshop::{Broken, Verdict, Workshop};
use crate::{postgres, workspace};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Mutations {
    /// Only mutations whose name or area contains this; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Go on with the mutation of this name.
    #[arg(long)]
    from: Option<String>,
    /// Print the names and do nothing.
    #[arg(long)]
    list: bool,
    /// Write the table of docs/mutations.md anew and do nothing else.
    #[arg(long)]
    table: bool,
    /// Count the seeds of the simulated world that find a mutation, and write the numbers into the list.
    #[arg(long)]
    measure: bool,
    /// A check that runs for so many seconds is stopped.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Where the copy and what is built of it are, from the root: two runs at once need two.
    #[arg(long, default_value = "target/mutations")]
    directory: String,
}

/// Does it.
///
/// # Errors
/// If a mutation cannot be applied, does not compile, or is not found by its check.
pub fn run(arguments: &Mutations) -> Result<()> {
    let all = list::read(workspace::root())?;
    if arguments.table {
        return table::write(&all);
    }
    let chosen = chosen(&all, arguments)?;
    if arguments.list {
        chosen.iter().for_each(|mutation| println!("{:16} {:48} {}", mutation.area, mutation.name, mutation.mistake));
        return Ok(());
    }
    let workshop = Workshop::new(workspace::root().join(&arguments.directory), Duration::from_secs(arguments.limit))?;
    if arguments.measure { measure(&workshop, &chosen) } else { try_out(&workshop, &chosen) }
}

fn chosen<'a>(all: &'a [Mutation], arguments: &Mutations) -> Result<Vec<&'a Mutation>> {
    let from = match &arguments.from {
        None => 0,
        Some(name) => {
            let place = all.iter().position(|mutation| mutation.name == *name);
            place.with_context(|| format!("no mutation is named {name}"))?
        }
    };
    let wanted = |mutation: &&Mutation| {
        let only = &arguments.only;
        only.is_empty() || only.iter().any(|part| mutation.name.contains(part) || mutation.area.contains(part))
    };
    let chosen: Vec<&Mutation> = all[from..].iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "no mutation is named so: `cargo mutations --list` says what there is");
    Ok(chosen)
}

fn try_out(workshop: &Workshop, mutations: &[&Mutation]) -> Result<()> {
    if mutations
        .iter()
        .any(|mutation| matches!(mutation.check(), list::Check::Test(test) if test.package.contains("postgres")))
    {
        postgres::ensure()?;
    }
    let (began, mut missed) = (Instant::now(), Vec::new());
    for (index, mutation) in mutations.iter().enumerate() {
        let at = began.elapsed().as_secs();
        let verdict = workshop.try_out(mutation)?;
        let told = match &verdict {
            Verdict::Caught(took) => format!("caught in {:.1} s", took.as_secs_f64()),
            Verdict::Survived => "SURVIVED".to_owned(),
            Verdict::Unclear(why) => format!("NOT CAUGHT: {why}"),
        };
        println!("{at:5} s  {:2} of {}  {:48} {told}", index + 1, mutations.len(), mutation.name);
        if !matches!(verdict, Verdict::Caught(_)) {
            missed.push(mutation.name.as_str());
        }
    }
    println!(
        "{} of {} mutations caught, in {} s",
        mutations.len() - missed.len(),
        mutations.len(),
        began.elapsed().as_secs()
    );
    ensure!(missed.is_empty(), "not caught: {}; what was printed is beside the copy", missed.join(", "));
    Ok(())
}

fn measure(workshop: &Workshop, mutations: &[&Mutation]) -> Result<()> {
    for mutation in mutations {
        if !matches!(mutation.check(), list::Check::World(_)) {
            continue;
        }
        let broken = workshop.measure(mutation)?;
        let counts = count(&broken);
        let first = broken.first().map_or(0, |(seed, _)| *seed);
        println!("{:48} {counts}, first {first}", mutation.name);
        if !broken.is_empty() {
            note(mutation, &counts, first)?;
        }
    }
    table::write(&list::read(workspace::root())?)
}

/// How often each invariant was broken, as the list has it.
fn count(broken: &Broken) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    broken.iter().for_each(|(_, name)| *counts.entry(name).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} = {count}")).collect();
    if counts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", counts.join(", ")) }
}

/// Writes into the list what was measured.
fn note(mutation: &Mutation, counts: &str, first: u64) -> Result<()> {
    let path = workspace::root().join("mutations").join(format!("{}.toml", mutation.area));
    let text = fs::read_to_string(&path)?;
    let text = noted(&text, &mutation.name, counts, first)
        .with_context(|| format!("{} has no lines `found = ` and `first = ` of {}", path.display(), mutation.name))?;
    fs::write(&path, text)?;
    Ok(())
}

fn noted(text: &str, name: &str, counts: &str, first: u64) -> Option<String> {
    let begins = text.find(&format!("name = \"{name}\"\n"))?;
    let (before, rest) = text.split_at(begins);
    let ends = rest.find("\n[[mutation]]").unwrap_or(rest.len());
    let (entry, after) = rest.split_at(ends);
    let mut changed = 0;
    let mut replaced = String::with_capacity(text.len());
    for line in entry.split_inclusive('\n') {
        let new = match line {
            _ if line.starts_with("found = ") => format!("found = {counts}\n"),
            _ if line.starts_with("first = ") => format!("first = {first}\n"),
            line => {
                replaced.push_str(line);
                continue;
            }
        };
        changed += 1;
        replaced.push_str(&new);
    }
    (changed == 2).then(|| format!("{before}{replaced}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_noted_where_it_belongs() {
        let entry = |name: &str, found: &str, first: u64| {
            format!("[[mutation]]\nname = \"{name}\"\nfound = {found}\nfirst = {first}\nmore = 1\n")
        };
        let text = entry("a", "{}", 0) + "\n" + &entry("b", "{}", 0);
        let counts = count(&vec![(3, "S1".to_owned()), (4, "S1".to_owned()), (9, "C2".to_owned())]);
        assert_eq!(counts, "{ C2 = 1, S1 = 2 }");
        assert_eq!(noted(&text, "a", &counts, 3), Some(entry("a", &counts, 3) + "\n" + &entry("b", "{}", 0)));
        assert_eq!(noted(&text, "b", &counts, 3), Some(entry("a", "{}", 0) + "\n" + &entry("b", &counts, 3)));
        assert_eq!(noted(&text, "c", &counts, 3), None);
    }
}
