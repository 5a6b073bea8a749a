//! Laws of the config language: hostile text never panics, places are right in every scalar style, and buckets join
//! exactly the rows and requests that the condition joins.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use syncline_core::{ConfigRequest, Evaluation, Identity, SourceColumn, SourceTable, SyncConfig, TableId, Value};

/// Whatever is reported lies inside the text and can be shown.
fn check(text: &str) {
    match SyncConfig::parse(text) {
        Ok(config) => assert!(config.text() == text),
        Err(diagnostics) => {
            assert!(diagnostics.is_fatal());
            assert!(!diagnostics.to_string().is_empty());
            for found in &diagnostics {
                assert!(text.get(found.span.clone()).is_some(), "{found:?} in {text:?}");
                assert!(found.utf16_span(text).end <= text.encode_utf16().count());
            }
        }
    }
}

fn sql_word() -> impl Strategy<Value = String> {
    const WORDS: [&str; 78] = [
        "SELECT",
        "FROM",
        "WHERE",
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "NULL",
        "TRUE",
        "BETWEEN",
        "LIKE",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "CAST",
        "AS",
        "JOIN",
        "LEFT",
        "ON",
        "USING",
        "EXISTS",
        "ARRAY",
        "ROW",
        "DISTINCT",
        "GROUP",
        "BY",
        "ORDER",
        "LIMIT",
        "UNION",
        "WITH",
        "FOR",
        "*",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        ";",
        "=",
        "!=",
        "<",
        ">=",
        "+",
        "-",
        "||",
        "->",
        "->>",
        "::",
        "&&",
        "%",
        "$1",
        "t",
        "\"T\"",
        "\"t%\"",
        "id",
        "auth.user_id()",
        "request.user_id()",
        "request.jwt() ->> 'x'",
        "bucket.a",
        "token_parameters.x",
        "json_each(",
        "_priority",
        "auth.parameter('x')",
        "subscription.parameter",
        "'text'",
        "E'\\n'",
        "1",
        "2.5",
        ".5",
        "text",
        "upper(",
        "count(*)",
        "-- c\n",
        "/* c */",
    ];
    prop_oneof![9 => proptest::sample::select(WORDS.as_slice()).prop_map(str::to_owned), 1 => "\\PC{0,4}"]
}

/// Each kind of query of the older languages.
fn queries_in_yaml(sql: &str) -> [String; 4] {
    let sql = json!(sql);
    [
        format!("bucket_definitions:\n  d:\n    data: [{sql}]\n"),
        format!("bucket_definitions:\n  d:\n    parameters: [{sql}]\n    data: [SELECT * FROM t WHERE a = bucket.a]\n"),
        format!("config: {{ edition: 2 }}\nstreams:\n  s:\n    query: {sql}\n"),
        format!("config: {{ edition: 3 }}\nstreams: {{}}\nevent_definitions:\n  e:\n    payloads: [{sql}]\n"),
    ]
}

