//! `cargo verify`: everything that CI checks, in one command, with nothing done by hand before.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, cargo};
use crate::{figures_check, node, postgres, programs, step};

const MINUTE: Duration = Duration::from_secs(60);

/// Feature sets that must compile by themselves: package, features, and crates that must not come along. A phone app
/// compiles no web server, and core no runtime.
const FEATURES: &[(&str, &str, &[&str])] = &[
    ("syncline-core", "", &["tokio", "jsonwebtoken", "proptest"]),
    ("syncline-core", "jwt", &["tokio", "proptest"]),
    ("syncline-core", "testing", &["tokio"]),
    ("syncline-storage-sqlite", "bucket-store", &["axum", "reqwest"]),
    ("syncline-storage-sqlite", "database", &["axum", "reqwest"]),
    ("syncline-source-postgres", "", &["axum", "reqwest", "rusqlite"]),
    ("syncline-source-postgres", "backend", &["axum", "reqwest", "rusqlite"]),
    ("syncline-transport-http", "server", &["rusqlite", "tokio-postgres"]),
    ("syncline-transport-http", "client", &["axum", "jsonwebtoken", "rusqlite", "tokio-postgres"]),
    ("syncline-transport-ws", "server", &["reqwest", "rusqlite", "rustls", "tokio-postgres"]),
    ("syncline-transport-ws", "client", &["axum", "jsonwebtoken", "reqwest", "rusqlite", "tokio-postgres"]),
];

/// What the demo prints when every step went well.
const DEMO_DONE: &str = "steps done, 0 failed";

/// Runs every check, stops at the first that fails, and prints a summary.
///
/// # Errors
/// If a check fails, or if no test was run.
pub fn run() -> Result<()> {
    let mut verify = Verify { started: Instant::now(), done: Vec::new(), tests: 0 };
    let result = verify.all();
    verify.summary(result.is_ok());
    result
}

#[derive(Debug)]
struct Verify {
    started: Instant,
    done: Vec<(String, Duration)>,
    tests: u64,
}

