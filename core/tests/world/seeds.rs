//! Many scenarios, each from a seed, in tests of a hundred each, which run beside each other. In the first of them `WORLD_SEEDS`
//! says how many, and `WORLD_FROM` where to begin. `cargo mutations` has seeds named that break a promise, without a search for
//! the shortest schedule: all of them with `WORLD_COUNT`, the first with `WORLD_PLAIN`.
#![allow(clippy::disallowed_methods, reason = "how many seeds are run is said from outside, and how fast is measured")]

use std::env;
use std::time::Instant;

use syncline_core::testing::{Report, Scenario};

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a seed. One that breaks a promise is a panic, or is only named.
fn run(seed: u64, plain: bool) -> Report {
    if !plain {
        return Scenario::check(seed);
    }
    let report = Scenario::of(seed).run();
    if let Some(failure) = report.failure() {
        println!("seed {seed} breaks {failure}");
    }
    report
}

fn run_all(from: u64, count: u64) {
    let is_set = |name| env::var_os(name).is_some();
    let (counting, plain) = (is_set("WORLD_COUNT"), is_set("WORLD_PLAIN"));
    let began = Instant::now();
    let (mut steps, mut slowest, mut broken) = (0, (0, 0), 0);
    for seed in from..from + count {
        let report = run(seed, counting || plain);
        if is_set("WORLD_VERBOSE") {
            println!("seed {seed}: {} steps, in order after {} ms", report.steps(), report.healed_in_ms());
        }
        steps += report.steps();
        slowest = slowest.max((report.healed_in_ms(), seed));
        broken += u64::from(report.failure().is_some());
        assert!(counting || broken == 0, "seed {seed} breaks a promise");
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {steps} steps in {seconds:.1} s: {:.0} steps/s, {:.1} seeds/s; slowest recovery {} ms (seed {})",
        steps as f64 / seconds,
        count as f64 / seconds,
        slowest.0,
        slowest.1
    );
    assert!(broken == 0, "{broken} of {count} seeds break a promise");
}

#[test]
fn seeds_break_no_promise() {
    run_all(number("WORLD_FROM", 0), number("WORLD_SEEDS", 100));
}

#[test]
fn the_second_hundred_seeds_break_no_promise() {
    run_all(100, 100);
}

#[test]
fn the_third_hundred_seeds_break_no_promise() {
    run_all(200, 100);
}

#[test]
fn the_fourth_hundred_seeds_break_no_promise() {
    run_all(300, 100);
}

#[test]
fn the_fifth_hundred_seeds_break_no_promise() {
    run_all(400, 100);
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in 1_000..1_024 {
        let (one, other) = (Scenario::of(seed).run(), Scenario::of(seed).run());
        assert_eq!(one.fingerprint(), other.fingerprint(), "{one}\n\nand again:\n{other}");
        assert_eq!(one.steps(), other.steps());
    }
}