fn query_in_yaml(sql: &str) -> String {
    format!("config: {{ edition: 3 }}\nstreams:\n  s:\n    query: {}\n", json!(sql))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        check(&text);
    }

    #[test]
    fn any_yaml_is_answered(lines in proptest::collection::vec("[ ]{0,6}(- |streams|config|s|query|queries|edition|priority|with|bucket_definitions|data|parameters|event_definitions|payloads)?(: |:)?(3|true|\\||>|'a|\"b\"|\\[|\\{|&x|\\*x|!t|SELECT \\* FROM t)?", 0..12)) {
        check(&lines.join("\n"));
        check(&format!("config: {{ edition: 3 }}\nstreams:\n  s:\n{}", lines.join("\n")));
    }

    #[test]
    fn any_sql_is_answered(words in proptest::collection::vec(sql_word(), 0..40)) {
        let words = words.join(" ");
        for sql in [words.clone(), format!("SELECT * FROM t WHERE {words}"), format!("SELECT a FROM t WHERE a = bucket.a AND {words}")] {
            check(&query_in_yaml(&sql));
            queries_in_yaml(&sql).iter().for_each(|config| check(config));
        }
    }

    #[test]
    fn deep_nesting_is_answered(depth in 1usize..3000, open in proptest::sample::select(["(", "NOT ", "- ", "upper(", "x IN (SELECT ", "CASE WHEN ", "a + ", "a AND ", "a IS NULL = ", "ARRAY["].as_slice())) {
        let sql = format!("SELECT * FROM t WHERE {}1", open.repeat(depth));
        check(&query_in_yaml(&sql));
        check(&queries_in_yaml(&sql)[depth % 4]);
    }

    #[test]
    fn places_are_right_in_every_scalar_style(before in "t_[a-z]{1,8}", words in proptest::collection::vec("[a-zéß😀']{1,6}", 0..6)) {
        // The mistake follows text that is escaped, folded or indented differently in each style.
        let words: Vec<_> = words.iter().map(|word| word.replace('\'', "''")).collect();
        let head = format!("SELECT * FROM {before}");
        let noise = words.iter().map(|word| format!("AND '{word}' = c")).collect::<Vec<_>>();
        let lines: Vec<String> = [vec![head, "WHERE a = 1".into()], noise, vec!["AND mistake() = 2".into()]].concat();
        let folded = |indent: &str| lines.join(&format!("\n{indent}"));
        let styles = [
            ("plain", folded("      ")),
            ("single", format!("'{}'", folded("      ").replace('\'', "''"))),
            ("double", json!(lines.join(" ")).to_string()),
            ("double lines", format!("\"{}\"", folded("      \\ "))),
            ("double broken", format!("\"{}\"", lines.join(" \\\n      "))),
            ("literal", format!("|\n      {}", folded("      "))),
            ("literal, indented", format!("|  # note\n      {}", lines.join("\n        "))),
            ("folded", format!(">-\n      {}", folded("      "))),
            ("folded, blank lines", format!(">\n      {}", lines.join("\n\n      "))),
        ];
        for (style, scalar) in styles {
            let text = format!("config: {{ edition: 3 }}\nstreams:\n  s:\n    query: {scalar}\n");
            let diagnostics = SyncConfig::parse(&text).unwrap_err();
            let found = diagnostics.iter().find(|found| found.kind == "unknown-function");
            let found = found.unwrap_or_else(|| panic!("{style}: {diagnostics}"));
            prop_assert_eq!(&text[found.span.clone()], "mistake", "{}: {}", style, text);
            let line = text.lines().nth(found.line - 1).unwrap();
            prop_assert!(line.chars().skip(found.column - 1).collect::<String>().starts_with("mistake"));
        }
    }
}

/// A condition, and what it means without buckets.
#[derive(Debug, Clone)]
enum Condition {
    /// `cN = literal`.
    Row(usize, i64),
    /// `cN = cM`: NULL equals nothing, not even NULL.
    Columns(usize, usize),
    RowIsNull(usize),
    RowTruth(usize),
    /// `auth.parameter('pN') = literal`.
    Request(usize, i64),
    /// `cN = auth.parameter('pM')`.
    Match(usize, usize),
    /// `cN IN auth.parameter('listM')`.
    InRequest(usize, usize),
    All(Vec<Self>),
    Any(Vec<Self>),
    /// Over conditions without matches only.
    Not(Box<Self>),
}

impl Condition {
    fn sql(&self) -> String {
        let joined = |members: &[Self], with: &str| {
            let members: Vec<_> = members.iter().map(Self::sql).collect();
            format!("({})", members.join(with))
        };
        match self {
            Self::Row(column, value) => format!("c{column} = {value}"),
            Self::Columns(left, right) => format!("c{left} = c{right}"),
            Self::RowIsNull(column) => format!("c{column} IS NULL"),
            Self::RowTruth(column) => format!("t.c{column}"),
            Self::Request(parameter, value) => format!("{value} = auth.parameter('p{parameter}')"),
            Self::Match(column, parameter) => format!("c{column} = auth.parameter('p{parameter}')"),
            Self::InRequest(column, list) => format!("c{column} IN auth.parameter('list{list}')"),
            Self::All(members) => joined(members, " AND "),
            Self::Any(members) => joined(members, " OR "),
            Self::Not(inner) => format!("NOT ({})", inner.sql()),
        }
    }

    fn holds(&self, row: &[Option<i64>], request: &Request) -> bool {
        match self {
            Self::Row(column, value) => row[*column] == Some(*value),
            Self::Columns(left, right) => row[*left].is_some() && row[*left] == row[*right],
            Self::RowIsNull(column) => row[*column].is_none(),
            Self::RowTruth(column) => row[*column].is_some_and(|value| value != 0),
            Self::Request(parameter, value) => request.values[*parameter] == Some(*value),
            Self::Match(column, parameter) => row[*column].is_some() && row[*column] == request.values[*parameter],
            Self::InRequest(column, list) => row[*column].is_some_and(|value| request.lists[*list].contains(&value)),
            Self::All(members) => members.iter().all(|member| member.holds(row, request)),
            Self::Any(members) => members.iter().any(|member| member.holds(row, request)),
            Self::Not(inner) => !inner.holds(row, request),
        }
    }
}