impl Verify {
    fn all(&mut self) -> Result<()> {
        self.command("format", cargo().args(["fmt", "--all", "--check"]), MINUTE)?;
        self.work("Postgres", || postgres::ensure().map(|found| println!("    {}", found.display())))?;
        self.work("Node and the official SDK", || {
            node::ensure().map(|found| println!("    {}", found.program().display()))
        })?;
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        self.command("lints", cargo().args(clippy), 20 * MINUTE)?;
        // With all targets, so that tests, examples and programs share one set of features and are built once.
        let build = ["build", "--workspace", "--all-targets", "--locked"];
        self.command("build", cargo().args(build), 20 * MINUTE)?;
        self.tests()?;
        self.command("doctests", cargo().args(["test", "--doc", "--workspace", "--locked"]), 10 * MINUTE)?;
        let doc = ["doc", "--workspace", "--no-deps", "--locked"];
        self.command("docs", cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"), 10 * MINUTE)?;
        for (package, features, absent) in FEATURES {
            let name = format!("{package} with {}", if features.is_empty() { "no feature" } else { features });
            let selection = ["--locked", "--no-default-features", "-p", package, "--features", features];
            self.command(&name, cargo().arg("check").args(selection), 10 * MINUTE)?;
            expect_absent(&selection, absent).with_context(|| format!("step \"{name}\""))?;
        }
        let quickstart = workspace::programs_directory()?.join("quickstart");
        self.program("example quickstart", &mut Command::new(quickstart), MINUTE, "the source has 3 lists")?;
        // As the alias does it, building included: it is what a newcomer types first.
        self.program("cargo demo", &mut programs::demo_command(&[], false)?, 20 * MINUTE, DEMO_DONE)?;
        // `cargo figures` builds with optimisation, which takes minutes; what was built before will do for a look.
        let mut few = Command::new(workspace::programs_directory()?.join("figures"));
        let few = programs::with_log_client(few.args(figures_check::arguments()))?;
        let printed = self.program("figures, of few rows", few, 10 * MINUTE, "")?;
        figures_check::check(&printed)
    }

    /// The tests of the workspace; a run without any fails.
    fn tests(&mut self) -> Result<()> {
        let before = self.tests;
        let nextest = Command::new("cargo-nextest").args(["nextest", "--version"]).output();
        let arguments: &[&str] = if nextest.is_ok_and(|output| output.status.success()) {
            &["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]
        } else {
            println!("    cargo-nextest is not installed: cargo test runs the tests");
            &["test", "--workspace", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests"]
        };
        self.command("tests", cargo().args(arguments), 25 * MINUTE)?;
        if self.tests == before {
            bail!("no test was run");
        }
        Ok(())
    }

    /// Runs a program to its end, which must print something; returns all that it prints.
    fn program(&mut self, title: &str, command: &mut Command, limit: Duration, expected: &str) -> Result<String> {
        self.begin(title);
        let command = on_its_own(command.current_dir(workspace::root()));
        let outcome = step::run(command, limit).with_context(|| format!("step \"{title}\""))?;
        if !outcome.printed.contains(expected) {
            bail!("{title} did not print {expected:?}");
        }
        self.end(title, outcome.took);
        Ok(outcome.printed)
    }

    fn command(&mut self, name: &str, command: &mut Command, limit: Duration) -> Result<()> {
        self.begin(name);
        let outcome = step::run(on_its_own(command), limit).with_context(|| format!("step \"{name}\""))?;
        self.tests += outcome.tests;
        self.end(name, outcome.took);
        Ok(())
    }

    fn work(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.begin(name);
        let started = Instant::now();
        work().with_context(|| format!("step \"{name}\""))?;
        self.end(name, started.elapsed());
        Ok(())
    }

    fn begin(&self, name: &str) {
        println!("==> {name} (at {:.0} s)", self.started.elapsed().as_secs_f64());
    }

    fn end(&mut self, name: &str, took: Duration) {
        println!("    {name}: done in {:.1} s", took.as_secs_f64());
        self.done.push((name.to_owned(), took));
    }

    fn summary(&self, passed: bool) {
        println!("\n==> summary");
        for (name, took) in &self.done {
            println!("{:8.1} s  {name}", took.as_secs_f64());
        }
        println!("{:8.1} s  in all", self.started.elapsed().as_secs_f64());
        if passed {
            println!("verify: all is well\n{} passed, 0 failed", self.tests);
        } else {
            println!("verify: FAILED at the step after the last above");
        }
    }
}

/// A database that is exported for other work is no business of a check, which starts a throwaway cluster.
fn on_its_own(command: &mut Command) -> &mut Command {
    command.env_remove("DATABASE_URL")
}

/// Fails if one of these crates is among the dependencies of a selection of features.
fn expect_absent(selection: &[&str], crates: &[&str]) -> Result<()> {
    let tree = ["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let output = cargo().args(tree).args(selection).output().context("cannot start cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let present = listed.lines().filter_map(|line| line.split(' ').next()).find(|name| crates.contains(name));
    match present {
        Some(name) => bail!("{name} comes along: `cargo tree --invert {name} {}` says why", selection.join(" ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_program_that_does_not_print_what_it_must_fails() {
        let mut verify = Verify { started: Instant::now(), done: Vec::new(), tests: 0 };
        let mut says = |text: &str| {
            let mut command = Command::new("echo");
            verify.program("demo", command.arg(text), Duration::from_secs(30), DEMO_DONE).is_ok()
        };
        assert!(says("12 steps done, 0 failed, in 3.0 s"));
        assert!(!says("11 steps done, 1 failed, in 3.0 s"));
        assert!(!says(""));
        let mut endless = Command::new("sleep");
        let error = verify.program("sleep", endless.arg("60"), Duration::from_millis(50), "").unwrap_err();
        assert!(format!("{error:#}").contains("still running"), "{error:#}");
    }

    #[test]
    fn no_check_uses_a_database_that_is_exported() {
        let mut command = Command::new("env");
        on_its_own(command.env("DATABASE_URL", "postgres://production"));
        assert!(command.get_envs().any(|variable| variable == ("DATABASE_URL".as_ref(), None)));
    }
}
