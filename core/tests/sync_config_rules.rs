//! Bucket definitions, streams of edition 2, events and options: what the recorded cases do not say of them.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use syncline_core::{
    ConfigRequest, ErrorKind, EvaluatedLookup, Evaluation, Identity, LookupRows, SourceColumn, SourceTable,
    StreamSubscription, SyncConfig, TableId, TimePrecision, Value,
};

fn config(text: &str) -> SyncConfig {
    SyncConfig::parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn table(name: &str, columns: &[&str]) -> SourceTable {
    let column = |name: &&str| SourceColumn { name: (*name).into(), key: *name == "id", type_name: "text".into() };
    SourceTable {
        id: TableId(1),
        schema: "public".into(),
        name: name.into(),
        columns: columns.iter().map(column).collect(),
    }
}

fn claims(claims: Json) -> Identity {
    Identity::from_claims(claims.as_object().unwrap().clone())
}

fn request<'a>(identity: &'a Identity, subscriptions: &'a [StreamSubscription]) -> ConfigRequest<'a> {
    static NONE: std::sync::LazyLock<Map<String, Json>> = std::sync::LazyLock::new(Map::new);
    ConfigRequest { identity, parameters: &NONE, include_defaults: true, subscriptions }
}

#[test]
fn a_definition_that_fails_fails_the_request_and_a_stream_only_itself() {
    let each = "SELECT value AS project FROM json_each(request.jwt() ->> 'projects')";
    let rules = config(&format!(
        "config: {{ edition: 2 }}
bucket_definitions:
  projects:
    parameters: {each}
    data: [SELECT * FROM projects WHERE id = bucket.project]
streams:
  mine:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE id IN auth.parameter('projects')
",
    ));
    let broken = claims(json!({"sub": "anna", "projects": "not JSON"}));
    let error = rules.resolve_with(&request(&broken, &[]), |_| LookupRows::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("bucket definition `projects`"), "{error}");
    assert!(rules.resolver(&request(&broken, &[]), 1_000).poll().is_err());
    let without_defaults = ConfigRequest { include_defaults: false, ..request(&broken, &[]) };
    assert_eq!(rules.resolve(&without_defaults).buckets, []);
    let whole = claims(json!({"sub": "anna", "projects": ["a", "b"]}));
    assert_eq!(rules.resolve(&request(&whole, &[])).buckets.len(), 4);
}

#[test]
fn nobody_subscribes_to_a_bucket_definition() {
    let rules = config("bucket_definitions: { all: { data: [SELECT * FROM lists], priority: 1 } }");
    assert_eq!(rules.stream_names(), []);
    let anna = Identity::new("anna");
    let wish = StreamSubscription { stream: "all".into(), ..StreamSubscription::default() };
    let wishes = [wish];
    let asked = ConfigRequest { include_defaults: false, ..request(&anna, &wishes) };
    assert_eq!(rules.resolve(&asked).buckets, []);
    let resolved = rules.resolve(&request(&anna, &wishes));
    assert_eq!((resolved.buckets.len(), resolved.buckets[0].reasons.len()), (1, 1));
    assert_eq!(resolved.buckets[0].priority.0, 1);
}

#[test]
fn priorities_belong_to_queries_json_each_included() {
    let rules = config(
        "bucket_definitions:
  g:
    parameters:
      - SELECT value AS p, 2 AS _priority FROM json_each(request.jwt() ->> 'list') WHERE value != request.user_id()
      - SELECT request.user_id() AS p, 0 AS _priority
    data: [SELECT * FROM t WHERE p = bucket.p]
",
    );
    let resolved = rules.resolve(&request(&claims(json!({"sub": "a", "list": ["a", "b"]})), &[]));
    let found: Vec<_> = resolved.buckets.iter().map(|bucket| (bucket.priority.0, &*bucket.parameters)).collect();
    assert_eq!(found, [(2, "[\"b\"]"), (0, "[\"a\"]")]);
}

#[test]
fn events_have_payloads_of_the_rows_that_they_ask_for() {
    let text = "config: { edition: 3 }
streams: { all: { query: SELECT * FROM lists } }
event_definitions:
  done:
    payloads:
      - SELECT id AS checkpoint, upper(user_id) AS user FROM checkpoints WHERE is_done
";
    let events = config(text);
    assert_eq!(events.event_names().collect::<Vec<_>>(), ["done"]);
    assert!(events.selection().matches("public", "public", "checkpoints"));
    let bound = events.bind(&table("checkpoints", &["id", "user_id", "is_done"]));
    let mut out = Evaluation::new();
    bound.evaluate(&[Value::Integer(1), "anna".into(), Value::Integer(0)], &mut out);
    assert!(out.events.is_empty() && out.rows.is_empty());
    bound.evaluate(&[Value::Integer(2), "anna".into(), Value::Integer(1)], &mut out);
    assert_eq!(out.events.len(), 1);
    assert_eq!(
        (&*out.events[0].event, &*out.events[0].data),
        ("done", br#"{"checkpoint":2,"user":"ANNA"}"#.as_slice())
    );
    out.clear();
    assert!(out.events.is_empty());
    // Nothing takes them, and that is said.
    assert_eq!(events.unused_event_names().collect::<Vec<_>>(), ["done"]);
    assert_eq!(events.warnings().iter().map(|warning| warning.kind).collect::<Vec<_>>(), ["event-unused"]);
    let twice = format!("{text}      - SELECT id FROM checkpoints WHERE is_late\n");
    let problems = SyncConfig::parse(&twice).unwrap_err();
    let kinds: Vec<_> = problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, ["event-unused", "event-table-not-unique"]);
}

#[test]
fn a_payload_that_can_confirm_nothing_is_told_of() {
    let warnings = |name: &str, payload: &str| {
        let text = format!(
            "config: {{ edition: 3 }}\nstreams: {{ all: {{ query: SELECT * FROM lists }} }}
event_definitions: {{ {name}: {{ payloads: [\"{payload}\"] }} }}\n"
        );
        let parsed = config(&text);
        let kinds: Vec<_> = parsed.warnings().iter().map(|warning| (warning.kind, warning.line)).collect();
        (kinds, parsed.warnings().first().and_then(|warning| warning.replacement.clone()))
    };
    for name in ["write_checkpoints", "checkpoint_requests"] {
        for whole in ["SELECT * FROM checkpoints", "SELECT owner AS user_id, 1 AS checkpoint FROM checkpoints"] {
            assert_eq!(warnings(name, whole), (vec![], None));
        }
        let (found, _) = warnings(name, "SELECT client_id, checkpoint FROM checkpoints");
        assert_eq!(found, [("event-column-missing", 3)]);
    }
    let near = warnings("write_checkpoint", "SELECT id FROM checkpoints");
    assert_eq!(near, (vec![("event-unused", 3)], Some("write_checkpoints".into())));
}

#[test]
fn options_replace_what_an_edition_has() {
    let options = |head: &str| {
        *config(&format!("{head}\nbucket_definitions: {{ all: {{ data: [SELECT * FROM lists] }} }}")).value_options()
    };
    let first = options("config: {}");
    assert_eq!((first.iso8601_timestamps, first.custom_types, first.max_precision), (false, false, None));
    assert!(!first.is_default() && options("config: { edition: 2 }").is_default());
    let mixed = options("config: { edition: 2, custom_postgres_types: false, timestamp_max_precision: milliseconds }");
    assert_eq!((mixed.iso8601_timestamps, mixed.custom_types), (true, false));
    assert_eq!(mixed.max_precision.map(TimePrecision::digits), Some(3));
}

/// Forms are stored with what they were filled by: a config that was deployed keeps them for ever.
#[test]
fn forms_never_change() {
    let forms = |text: &str| config(text).forms().map(ToString::to_string).collect::<Vec<_>>();
    let found = forms(
        "config: { edition: 3 }
streams:
  a:
    query: SELECT *, lower(name) AS n FROM lists WHERE owner = auth.user_id() AND j ->> 'a.b' != 1
  b:
    query: SELECT id FROM t WHERE list IN (SELECT list FROM members WHERE user = auth.user_id() AND role IN '[1]')
  c:
    query: SELECT t.id FROM t JOIN json_each(t.tags) e WHERE e.value IN auth.parameter('tags')
",
    );
    assert_eq!(found, EDITION_3);
    let found = forms(
        "bucket_definitions:
  g:
    parameters: [SELECT list FROM members WHERE user = request.user_id()]
    data:
      - SELECT *, j ->> 'a.b' AS x, json_extract(j, '$.c') AS y FROM lists WHERE id = bucket.list AND kind != 'x'
      - SELECT id FROM \"t_%\" WHERE bucket.list IN lists AND main = bucket.list
",
    );
    assert_eq!(found, EDITION_1);
}

const EDITION_3: [&str; 4] = [
    r#"{"v":1,"rows":[{"table":null,"name":"lists","as":"lists","where":[["f","not",["f","=",["f","->>",["c","j"],["t","a.b"]],["i",1]]]],"select":["*",["n",["f","lower",["c","name"]]]],"keys":[["c","owner"]]}]}"#,
    r#"{"v":1,"rows":[{"table":null,"name":"t","as":"t","where":[],"select":[["id",["c","id"]]],"keys":[["c","list"]]}]}"#,
    r#"{"v":1,"rows":[{"table":null,"name":"t","as":"t","where":[],"each":[["c","tags"]],"select":[["id",["c","id"]]],"keys":[["e",0,"value"]]}]}"#,
    r#"{"v":1,"lookup":{"table":null,"name":"members","where":[["f","in_each",["c","role"],["t","[1]"]]],"keys":[["c","user"]],"outputs":[["c","list"]]}}"#,
];

const EDITION_1: [&str; 2] = [
    r#"{"v":1,"rows":[{"table":null,"name":"lists","as":"lists","where":[["f","!=",["c","kind"],["t","x"]]],"select":["legacy *",["x",["f","legacy ->>",["c","j"],["t","a.b"]]],["y",["f","legacy json_extract",["c","j"],["t","$.c"]]]],"keys":[["c","id"]]},{"table":null,"prefix":"t_","as":null,"where":[["f","in_each",["c","main"],["f","array",["c","lists"]]]],"select":[["id",["c","id"]]],"keys":[["c","main"]]}]}
values: iso8601 false, custom types false, 6 digits"#,
    r#"{"v":1,"lookup":{"table":null,"name":"members","where":[],"keys":[["c","user"]],"outputs":[["c","list"]]}}
values: iso8601 false, custom types false, 6 digits"#,
];

/// One way for a row to be in a bucket with the parameters `a` and `b`.
#[derive(Debug, Clone)]
struct Way {
    /// Columns that equal `a`, and `b`.
    equal: [Vec<usize>; 2],
    /// Whether the list must hold `a` instead, or too.
    listed: bool,
    /// A column that must have this value.
    filter: Option<(usize, i64)>,
}

const COLUMNS: usize = 3;

impl Way {
    fn sql(&self) -> String {
        let mut all: Vec<String> = Vec::new();
        for (columns, name) in self.equal.iter().zip(["a", "b"]) {
            all.extend(columns.iter().map(|column| format!("c{column} = bucket.{name}")));
        }
        all.extend(self.listed.then(|| "bucket.a IN list".to_owned()));
        all.extend(self.filter.iter().map(|(column, value)| format!("c{column} = {value}")));
        format!("({})", all.join(" AND "))
    }

    fn holds(&self, row: &Row, parameters: [i64; 2]) -> bool {
        let equal = |columns: &[usize], value| columns.iter().all(|column| row.values[*column] == Some(value));
        equal(&self.equal[0], parameters[0])
            && equal(&self.equal[1], parameters[1])
            && (!self.listed || row.list.contains(&parameters[0]))
            && self.filter.is_none_or(|(column, value)| row.values[column] == Some(value))
    }
}

#[derive(Debug, Clone)]
struct Row {
    values: Vec<Option<i64>>,
    list: Vec<i64>,
}

/// A row of `grants`: whose it is, and the parameters that it grants.
type Grant = (i64, Option<i64>, Option<i64>);

fn value() -> impl Strategy<Value = Option<i64>> {
    proptest::option::weighted(0.8, 0i64..3)
}

fn ways() -> impl Strategy<Value = Vec<Way>> {
    let columns = |least| proptest::collection::vec(0..COLUMNS, least..3);
    let filter = || proptest::option::of((0..COLUMNS, 0i64..3));
    let way = prop_oneof![
        (columns(1), columns(1), any::<bool>(), filter()).prop_map(|(a, b, listed, filter)| Way {
            equal: [a, b],
            listed,
            filter
        }),
        (columns(1), filter()).prop_map(|(b, filter)| Way { equal: [Vec::new(), b], listed: true, filter }),
    ];
    proptest::collection::vec(way, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buckets_join_rows_and_grants(
        ways in ways(),
        rows in proptest::collection::vec((proptest::collection::vec(value(), COLUMNS), proptest::collection::vec(0i64..3, 0..3)), 1..8),
        grants in proptest::collection::vec((0i64..2, value(), value()), 0..4),
        own in (value(), value()),
        swapped in any::<bool>(),
    ) {
        let condition = ways.iter().map(Way::sql).collect::<Vec<_>>().join(" OR ");
        let of_grants = if swapped { "b, a" } else { "a, b" };
        let text = format!(
            "bucket_definitions:
  g:
    parameters:
      - SELECT request.jwt() ->> 'a' AS a, request.jwt() ->> 'b' AS b
      - SELECT {of_grants} FROM grants WHERE user = request.user_id()
    data: [{}]
",
            json!(format!("SELECT id FROM t WHERE {condition}")),
        );
        let rules = config(&text);
        let mut lookups: Vec<EvaluatedLookup> = Vec::new();
        let mut out = Evaluation::new();
        let integer = |value: &Option<i64>| value.map_or(Value::Null, Value::Integer);
        let bound = rules.bind(&table("grants", &["id", "user", "a", "b"]));
        for (user, a, b) in &grants {
            out.clear();
            bound.evaluate(&[Value::Integer(1), Value::Integer(*user), integer(a), integer(b)], &mut out);
            lookups.append(&mut out.lookups);
        }
        let user = claims(json!({"sub": 1, "a": own.0, "b": own.1}));
        let resolved = rules.resolve_with(&request(&user, &[]), |wanted| {
            let found = lookups.iter().filter(|entry| entry.index == wanted.index && entry.values == wanted.values);
            LookupRows { rows: found.flat_map(|entry| entry.outputs.iter().cloned()).collect() }
        }).unwrap();
        let allowed: Vec<[i64; 2]> = grants
            .iter()
            .filter(|(user, ..): &&Grant| *user == 1)
            .map(|(_, a, b)| (*a, *b))
            .chain([own])
            .filter_map(|(a, b)| Some([a?, b?]))
            .collect();
        let bound = rules.bind(&table("t", &["id", "c0", "c1", "c2", "list"]));
        for (values, list) in rows {
            let row = Row { values, list };
            let list = Value::text(json!(row.list).to_string());
            let values: Vec<_> =
                std::iter::once(Value::Integer(1)).chain(row.values.iter().map(integer)).chain([list]).collect();
            out.clear();
            bound.evaluate(&values, &mut out);
            prop_assert!(out.errors.is_empty(), "{:?}", out.errors);
            let seen = out.rows.iter().any(|row| {
                let is_it = |bucket: &syncline_core::ResolvedBucket| {
                    bucket.definition == row.definition && bucket.parameters == row.parameters
                };
                resolved.buckets.iter().any(is_it)
            });
            let expected = allowed.iter().any(|parameters| ways.iter().any(|way| way.holds(&row, *parameters)));
            prop_assert_eq!(seen, expected, "{} for {:?} and {:?}", text, row, allowed);
        }
    }
}

#[test]
fn other_value_options_are_other_content_and_equal_ones_are_not() {
    let forms = |options: &str| -> Vec<String> {
        let config = config(&format!(
            "config: {{ edition: 3{options} }}\nstreams: {{ all: {{ query: SELECT * FROM t WHERE a IN (SELECT b FROM u WHERE c = auth.user_id()) }} }}"
        ));
        config.forms().map(ToString::to_string).collect()
    };
    let default = forms("");
    assert_eq!(default.len(), 2);
    // Postgres has no more digits than six.
    for same in [", timestamps_iso8601: true", ", timestamp_max_precision: nanoseconds"] {
        assert_eq!(forms(same), default, "{same}");
    }
    let others = [
        ", timestamps_iso8601: false",
        ", custom_postgres_types: false",
        ", timestamp_max_precision: milliseconds",
        ", timestamp_max_precision: seconds",
    ];
    let mut all: Vec<Vec<String>> = others.into_iter().map(forms).collect();
    all.push(default);
    for place in 0..2 {
        let mut of_place: Vec<&String> = all.iter().map(|forms| &forms[place]).collect();
        of_place.sort();
        of_place.dedup();
        assert_eq!(of_place.len(), all.len(), "{of_place:?}");
    }
}
