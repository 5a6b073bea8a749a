//! Many scenarios, each from a seed. `WORLD_SEEDS` says how many, `WORLD_FROM` where to begin; `WORLD_TWICE` how many are run
//! twice.

use std::env;
use std::sync::Arc;
use std::time::Instant;

use syncline_core::testing::{Scenario, WorldStores};

use crate::stores::SqliteStores;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn stores() -> Arc<dyn WorldStores> {
    Arc::new(SqliteStores)
}

#[test]
fn seeds_break_no_promise() {
    let (from, count) = (number("WORLD_FROM", 0), number("WORLD_SEEDS", 40));
    let began = Instant::now();
    let (mut steps, mut slowest) = (0, (0, 0));
    for seed in from..from + count {
        let report = Scenario::check_over(seed, &stores());
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
    let from = number("WORLD_FROM", 1_000);
    for seed in from..from + number("WORLD_TWICE", 4) {
        let (one, other) = (Scenario::of(seed).run_over(&stores()), Scenario::of(seed).run_over(&stores()));
        assert_eq!(one.fingerprint(), other.fingerprint(), "{one}\n\nand again:\n{other}");
        assert_eq!(one.steps(), other.steps());
    }
}