#[derive(Debug, Clone)]
struct Request {
    values: Vec<Option<i64>>,
    lists: Vec<Vec<i64>>,
}

const COLUMNS: usize = 3;

fn value() -> impl Strategy<Value = Option<i64>> {
    proptest::option::weighted(0.8, 0i64..3)
}

fn condition() -> impl Strategy<Value = Condition> {
    let plain = prop_oneof![
        (0..COLUMNS, 0i64..3).prop_map(|(column, value)| Condition::Row(column, value)),
        (0..COLUMNS, 0..COLUMNS).prop_map(|(left, right)| Condition::Columns(left, right)),
        (0..COLUMNS).prop_map(Condition::RowIsNull),
        (0..COLUMNS).prop_map(Condition::RowTruth),
        (0usize..2, 0i64..3).prop_map(|(parameter, value)| Condition::Request(parameter, value)),
    ];
    let plain = plain.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Condition::All),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    });
    let leaf = prop_oneof![
        3 => plain,
        2 => (0..COLUMNS, 0usize..2).prop_map(|(column, parameter)| Condition::Match(column, parameter)),
        1 => (0..COLUMNS, 0usize..2).prop_map(|(column, list)| Condition::InRequest(column, list)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Condition::All),
            proptest::collection::vec(inner, 1..4).prop_map(Condition::Any),
        ]
    })
}

fn request() -> impl Strategy<Value = Request> {
    let lists = proptest::collection::vec(proptest::collection::vec(0i64..3, 0..3), 2);
    (proptest::collection::vec(value(), 2), lists).prop_map(|(values, lists)| Request { values, lists })
}

fn table() -> SourceTable {
    let names = ["id".to_owned()].into_iter().chain((0..COLUMNS).map(|column| format!("c{column}")));
    SourceTable {
        id: TableId(1),
        schema: "public".into(),
        name: "t".into(),
        columns: names
            .map(|name| SourceColumn { name: name.as_str().into(), key: name == "id", type_name: "int8".into() })
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A request has a bucket that a row is in, exactly if the condition holds for the two.
    #[test]
    fn buckets_join_what_the_condition_joins(
        conditions in proptest::collection::vec(condition(), 1..3),
        rows in proptest::collection::vec(proptest::collection::vec(value(), COLUMNS), 1..6),
        requests in proptest::collection::vec(request(), 1..4),
    ) {
        let queries: String =
            conditions.iter().map(|condition| format!("\n      - SELECT id FROM t WHERE {}", condition.sql())).collect();
        let text = format!("config: {{ edition: 3 }}\nstreams:\n  s:\n    auto_subscribe: true\n    queries: {queries}\n");
        let config = match SyncConfig::parse(&text) {
            Ok(config) => config,
            Err(diagnostics) => {
                // The only fair reason.
                prop_assert!(diagnostics.iter().all(|found| found.kind == "dnf-too-large"), "{}", diagnostics);
                return Ok(());
            }
        };
        let bound = config.bind(&table());
        let mut out = Evaluation::new();
        for request in &requests {
            let mut claims = Map::new();
            for (index, value) in request.values.iter().enumerate() {
                claims.insert(format!("p{index}"), json!(value));
            }
            for (index, list) in request.lists.iter().enumerate() {
                claims.insert(format!("list{index}"), json!(list));
            }
            let resolved = config.resolve(&ConfigRequest {
                identity: &Identity::from_claims(claims),
                parameters: &Map::<String, Json>::new(),
                include_defaults: true,
                subscriptions: &[],
            });
            prop_assert!(resolved.streams.iter().all(|stream| stream.errors.is_empty()), "{:?}", resolved.streams);
            for row in &rows {
                let values: Vec<_> = std::iter::once(Value::Integer(1))
                    .chain(row.iter().map(|value| value.map_or(Value::Null, Value::Integer)))
                    .collect();
                out.clear();
                bound.evaluate(&values, &mut out);
                prop_assert!(out.errors.is_empty());
                let seen = out.rows.iter().any(|row| {
                    resolved
                        .buckets
                        .iter()
                        .any(|bucket| bucket.definition == row.definition && bucket.parameters == row.parameters)
                });
                let expected = conditions.iter().any(|condition| condition.holds(row, request));
                prop_assert_eq!(seen, expected, "{} for {:?} and {:?}", text, row, request);
            }
        }
    }
}
