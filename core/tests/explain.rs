//! What a config says of why a row reaches a user, or does not.
#![allow(clippy::unwrap_used, dead_code, reason = "the cases are read for other tests as well")]

mod cases;

use std::collections::BTreeSet;

use cases::Area;
use cases::input::Request;
use syncline_core::{
    ConfigLookup, ConfigRequest, EvaluatedLookup, Evaluation, Explanation, Identity, LookupRows, RequestOutcome,
    RowOutcome, SourceColumn, SourceTable, StreamSubscription, SyncConfig, TableId, Value,
};

fn found(lookups: &[EvaluatedLookup], wanted: &ConfigLookup) -> LookupRows {
    let entries = lookups.iter().filter(|entry| entry.index == wanted.index && entry.values == wanted.values);
    LookupRows { rows: entries.flat_map(|entry| entry.outputs.iter().cloned()).collect() }
}

/// Of every row of every recorded case, and every request, the explanation says what happens.
#[test]
fn a_row_that_is_said_to_be_sent_is_and_no_other() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sync-rules-cases");
    let (mut sent, mut kept) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for case in Area::parse(&std::fs::read_to_string(entry.path()).unwrap()).cases {
            let Some(input) = case.input.filter(|input| input.default_schema.as_deref() == Some("public")) else {
                continue;
            };
            let Ok(config) = SyncConfig::parse(&input.config) else { continue };
            let mut evaluation = Evaluation::new();
            let rows: Vec<_> = input.rows.iter().map(|row| (row.table(), row.values())).collect();
            rows.iter().for_each(|(table, values)| config.bind(table).evaluate(values, &mut evaluation));
            for (name, request) in &input.requests {
                let request = Request::read(request);
                let request = ConfigRequest {
                    identity: &request.identity,
                    parameters: &request.parameters,
                    include_defaults: request.include_defaults,
                    subscriptions: &request.subscriptions,
                };
                let Ok(resolved) = config.resolve_with(&request, |wanted| found(&evaluation.lookups, wanted)) else {
                    continue;
                };
                let buckets: BTreeSet<_> =
                    resolved.buckets.iter().map(|bucket| (bucket.definition, bucket.parameters.clone())).collect();
                for (table, values) in &rows {
                    let mut own = Evaluation::new();
                    config.bind(table).evaluate(values, &mut own);
                    let is_sent =
                        own.rows.iter().any(|row| buckets.contains(&(row.definition, row.parameters.clone())));
                    let said = config.explain(&request, table, values, |wanted| found(&evaluation.lookups, wanted));
                    assert_eq!(said.is_sent(), is_sent, "{}: {name}, {values:?}: {said}", case.id);
                    if is_sent {
                        sent += 1;
                    } else {
                        kept += 1;
                        assert!(!said.branches.is_empty(), "{}: nothing is said", case.id);
                    }
                }
            }
        }
    }
    assert!(sent > 300 && kept > 300, "{sent} rows are sent and {kept} are not");
}

const SYNC_CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE owner = auth.user_id() AND NOT archived
  shared:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE team IN (SELECT team FROM members WHERE user = auth.user_id())
  one:
    query: SELECT * FROM notes WHERE id = subscription.parameter('note') AND auth.parameter('staff')
";

fn explained(values: [Value; 4], claims: &[(&str, Value)], subscribed: bool, teams: &[&str]) -> Explanation {
    let config = SyncConfig::parse(SYNC_CONFIG).unwrap_or_else(|problems| panic!("{problems}"));
    let column = |name: &str| SourceColumn { name: name.into(), key: name == "id", type_name: "text".into() };
    let columns = ["id", "owner", "team", "archived"].map(column).into();
    let table = SourceTable { id: TableId(1), schema: "public".into(), name: "notes".into(), columns };
    let identity = claims.iter().fold(Identity::new("anna"), |identity, (name, value)| {
        identity.claim(*name, value.as_text().map_or(serde_json::json!(true), |text| serde_json::json!(text)))
    });
    let parameters = serde_json::json!({ "note": "n1" }).as_object().cloned();
    let subscription = StreamSubscription { stream: "one".into(), parameters, override_priority: None };
    let subscriptions = if subscribed { vec![subscription] } else { Vec::new() };
    let request = ConfigRequest {
        identity: &identity,
        parameters: &serde_json::Map::new(),
        include_defaults: true,
        subscriptions: &subscriptions,
    };
    let rows = teams.iter().map(|team| format!("[\"{team}\"]").into()).collect::<Vec<_>>();
    config.explain(&request, &table, &values, |_| LookupRows { rows: rows.clone() })
}

#[test]
fn the_first_condition_that_fails_is_named_on_either_side() {
    let note = |owner: &str, archived: i64| ["n1".into(), owner.into(), "red".into(), archived.into()];
    let said = explained(note("anna", 1), &[], false, &[]);
    let [mine, shared, one] = said.branches.as_slice() else { panic!("{said:?}") };
    assert_eq!(mine.row, RowOutcome::Excluded("NOT archived".into()));
    assert_eq!(mine.request, RequestOutcome::HasBuckets(vec!["[\"anna\"]".into()]));
    assert_eq!(shared.row, RowOutcome::InBuckets(vec!["[\"red\"]".into()]));
    let RequestOutcome::NothingFound(lookup) = &shared.request else { panic!("{said:?}") };
    assert_eq!((lookup.values.as_ref(), shared.lookups[0].1), ("[\"anna\"]", 0));
    assert_eq!(one.request, RequestOutcome::NotSubscribed);
    assert!(!said.is_sent());

    let said = explained(note("ben", 0), &[], true, &["blue", "red"]);
    let [mine, shared, one] = said.branches.as_slice() else { panic!("{said:?}") };
    assert_eq!((&mine.row, mine.buckets.len()), (&RowOutcome::InBuckets(vec!["[\"ben\"]".into()]), 0));
    assert_eq!((shared.lookups[0].1, shared.buckets.as_slice()), (2, &["[\"red\"]".into()][..]));
    assert_eq!(one.request, RequestOutcome::Excluded("auth.parameter('staff')".into()));
    assert!(said.is_sent());

    let said = explained(["n1".into(), Value::Null, Value::Null, 0.into()], &[("staff", 1.into())], true, &[]);
    let [mine, _, one] = said.branches.as_slice() else { panic!("{said:?}") };
    assert_eq!(mine.row, RowOutcome::NoKey("owner".into()));
    assert_eq!(one.buckets, ["[\"n1\"]"]);
}
