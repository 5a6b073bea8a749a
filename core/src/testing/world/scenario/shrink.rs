//! Finding the smallest part of a scenario that still breaks the same promise.

use std::sync::Arc;

use super::super::stores::WorldStores;
use super::{Report, Scenario};

/// Runs that are made to find it, at most.
const RUNS: usize = 400;

/// Leaves out steps, many at once and then one by one, as long as the same promise stays broken.
pub(super) fn smallest(scenario: &Scenario, report: &Report, stores: &Arc<dyn WorldStores>) -> Report {
    let broken = report.failure.as_ref().map(|failure| failure.invariant);
    let mut best = (scenario.clone(), report.clone());
    let mut runs = 0;
    let mut size = best.0.steps.len().div_ceil(2);
    while size > 0 && runs < RUNS {
        let mut at = 0;
        let mut left_out = false;
        while at < best.0.steps.len() && runs < RUNS {
            let mut smaller = best.0.clone();
            let end = (at + size).min(smaller.steps.len());
            smaller.steps.drain(at..end);
            runs += 1;
            let report = smaller.run_over(stores);
            if report.failure.as_ref().map(|failure| failure.invariant) == broken {
                best = (smaller, report);
                left_out = true;
            } else {
                at += size;
            }
        }
        if size > 1 {
            size = size.div_ceil(2);
        } else if !left_out {
            break;
        }
    }
    best.1
}
