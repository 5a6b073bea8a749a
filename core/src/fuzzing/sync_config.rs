//! Sync configs, and what rows and requests make of them.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::config::{ConfigRequest, Diagnostic, Evaluation, StreamSubscription, SyncConfig};
use crate::identity::Identity;
use crate::json;
use crate::table::{SourceColumn, SourceTable, TableId};
use crate::value::Value;

/// Tables that are evaluated of one config.
const TABLES: usize = 6;

/// The text of a sync config: what is wrong lies inside it and can be shown; what compiles evaluates rows and requests,
/// and does so the same when the text is compiled again.
pub fn sync_config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
    }
}

/// The SQL of one query, in an otherwise sound config.
pub fn sync_config_sql(bytes: &[u8]) {
    if let Ok(sql) = std::str::from_utf8(bytes) {
        let mut scalar = Vec::new();
        json::write_string(&mut scalar, sql);
        let scalar = String::from_utf8_lossy(&scalar);
        check(&format!("config: {{ edition: 3 }}\nstreams:\n  s:\n    auto_subscribe: true\n    query: {scalar}\n"));
    }
}

fn check(text: &str) {
    let again = SyncConfig::parse(text);
    match (SyncConfig::parse(text), again) {
        (Err(problems), Err(again)) => {
            assert!(problems.is_fatal() && !problems.to_string().is_empty());
            problems.iter().for_each(|problem| check_place(problem, text));
            assert_eq!(problems, again);
        }
        (Ok(config), Ok(again)) => {
            assert!(config.text() == text);
            config.warnings().iter().for_each(|problem| check_place(problem, text));
            assert_eq!(config.warnings(), again.warnings());
            assert_eq!(config.selection(), again.selection());
            assert!(
                config.definitions().iter().map(|one| one.form()).eq(again.definitions().iter().map(|one| one.form()))
            );
            check_rows(&config, &again);
            check_requests(&config, &again);
        }
        (one, other) => panic!("compiled once and refused once: {one:?}, {other:?}"),
    }
}

/// The problem lies inside the text.
fn check_place(problem: &Diagnostic, text: &str) {
    assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
    assert!(problem.utf16_span(text).end <= text.encode_utf16().count(), "{problem:?}");
    assert!(problem.line >= 1 && problem.column >= 1, "{problem:?}");
    // A text that ends with a newline ends in the line after it.
    assert!(problem.line <= text.split('\n').count().max(text.lines().count()), "{problem:?}");
}

/// Values of every type, some of them awkward.
fn values() -> [Value; 16] {
    [
        Value::Null,
        Value::from("anna"),
        Value::Integer(0),
        Value::from("[1,\"anna\",null,2.5]"),
        Value::Integer(i64::MIN),
        Value::Real(-0.5),
        Value::Blob(Bytes::from_static(&[0xff, 0, 1])),
        Value::from("2024-02-29T23:59:59.999+14:00"),
        Value::Integer(i64::MAX),
        Value::Real(f64::NAN),
        Value::from("{\"a\":{\"b\":[true]}}"),
        Value::from(""),
        Value::Real(1e300),
        Value::from("é\u{0}🚀'\""),
        Value::Integer(1),
        Value::Real(f64::NEG_INFINITY),
    ]
}

/// A table that a pattern names: its columns, and `id`.
fn tables(config: &SyncConfig) -> Vec<SourceTable> {
    let table = |(number, pattern): (usize, &crate::table::TablePattern)| {
        let named = pattern.columns.clone().unwrap_or_else(|| vec!["owner_id".into(), "name".into()]);
        let column = |name: Arc<str>| SourceColumn { key: &*name == "id", name, type_name: "text".into() };
        let mut columns: Vec<_> = named.into_iter().map(column).collect();
        if !columns.iter().any(|column| column.key) {
            columns.insert(0, column("id".into()));
        }
        SourceTable {
            id: TableId(number as u64),
            schema: pattern.schema.clone().unwrap_or_else(|| "public".into()),
            name: if pattern.prefix { format!("{}x", pattern.name).into() } else { pattern.name.clone() },
            columns,
        }
    };
    config.selection().patterns.iter().enumerate().map(table).take(TABLES).collect()
}

fn check_rows(config: &SyncConfig, again: &SyncConfig) {
    let values = values();
    let (mut out, mut other) = (Evaluation::new(), Evaluation::new());
    for table in tables(config) {
        let (bound, bound_again) = (config.bind(&table), again.bind(&table));
        for row in 0..values.len() {
            let row: Vec<_> = (0..table.columns.len()).map(|column| values[(row + 3 * column) % 16].clone()).collect();
            out.clear();
            other.clear();
            bound.evaluate(&row, &mut out);
            bound_again.evaluate(&row, &mut other);
            assert_eq!((&out.rows, &out.errors), (&other.rows, &other.errors));
            for row in &out.rows {
                assert!(row.definition < config.definitions().len());
                assert!(serde_json::from_slice::<Map<String, Json>>(&row.data).is_ok(), "{row:?}");
                // An infinite number is written as one beyond what a double holds.
                assert!(serde_json::from_str::<Vec<&RawValue>>(&row.parameters).is_ok(), "{row:?}");
            }
        }
    }
}

fn check_requests(config: &SyncConfig, again: &SyncConfig) {
    let anything = json!({ "x": 1, "list": ["a", 2, null], "l": [1, 2], "id": "i", "a": { "b": 2.5 }, "list_id": "l1", "role": "admin" });
    let Json::Object(parameters) = anything else { return };
    let identity =
        Identity::from_claims(parameters.clone()).claim("sub", "anna").claim("parameters", parameters.clone());
    let stream = config.stream_names().first().map(ToString::to_string).unwrap_or_default();
    let subscription = |parameters: &Map<String, Json>| StreamSubscription {
        stream: stream.clone(),
        parameters: Some(parameters.clone()),
        override_priority: None,
    };
    let subscriptions = [subscription(&parameters), subscription(&Map::new()), subscription(&parameters)];
    for (identity, parameters) in [(&identity, &parameters), (&Identity::new(""), &Map::new())] {
        let request = ConfigRequest { identity, parameters, include_defaults: true, subscriptions: &subscriptions };
        let resolved = config.resolve_within(&request, 1_000);
        let Ok(resolved) = resolved else { continue };
        assert_eq!(again.resolve_within(&request, 1_000).ok().as_ref(), Some(&resolved));
        for bucket in &resolved.buckets {
            assert!(bucket.definition < config.definitions().len());
            assert!(serde_json::from_str::<Vec<Json>>(&bucket.parameters).is_ok(), "{bucket:?}");
        }
        let mut names: Vec<_> = resolved.buckets.iter().map(|one| (one.definition, &one.parameters)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), resolved.buckets.len(), "every bucket once");
    }
}
