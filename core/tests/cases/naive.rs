//! The naive evaluator against the recorded cases: it is only worth comparing with if it says what was recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use syncline_core::testing::{NaiveConfig, NaiveTable};
use syncline_core::{ConfigRequest, SourceTable, SyncConfig, Value};

use super::Case;
use super::input::{Input, Request, Row};

/// Rows by their identity.
type State<'a> = BTreeMap<(String, String, String), &'a Row>;

/// How many requests of a case were answered as recorded; `Err` is the first difference, or what is not known.
pub(crate) fn run(case: &Case) -> Result<usize, String> {
    let Some(input) = case.input.as_ref().filter(|_| case.kind == "evaluate") else { return Ok(0) };
    if SyncConfig::parse(&input.config).is_err() {
        return Ok(0);
    }
    let naive = NaiveConfig::parse(&input.config).map_err(|diagnostics| diagnostics.to_string())?;
    let mut state = State::new();
    let mut answered = 0;
    put(&input.rows, &mut state);
    if input.steps.is_empty() {
        return requests(&naive, input, &state, &case.expect["requests"]);
    }
    for (index, step) in input.steps.iter().enumerate() {
        for key in &step.delete {
            state.remove(&(key.schema.clone(), key.table.clone(), key.key.clone()));
        }
        put(&step.put, &mut state);
        answered += requests(&naive, input, &state, &case.expect["steps"][index]["requests"])
            .map_err(|difference| format!("step `{}`: {difference}", step.name))?;
    }
    Ok(answered)
}

fn put<'a>(rows: &'a [Row], state: &mut State<'a>) {
    for row in rows {
        state.insert((row.schema.clone(), row.table.clone(), row.key.clone()), row);
    }
}

fn requests(naive: &NaiveConfig, input: &Input, state: &State<'_>, expected: &Json) -> Result<usize, String> {
    // Rows of one table need not have the same columns: each is a table of its own.
    let tables: Vec<(SourceTable, Vec<Vec<Value>>)> =
        state.values().map(|row| (row.table(), vec![row.values()])).collect();
    let tables: Vec<_> = tables.iter().map(|(table, rows)| NaiveTable { table, rows }).collect();
    let schema = input.default_schema.as_deref().unwrap_or("public");
    for (name, request) in &input.requests {
        let (expected, request) = (&expected[name], Request::read(request));
        let asked = ConfigRequest {
            identity: &request.identity,
            parameters: &request.parameters,
            include_defaults: request.include_defaults,
            subscriptions: &request.subscriptions,
        };
        let answer = naive.rows_in(schema, &tables, &asked).map_err(|error| error.to_string())?;
        let throws = expected.get("throws").is_some_and(|throws| !throws.is_null());
        if answer.is_none() != throws {
            return Err(format!("request {name} answers {answer:?}, expected throws: {}", expected["throws"]));
        }
        let Some(rows) = answer else { continue };
        let text = |entry: &Json, key: &str| entry[key].as_str().unwrap().to_owned();
        let wanted = expected["visible"].as_array().into_iter().flatten();
        let wanted: BTreeSet<_> =
            wanted.map(|entry| (text(entry, "table"), text(entry, "id"), text(entry, "data"))).collect();
        let all = |certain: bool| -> BTreeSet<_> {
            let rows = rows.iter().filter(|row| row.certain || !certain);
            rows.map(|row| (row.object_type.clone(), row.object_id.clone(), row.data.clone())).collect()
        };
        if !wanted.is_subset(&all(false)) || !all(true).is_subset(&wanted) {
            return Err(format!("request {name} sees {rows:?}, expected {wanted:?}"));
        }
    }
    Ok(input.requests.len())
}
