//! The long run: many seeds of the simulated world and many inputs of the fuzz targets, on every processor, then kills of
//! real processes.

use std::num::NonZero;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{fuzz, postgres, workspace};

/// Seeds that one process runs, at most: so often progress is told.
const SHARE: u64 = 500;

/// How much to do.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Soak {
    /// Scenarios of the simulated world to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// How many of them to run over the stores in SQLite files as well.
    #[arg(long, default_value_t = 1_000)]
    sqlite_seeds: u64,
    /// The first seed; other fuzzing inputs come with it, too.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Minutes to run each fuzz target.
    #[arg(long, default_value_t = 1)]
    fuzz_minutes: u64,
    /// How often to run the tests that kill server, client and Postgres.
    #[arg(long, default_value_t = 5)]
    kills: u32,
}

/// Runs all of it; tells how far it is, and at the end how it went.
///
/// # Errors
/// If something cannot be built, or if a seed, an input or a kill has broken a promise: what was found is printed with the command
/// that repeats it.
pub fn run(soak: Soak) -> Result<()> {
    let began = Instant::now();
    seeds(Stores::Memory, soak.from, soak.seeds)?;
    seeds(Stores::Sqlite, soak.from, soak.sqlite_seeds)?;
    fuzz::run(soak.fuzz_minutes, soak.from)?;
    if soak.kills > 0 {
        postgres::ensure()?;
    }
    for round in 1..=soak.kills {
        let mut command = workspace::cargo();
        command.args(["nextest", "run", "--locked", "--package", "kill-tests", "--no-fail-fast"]);
        ensure!(command.status()?.success(), "round {round} of the kills failed: `{}`", workspace::show(&command));
        println!("kills: {round} of {} rounds, {} s", soak.kills, began.elapsed().as_secs());
    }
    let Soak { seeds, sqlite_seeds, fuzz_minutes, kills, .. } = soak;
    println!(
        "{seeds} seeds in memory, {sqlite_seeds} over SQLite, {fuzz_minutes} minutes of each fuzz target and {kills} rounds \
         of kills are clean, in {} s",
        began.elapsed().as_secs()
    );
    Ok(())
}

/// What scenarios are run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stores {
    Memory,
    Sqlite,
}

fn seeds(stores: Stores, first: u64, seeds: u64) -> Result<()> {
    if seeds == 0 {
        return Ok(());
    }
    let mut build = world_test(stores);
    build.arg("--no-run");
    ensure!(build.status()?.success(), "`{}` failed", workspace::show(&build));

    let end = first.checked_add(seeds).context("there are not so many seeds")?;
    let (next, done, broken) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let work = || {
        while !broken.load(Ordering::Relaxed) {
            let from = next.fetch_add(SHARE, Ordering::Relaxed);
            if from >= end {
                break;
            }
            let count = SHARE.min(end - from);
            let output = share(stores, from, count).output()?;
            if !output.status.success() {
                broken.store(true, Ordering::Relaxed);
                bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            }
            let done = done.fetch_add(count, Ordering::Relaxed) + count;
            let rate = done as f64 / began.elapsed().as_secs_f64();
            println!("seeds ({stores:?}): {done} of {seeds}, {rate:.1} a second; {}", told(&output.stdout));
        }
        Ok(())
    };
    on_every_processor(work)
}

/// Does some work once on each processor, all at once; the first error counts.
pub(crate) fn on_every_processor(work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(&work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked"))).collect()
    });
    results.into_iter().collect()
}

/// The test of the world, built with optimisation.
fn world_test(stores: Stores) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--quiet", "--release", "--locked", "--test", "world", "--package"]);
    command.args(match stores {
        Stores::Memory => ["syncline-core", "--all-features"].as_slice(),
        Stores::Sqlite => &["syncline-storage-sqlite"],
    });
    command
}

/// The test over these seeds.
fn share(stores: Stores, from: u64, count: u64) -> Command {
    let mut command = world_test(stores);
    command.args(["--", "--exact", "seeds::seeds_break_no_promise", "--nocapture"]);
    command.env("WORLD_FROM", from.to_string()).env("WORLD_SEEDS", count.to_string());
    command
}

/// What the test says of its run, in a line.
fn told(stdout: &[u8]) -> String {
    let text = String::from_utf8_lossy(stdout);
    text.lines().find(|line| line.contains(" steps in ")).unwrap_or("no word of its own").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_run_is_found() {
        let said =
            b"\nrunning 1 test\n500 seeds, 7 steps in 1.0 s: 7 steps/s\ntest seeds::seeds_break_no_promise ... ok\n";
        assert_eq!(told(said), "500 seeds, 7 steps in 1.0 s: 7 steps/s");
        assert_eq!(told(b""), "no word of its own");
    }
}
