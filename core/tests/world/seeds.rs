//! Many scenarios, each from a seed. `WORLD_SEEDS` says how many, `WORLD_FROM` where to begin.
#![allow(clippy::disallowed_methods, reason = "how many seeds are run is said from outside, and how fast is measured")]

use std::env;
use std::time::Instant;

use syncline_core::testing::Scenario;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn seeds_break_no_promise() {
    let (from, count) = (number("WORLD_FROM", 0), number("WORLD_SEEDS", 100));
    let began = Instant::now();
    let (mut steps, mut slowest) = (0, (0, 0));
    for seed in from..from + count {
        let report = Scenario::check(seed);
        if env::var_os("WORLD_VERBOSE").is_some() {
            println!("seed {seed}: {} steps, in order after {} ms", report.steps(), report.healed_in_ms());
        }
        steps += report.steps();
        slowest = slowest.max((report.healed_in_ms(), seed));
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {steps} steps in {seconds:.1} s: {:.0} steps/s, {:.1} seeds/s; slowest recovery {} ms (seed {})",
        steps as f64 / seconds,
        count as f64 / seconds,
        slowest.0,
        slowest.1
    );
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in 1_000..1_010 {
        let (one, other) = (Scenario::of(seed).run(), Scenario::of(seed).run());
        assert_eq!(one.fingerprint(), other.fingerprint(), "{one}\n\nand again:\n{other}");
        assert_eq!(one.steps(), other.steps());
    }
}
