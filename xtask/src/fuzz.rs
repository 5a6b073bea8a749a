//! Long runs of the fuzz targets, on every processor and on any toolchain: the tests of the targets, told to go on for longer.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::{soak, workspace};

/// Test programs that hold fuzz targets, in modules named `targets`.
const PROGRAMS: [&[&str]; 3] = [
    &["--package", "syncline-core", "--all-features", "--test", "fuzzing"],
    &["--package", "syncline-source-postgres", "--lib"],
    &["--package", "syncline-transport-ws", "--lib"],
];
/// More inputs than a minute has for any target, so that no two minutes have the same.
const APART: u64 = 1_000_000_000;

/// A fuzz target: where it is, and the name of its test.
#[derive(Debug)]
struct Target {
    program: &'static [&'static str],
    test: String,
}

/// Runs every target for so many minutes, one minute at a time; `from` chooses the inputs. Tells how far it is.
///
/// # Errors
/// If something cannot be built, or an input breaks a target: what was found is printed with the command that repeats it.
pub(crate) fn run(minutes: u64, from: u64) -> Result<()> {
    if minutes == 0 {
        return Ok(());
    }
    let mut targets = Vec::new();
    for program in PROGRAMS {
        let listed = tests(program).args(["--", "--list"]).output()?;
        let printed = String::from_utf8_lossy(&listed.stdout);
        ensure!(listed.status.success(), "{printed}{}", String::from_utf8_lossy(&listed.stderr));
        let found = names(&printed).map(|test| Target { program, test: test.to_owned() });
        let before = targets.len();
        targets.extend(found);
        ensure!(targets.len() > before, "there are no fuzz targets: `{}`", workspace::show(&tests(program)));
    }
    let turns: Vec<(u64, &Target)> = (0..minutes).flat_map(|m| targets.iter().map(move |target| (m, target))).collect();
    let (next, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    let began = Instant::now();
    soak::on_every_processor(|| {
        while !broken.load(Ordering::Relaxed)
            && let Some((minute, target)) = turns.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let from = from.wrapping_add(*minute).wrapping_mul(APART);
            match target.run(from) {
                Ok(told) => println!("fuzz: minute {} of {minutes}: {told}", minute + 1),
                Err(error) => {
                    broken.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    })?;
    println!("fuzz: {} targets are clean, in {} s", targets.len(), began.elapsed().as_secs());
    Ok(())
}

impl Target {
    /// A minute of it; returns what it says of itself.
    fn run(&self, from: u64) -> Result<String> {
        let mut command = tests(self.program);
        command.args(["--", "--exact", &self.test, "--nocapture"]);
        command.env("FUZZ_SECONDS", "60").env("FUZZ_FROM", from.to_string());
        let output = command.output()?;
        let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            // What ends the process, as a stack that overflows does, says nothing of the input.
            let hint = match said.contains("repeat with: ") {
                true => String::new(),
                false => format!(
                    "\nnames each input before it is run: FUZZ_TRACE=1 FUZZ_FROM={from} FUZZ_SECONDS=60 {}",
                    workspace::show(&command)
                ),
            };
            bail!("{printed}{said}{hint}");
        }
        Ok(told(&printed).to_owned())
    }
}

/// The tests of a program, built with optimisation and with every check.
fn tests(program: &[&str]) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--quiet", "--profile", "fuzz", "--locked"]).args(program);
    command
}

/// The tests of targets in a list of tests.
fn names(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| line.strip_suffix(": test")).filter(|name| name.contains("targets::"))
}

/// What a campaign says of itself, in a line.
fn told(printed: &str) -> &str {
    printed.lines().find(|line| line.contains(" inputs from ")).unwrap_or("no word of its own")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_in_a_list_and_what_they_say_in_their_output() {
        let listed = "fuzzing::targets::pgoutput: test\nlsn::tests::order: test\ntargets::token: test\n\n3 tests, 0 benchmarks\n";
        assert_eq!(names(listed).collect::<Vec<_>>(), ["fuzzing::targets::pgoutput", "targets::token"]);
        let printed = "\nrunning 1 test\ntoken: 7 inputs from 0 in 1.0 s, 7 a second; slowest 0 ms (input 1)\n.\n";
        assert!(told(printed).starts_with("token: 7 inputs"));
        assert_eq!(told(""), "no word of its own");
    }
}
