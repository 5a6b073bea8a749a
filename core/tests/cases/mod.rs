//! Reading and running recorded cases.

mod answer;
mod buckets;
pub(crate) mod input;
#[cfg(feature = "testing")]
pub(crate) mod naive;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;
use syncline_core::DiagnosticLevel;

pub(crate) use input::Input;

/// One file of cases.
#[derive(Debug, Deserialize)]
pub(crate) struct Area {
    pub(crate) area: String,
    pub(crate) cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) input: Option<Input>,
    #[serde(default)]
    pub(crate) expect: Json,
}

/// How a case went.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    /// The config is refused, though the official service loads it: honest, but not supported.
    Refused(String),
    Failed(String),
    /// Not about the config language.
    Elsewhere,
}

impl Area {
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }
}

pub(crate) fn run(case: &Case) -> Outcome {
    let (Some(input), "parse" | "evaluate") = (&case.input, case.kind.as_str()) else { return Outcome::Elsewhere };
    let expected_to_load = case.expect["loads"].as_bool().unwrap();
    let (config, diagnostics) = match input.parse() {
        Ok(config) => {
            let warnings = config.warnings().to_vec();
            (Some(config), warnings)
        }
        Err(diagnostics) => (None, diagnostics.as_slice().to_vec()),
    };
    let kinds: Vec<_> = diagnostics.iter().map(|found| (found.level.to_string(), found.kind)).collect();
    match (&config, expected_to_load) {
        (None, true) => return Outcome::Refused(format!("{kinds:?}")),
        (Some(_), false) => return Outcome::Failed("loads, and must not".into()),
        _ => {}
    }
    if let Some(difference) = compare_kinds(&diagnostics, case.expect["errors"].as_array().unwrap()) {
        return match config {
            None => Outcome::Refused(difference),
            Some(_) => Outcome::Failed(difference),
        };
    }
    let Some(config) = config.filter(|_| case.kind == "evaluate") else { return Outcome::Passed };
    match answer::compare(&config, input, &case.expect) {
        Ok(()) => Outcome::Passed,
        Err(difference) => Outcome::Failed(difference),
    }
}

/// Levels and kinds must be the same, in any order. Kinds that only the official evaluator has stand for any error.
fn compare_kinds(found: &[syncline_core::Diagnostic], expected: &[Json]) -> Option<String> {
    let count = |kinds: Vec<(bool, String)>| {
        let mut counts = BTreeMap::new();
        for kind in kinds {
            *counts.entry(kind).or_insert(0) += 1;
        }
        counts
    };
    let any = ["schema-check", "evaluator-crash"];
    let expected: Vec<_> =
        expected.iter().map(|error| (error["level"] == "fatal", error["kind"].as_str().unwrap().to_owned())).collect();
    // The official service says nothing of events that it does not know.
    let found = found.iter().filter(|found| found.kind != "event-unused");
    let found: Vec<_> = found.map(|found| (found.level == DiagnosticLevel::Fatal, found.kind.to_owned())).collect();
    if expected.iter().any(|(_, kind)| any.contains(&kind.as_str())) && found.iter().any(|(fatal, _)| *fatal) {
        return None;
    }
    let message = format!("reports {found:?}, expected {expected:?}");
    (count(found) != count(expected)).then_some(message)
}
