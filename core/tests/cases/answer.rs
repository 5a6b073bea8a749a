//! Comparing what a config answers with what was recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use syncline_core::{ConfigRequest, EvaluatedLookup, Evaluation, LookupRows, Reason, SyncConfig};

use super::input::{Input, Request, Row};

/// `(table, id, data)` of a row in a bucket.
type Object = (String, String, String);
/// Rows by their identity: the buckets that each is in, and its entries in lookup indexes.
type State = BTreeMap<(String, String, String), (Vec<(String, Object)>, Vec<EvaluatedLookup>)>;

/// `Err` names the first difference.
pub(crate) fn compare(config: &SyncConfig, input: &Input, expect: &Json) -> Result<(), String> {
    let schema = input.default_schema.as_deref().unwrap_or("public");
    let mut state = State::new();
    if input.steps.is_empty() {
        put(config, schema, &input.rows, &expect["rows"], &mut state)?;
        return requests(config, input, &state, &expect["requests"]);
    }
    for (index, step) in input.steps.iter().enumerate() {
        let expected = &expect["steps"][index];
        for key in &step.delete {
            state.remove(&(key.schema.clone(), key.table.clone(), key.key.clone()));
        }
        let at = |message: String| format!("step `{}`: {message}", step.name);
        put(config, schema, &step.put, &expected["rows"], &mut state).map_err(at)?;
        requests(config, input, &state, &expected["requests"]).map_err(at)?;
    }
    Ok(())
}

/// Evaluates rows, and compares what each is in, apart from names of buckets.
fn put(config: &SyncConfig, schema: &str, rows: &[Row], expected: &Json, state: &mut State) -> Result<(), String> {
    let mut out = Evaluation::new();
    for (index, row) in rows.iter().enumerate() {
        out.clear();
        assert_eq!(row.connection, "default", "other connections are refused when a config is parsed");
        config.bind_in(schema, &row.table()).evaluate(&row.values(), &mut out);
        let found: Vec<_> = out
            .rows
            .iter()
            .map(|row| {
                let object = (
                    row.object_type.to_string(),
                    row.object_id.to_string(),
                    String::from_utf8(row.data.to_vec()).unwrap(),
                );
                (format!("{}{}", row.definition, row.parameters), object)
            })
            .collect();
        let objects: BTreeSet<_> = found.iter().map(|(_, object)| object).collect();
        let buckets = expected[index]["buckets"].as_array().map_or([].as_slice(), Vec::as_slice);
        let text = |entry: &Json, key: &str| entry[key].as_str().unwrap().to_owned();
        let wanted: Vec<_> =
            buckets.iter().map(|entry| (text(entry, "table"), text(entry, "id"), text(entry, "data"))).collect();
        let wanted: BTreeSet<_> = wanted.iter().collect();
        if objects != wanted {
            return Err(format!("row {} gives {objects:?}, expected {wanted:?}", row.reference));
        }
        let failures = expected[index]["errors"].as_array().map_or(0, Vec::len);
        if (failures == 0) != out.errors.is_empty() {
            return Err(format!("row {} fails with {:?}, expected {failures} failures", row.reference, out.errors));
        }
        let entries = std::mem::take(&mut out.lookups);
        state.insert((row.schema.clone(), row.table.clone(), row.key.clone()), (found, entries));
    }
    Ok(())
}

/// Resolves every request, and compares what it sees, its priorities and its failures.
fn requests(config: &SyncConfig, input: &Input, state: &State, expected: &Json) -> Result<(), String> {
    for (name, request) in &input.requests {
        let expected = &expected[name];
        let request = Request::read(request);
        let asked = ConfigRequest {
            identity: &request.identity,
            parameters: &request.parameters,
            include_defaults: request.include_defaults,
            subscriptions: &request.subscriptions,
        };
        let resolved = config.resolve_with(&asked, |wanted| {
            let entries = state.values().flat_map(|(_, entries)| entries);
            let found = entries.filter(|entry| entry.index == wanted.index && entry.values == wanted.values);
            LookupRows { rows: found.flat_map(|entry| entry.outputs.iter().cloned()).collect() }
        });
        let buckets: BTreeMap<String, _> = resolved
            .buckets
            .iter()
            .map(|bucket| (format!("{}{}", bucket.definition, bucket.parameters), bucket))
            .collect();
        let visible: BTreeSet<_> = state
            .values()
            .flat_map(|(rows, _)| rows)
            .filter(|(bucket, _)| buckets.contains_key(bucket))
            .map(|(_, row)| row)
            .collect();
        let text = |entry: &Json, key: &str| entry[key].as_str().unwrap().to_owned();
        let wanted: Vec<_> = expected["visible"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| (text(entry, "table"), text(entry, "id"), text(entry, "data")))
            .collect();
        let wanted: BTreeSet<_> = wanted.iter().collect();
        if visible != wanted {
            return Err(format!("request {name} sees {visible:?}, expected {wanted:?}"));
        }
        let failed = resolved.streams.iter().any(|stream| !stream.errors.is_empty());
        let wanted = expected["errors"].as_array().is_some_and(|errors| !errors.is_empty())
            || expected.get("throws").is_some_and(|throws| !throws.is_null());
        if failed != wanted {
            return Err(format!("request {name}: errors {:?}, expected {}", resolved.streams, expected["errors"]));
        }
        let used: BTreeSet<_> = state.values().flat_map(|(rows, _)| rows).map(|(bucket, _)| bucket).collect();
        let found: BTreeSet<_> = (buckets.iter().filter(|(id, _)| used.contains(id)))
            .map(|(_, bucket)| (u64::from(bucket.priority.0), bucket.reasons.iter().map(reason).collect()))
            .collect();
        let wanted: BTreeSet<_> = ["static", "dynamic"]
            .iter()
            .flat_map(|list| expected[*list].as_array().into_iter().flatten())
            .map(|bucket| {
                let reasons: BTreeSet<_> =
                    bucket["reasons"].as_array().unwrap().iter().map(|reason| reason.to_string()).collect();
                (bucket["priority"].as_u64().unwrap(), reasons)
            })
            .collect();
        if !found.is_subset(&wanted) {
            return Err(format!("request {name}: priorities and reasons {found:?}, expected {wanted:?}"));
        }
    }
    Ok(())
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Default(_) => "\"default\"".into(),
        Reason::Subscription(index) => format!("{{\"subscription\":{index}}}"),
    }
}
