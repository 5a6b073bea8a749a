//! The list of mutations: `mutations/*.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A small mistake in the code, and the check that must find it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// Its name in commands.
    pub name: String,
    /// What the code does wrongly then, for the table.
    pub mistake: String,
    /// The file that is changed, from the root.
    pub file: String,
    /// A text that occurs there once.
    find: String,
    /// What takes its place.
    replace: String,
    /// Invariants of which the simulated world finds one broken.
    #[serde(default)]
    pub world: Vec<String>,
    /// In how many of [`MEASURED`] seeds each was the first to be found broken, as last measured; empty if nobody has counted.
    #[serde(default)]
    pub found: BTreeMap<String, u64>,
    /// The first seed that finds it.
    #[serde(default)]
    pub first: u64,
    /// The test that fails, if it is not the world that finds it.
    test: Option<NamedTest>,
    /// The file of the list, without its ending.
    #[serde(skip)]
    pub area: String,
}

/// So many seeds are run to say how many of them find a mutation, and at most so many to find it again: four rounds of the
/// scenarios' themes.
pub const MEASURED: u64 = 48;

/// A test by its full name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedTest {
    /// The package.
    pub package: String,
    /// `lib`, or the name of a test program.
    pub program: String,
    /// The name within it, as the test runner prints it.
    pub name: String,
}

/// What finds a mutation.
#[derive(Debug, Clone, Copy)]
pub enum Check<'a> {
    /// The simulated world, by one of these invariants.
    World(&'a [String]),
    /// This test.
    Test(&'a NamedTest),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    mutation: Vec<Mutation>,
}

impl Mutation {
    /// What finds it.
    pub fn check(&self) -> Check<'_> {
        match &self.test {
            Some(test) => Check::Test(test),
            None => Check::World(&self.world),
        }
    }

    /// A text of its file with the mistake in it.
    ///
    /// # Errors
    /// If what it replaces is not there exactly once.
    pub fn applied(&self, text: &str) -> Result<String> {
        let times = text.matches(&self.find).count();
        ensure!(times == 1, "{}: what it replaces in {} is there {times} times, not once", self.name, self.file);
        Ok(text.replacen(&self.find, &self.replace, 1))
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut is = |wrong: bool, what: &str| problems.extend(wrong.then(|| format!("{}: {what}", self.name)));
        is(self.name.is_empty() || self.mistake.is_empty(), "it has a name and says what is wrong");
        is(self.find == self.replace, "it changes nothing");
        is(self.find.is_empty(), "it replaces nothing");
        is(self.world.is_empty() == self.test.is_none(), "it is found by the world or by a test, and by one of them");
        is(self.found.keys().any(|found| !self.world.contains(found)), "it was found by what is not expected to");
        problems
    }
}

/// All mutations of a workspace, in the order of their files and within them.
///
/// # Errors
/// If a file cannot be read or is not a list.
pub fn read(root: &Path) -> Result<Vec<Mutation>> {
    let directory = root.join("mutations");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let listed: Listed = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let area = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        all.extend(listed.mutation.into_iter().map(|one| Mutation { area: area.clone(), ..one }));
    }
    Ok(all)
}

/// What is wrong with a list: mutations that cannot be applied to the workspace any more, or lack something.
pub fn problems(mutations: &[Mutation], root: &Path) -> Vec<String> {
    let mut problems: Vec<String> = mutations.iter().flat_map(Mutation::problems).collect();
    let mut names: Vec<&str> = mutations.iter().map(|mutation| mutation.name.as_str()).collect();
    names.sort_unstable();
    problems
        .extend(names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("{}: there are two", pair[0])));
    for mutation in mutations {
        let applied = fs::read_to_string(root.join(&mutation.file))
            .with_context(|| format!("{}: cannot read {}", mutation.name, mutation.file))
            .and_then(|text| mutation.applied(&text));
        problems.extend(applied.err().map(|error| format!("{error:#}")));
    }
    problems
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn listed(find: &str, rest: &str) -> Mutation {
        let text =
            format!("[[mutation]]\nname = 'a'\nmistake = 'm'\nfile = 'f'\nfind = '{find}'\nreplace = 'z'\n{rest}");
        toml::from_str::<Listed>(&text).unwrap().mutation.remove(0)
    }

    #[test]
    fn a_mutation_replaces_what_is_there_once() {
        let mutation = listed("x", "world = ['S1']");
        assert_eq!(mutation.applied("axb").unwrap(), "azb");
        assert!(mutation.applied("ab").is_err());
        assert!(mutation.applied("axbx").is_err());
    }

    #[test]
    fn what_is_missing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "x").unwrap();
        let count = |mutation: Mutation| problems(&[mutation], folder.path()).len();
        assert_eq!(count(listed("x", "world = ['S1']\nfound = { S1 = 3 }")), 0);
        assert_eq!(count(listed("x", "world = ['S1']")), 0, "it was not counted yet");
        assert_eq!(count(listed("x", "world = ['S1']\nfound = { S2 = 3 }")), 1);
        assert_eq!(count(listed("x", "")), 1, "no check finds it");
        assert_eq!(count(listed("y", "test = { package = 'p', program = 'lib', name = 't' }")), 1);
        let two =
            [listed("x", "world = ['S1']\nfound = { S1 = 3 }"), listed("x", "world = ['S1']\nfound = { S1 = 3 }")];
        assert_eq!(problems(&two, folder.path()), ["a: there are two"]);
    }
}
