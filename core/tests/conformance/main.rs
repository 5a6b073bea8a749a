//! The conformance suites catch mistakes: for each case there is a store that breaks what it is about, and fails it.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

mod broken_bucket_store;
mod broken_client_store;
mod bucket_faults;
mod changed_answers;
mod client_faults;
mod confirmed_numbers;
mod staged_lines;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use syncline_core::testing::{bucket_store_suite, client_store_suite};

use broken_bucket_store::BrokenBucketStore;
use broken_client_store::BrokenClientStore;
use bucket_faults::{BUCKET_FAULTS, BucketFault};
use client_faults::{CLIENT_FAULTS, ClientFault};

/// What a case says about a store, if it fails.
fn complaint(case: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(case)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
}

/// Each case of a suite passes without a mistake, and fails with the one that is meant for it.
fn every_case_catches_its_mistake<F: Debug + Copy + PartialEq>(
    cases: &[&str],
    faults: &[(&str, F)],
    right: F,
    run: impl Fn(&str, F),
) {
    let mut wrong = Vec::new();
    for case in cases {
        let meant: Vec<F> = faults.iter().filter(|(of, _)| of == case).map(|(_, fault)| *fault).collect();
        let [fault] = meant[..] else {
            wrong.push(format!("{case}: one mistake is to be made for it, not {meant:?}"));
            continue;
        };
        if faults.iter().filter(|(_, other)| *other == fault).count() != 1 || fault == right {
            wrong.push(format!("{case}: {fault:?} is not a mistake of its own"));
        }
        if let Some(complaint) = complaint(|| run(case, right)) {
            wrong.push(format!("{case} fails without a mistake: {complaint}"));
        }
        match complaint(|| run(case, fault)) {
            Some(complaint) => println!("{case} catches {fault:?}: {complaint}"),
            None => wrong.push(format!("{case} does not catch {fault:?}")),
        }
    }
    for (case, fault) in faults.iter().filter(|(case, _)| !cases.contains(case)) {
        wrong.push(format!("{fault:?} is meant for {case}, which is not in the suite"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_case_of_the_bucket_store_suite_catches_its_mistake() {
    let run = |case: &str, fault| bucket_store_suite::run_case(case, || async { BrokenBucketStore::new(fault) });
    every_case_catches_its_mistake(bucket_store_suite::CASES, BUCKET_FAULTS, BucketFault::Nothing, run);
}

#[test]
fn every_case_of_the_client_store_suite_catches_its_mistake() {
    let run = |case: &str, fault| client_store_suite::run_case(case, || async { BrokenClientStore::new(fault) });
    every_case_catches_its_mistake(client_store_suite::CASES, CLIENT_FAULTS, ClientFault::Nothing, run);
}
