//! One target, from its first seed to its last input.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::{self, Target};
use crate::mutator::Mutator;
use crate::watchdog::{self, Watchdog};

/// Runs a target over the files in `fuzz/seeds/<name>/`, in the order of their names, and over `count` inputs in all, or as
/// many as the variables say that this crate describes.
///
/// # Panics
/// If an input makes the target panic: with the input, shrunk, and the command that repeats it. If there are no seeds, or a
/// variable is not what it should be.
pub fn run(name: &str, target: fn(&[u8]), count: u64) {
    if let Ok(hex) = env::var("FUZZ_INPUT") {
        let input = failure::from_hex(&hex).unwrap_or_else(|| panic!("FUZZ_INPUT must be hexadecimal digits"));
        return target(&input);
    }
    let seeds = seeds(&directory(name));
    assert!(!seeds.is_empty(), "there are no seeds in {}", directory(name).display());
    let limits = Limits {
        from: number("FUZZ_FROM").unwrap_or(0),
        count: number("FUZZ_COUNT").unwrap_or(count),
        time: number("FUZZ_SECONDS").map(Duration::from_secs),
        trace: env::var_os("FUZZ_TRACE").is_some(),
    };
    match campaign(name, target, &Mutator::new(seeds), &limits) {
        Ok(told) => println!("{told}"),
        Err(told) => panic!("{told}"),
    }
}

#[derive(Debug)]
struct Limits {
    from: u64,
    count: u64,
    /// Instead of the count.
    time: Option<Duration>,
    trace: bool,
}

/// What was done, or what was found.
fn campaign(name: &str, target: Target, mutator: &Mutator, limits: &Limits) -> Result<String, String> {
    let watchdog = Watchdog::new(name);
    let began = Instant::now();
    let mut number = limits.from;
    let mut slowest = (Duration::ZERO, number);
    while limits.time.map_or(number - limits.from < limits.count, |time| began.elapsed() < time) {
        let input = mutator.input(number);
        if limits.trace {
            println!("{name}: input {number}: {}", input.escape_ascii());
        }
        watchdog.begin(&input);
        let outcome = failure::attempt(target, &input);
        let took = watchdog.end();
        if let Err((place, text)) = outcome {
            let smallest = failure::smallest(target, &input, &place);
            let told = failure::describe(name, &smallest);
            return Err(format!("{name}: input {number} breaks it at {place}: {text}\n{told}"));
        }
        if took > watchdog::LONGEST {
            let told = failure::describe(name, &input);
            return Err(format!("{name}: input {number} takes {} ms\n{told}", took.as_millis()));
        }
        slowest = slowest.max((took, number));
        number += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    let inputs = number - limits.from;
    Ok(format!(
        "{name}: {inputs} inputs from {} in {seconds:.1} s, {:.0} a second; slowest {} ms (input {})",
        limits.from,
        inputs as f64 / seconds,
        slowest.0.as_millis(),
        slowest.1
    ))
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

fn directory(name: &str) -> PathBuf {
    // This crate lies one level below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name)
}

/// The content of the files of a directory, in the order of their names.
fn seeds(directory: &Path) -> Vec<Vec<u8>> {
    let read = || -> std::io::Result<Vec<Vec<u8>>> {
        let paths: std::io::Result<Vec<_>> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths?;
        paths.sort();
        paths.iter().map(fs::read).collect()
    };
    read().unwrap_or_else(|error| panic!("{} cannot be read: {error}", directory.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refuses_b(input: &[u8]) {
        assert!(!input.contains(&b'b'), "a b");
    }

    fn limits(from: u64, count: u64) -> Limits {
        Limits { from, count, time: None, trace: false }
    }

    #[test]
    fn an_input_that_fails_ends_the_campaign_and_is_told() {
        let mutator = Mutator::new(vec![b"a".to_vec(), b"xbx".to_vec()]);
        let told = campaign("t", refuses_b, &mutator, &limits(0, 1)).unwrap();
        assert!(told.starts_with("t: 1 inputs from 0 "), "{told}");
        let told = campaign("t", refuses_b, &mutator, &limits(0, 2)).unwrap_err();
        assert!(told.contains("input 1 breaks it") && told.contains(": a b\n"), "{told}");
        assert!(told.contains("input of 1 bytes: b\"b\"") && told.contains("FUZZ_INPUT=62 "), "{told}");
        let told = campaign("t", refuses_b, &mutator, &limits(1, 1)).unwrap_err();
        assert!(told.contains("input 1 breaks it"), "{told}");
    }

    #[test]
    fn a_campaign_ends_in_time() {
        let time = Some(Duration::from_millis(20));
        let mutator = Mutator::new(vec![b"a".to_vec()]);
        let told = campaign("t", |_| {}, &mutator, &Limits { time, ..limits(7, 0) }).unwrap();
        assert!(told.contains(" inputs from 7 in 0.0 s"), "{told}");
    }
}
