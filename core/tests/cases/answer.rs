//! Comparing what a config answers with what was recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use syncline_core::{ConfigRequest, EvaluatedLookup, Evaluation, LookupRows, Reason, SyncConfig};

use super::buckets::{Buckets, Object};
use super::input::{Input, Request, Row};

/// Rows by their identity: the buckets that each is in, and its entries in lookup indexes.
type State = BTreeMap<(String, String, String), (Vec<(String, Object)>, Vec<EvaluatedLookup>)>;

/// `Err` names the first difference.
pub(crate) fn compare(config: &SyncConfig, input: &Input, expect: &Json) -> Result<(), String> {
    let schema = input.default_schema.as_deref().unwrap_or("public");
    let mut state = State::new();
    let mut both = Sides::default();
    if input.steps.is_empty() {
        put(config, schema, &input.rows, &expect["rows"], &mut state, &mut both)?;
        requests(config, input, &state, &expect["requests"], &mut both)?;
        return both.own.compare(&both.expected);
    }
    for (index, step) in input.steps.iter().enumerate() {
        let expected = &expect["steps"][index];
        for key in &step.delete {
            state.remove(&(key.schema.clone(), key.table.clone(), key.key.clone()));
        }
        let at = |message: String| format!("step `{}`: {message}", step.name);
        both.step.clone_from(&step.name);
        put(config, schema, &step.put, &expected["rows"], &mut state, &mut both).map_err(at)?;
        requests(config, input, &state, &expected["requests"], &mut both).map_err(at)?;
    }
    both.own.compare(&both.expected)
}

/// Buckets as they are here, and as they were recorded.
#[derive(Default)]
struct Sides {
    own: Buckets,
    expected: Buckets,
    step: String,
}

/// Evaluates rows, and compares what each is in, apart from names of buckets.
fn put(
    config: &SyncConfig,
    schema: &str,
    rows: &[Row],
    expected: &Json,
    state: &mut State,
    both: &mut Sides,
) -> Result<(), String> {
    let mut out = Evaluation::new();
    for (index, row) in rows.iter().enumerate() {
        out.clear();
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
        let listed: Vec<_> =
            buckets.iter().map(|entry| (text(entry, "table"), text(entry, "id"), text(entry, "data"))).collect();
        let wanted: BTreeSet<_> = listed.iter().collect();
        if objects != wanted {
            return Err(format!("row {} gives {objects:?}, expected {wanted:?}", row.reference));
        }
        let at = format!("{} {} {}", both.step, index, row.reference);
        found.iter().for_each(|(bucket, object)| both.own.row(&at, bucket, object.clone()));
        for (entry, object) in buckets.iter().zip(&listed) {
            both.expected.row(&at, &text(entry, "bucket"), object.clone());
        }
        let events: Vec<_> = (out.events.iter())
            .map(|event| (event.event.to_string(), String::from_utf8_lossy(&event.data).into_owned()))
            .collect();
        let wanted: Vec<_> = expected[index]["events"].as_array().into_iter().flatten().collect();
        let wanted: Vec<_> = wanted.iter().map(|event| (text(event, "event"), text(event, "data"))).collect();
        if events != wanted {
            return Err(format!("row {} gives the events {events:?}, expected {wanted:?}", row.reference));
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

/// Resolves every request, and compares what it sees and its failures.
fn requests(
    config: &SyncConfig,
    input: &Input,
    state: &State,
    expected: &Json,
    both: &mut Sides,
) -> Result<(), String> {
    for (name, request) in &input.requests {
        let expected = &expected[name];
        let request = Request::read(request);
        let asked = ConfigRequest {
            identity: &request.identity,
            parameters: &request.parameters,
            include_defaults: request.include_defaults,
            subscriptions: &request.subscriptions,
        };
        let answer = config.resolve_with(&asked, |wanted| {
            let entries = state.values().flat_map(|(_, entries)| entries);
            let found = entries.filter(|entry| entry.index == wanted.index && entry.values == wanted.values);
            LookupRows { rows: found.flat_map(|entry| entry.outputs.iter().cloned()).collect() }
        });
        let throws = expected.get("throws").is_some_and(|throws| !throws.is_null());
        if answer.is_err() != throws {
            return Err(format!("request {name} answers {answer:?}, expected throws: {}", expected["throws"]));
        }
        let Ok(resolved) = answer else { continue };
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
        let wanted = expected["errors"].as_array().is_some_and(|errors| !errors.is_empty());
        if failed != wanted {
            return Err(format!("request {name}: errors {:?}, expected {}", resolved.streams, expected["errors"]));
        }
        let at = format!("{} {name}", both.step);
        for (id, bucket) in &buckets {
            both.own.grant(&at, id, bucket.priority.0.into(), bucket.reasons.iter().map(reason).collect());
        }
        for bucket in ["static", "dynamic"].iter().flat_map(|list| expected[*list].as_array().into_iter().flatten()) {
            let reasons = bucket["reasons"].as_array().unwrap().iter().map(ToString::to_string).collect();
            both.expected.grant(&at, &text(bucket, "bucket"), bucket["priority"].as_u64().unwrap(), reasons);
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
