//! What is wrong with a config is said at once, all of it, each problem with its line and column and what to do.
#![allow(clippy::unwrap_used, missing_docs)]

use syncline_core::SyncConfig;

/// Each problem as `line:column message (suggestion)`.
fn problems(text: &str) -> Vec<String> {
    let diagnostics = SyncConfig::parse(text).unwrap_err();
    let one = |one: &syncline_core::Diagnostic| {
        let help = one.suggestion.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{} {}{help}", one.line, one.column, one.message)
    };
    diagnostics.iter().map(one).collect()
}

#[test]
fn every_problem_of_a_config_is_told_at_once() {
    let config = "config: { edition: 3 }
streams:
  first:
    query: SELEC * FROM lists
  second:
    auto_subscribe: maybe
    query: SELECT * FROM todos WHERE owner = auth.user()
  third:
    qurey: SELECT * FROM t
  fourth:
    query: |
      SELECT id,
        lowr(name) AS name
      FROM t
  fifth:
    query: SELECT * FROM t WHERE (a = 1
";
    assert_eq!(
        problems(config),
        [
            "4:12 a query must be a SELECT (did you mean `SELECT`?)",
            "6:21 `auto_subscribe` must be `true` or `false`, without quotes",
            "7:46 there is no function `auth.user` (there are auth.user_id(), auth.parameter('…') and auth.parameters())",
            "9:5 there is no key `qurey` in a stream (did you mean `query`?)",
            "9:5 the stream `third` has neither `query` nor `queries` \
             (give it one of them: `query` for one SELECT, `queries` for a list)",
            "13:9 there is no function `lowr` (did you mean `lower`?)",
            "16:40 expected `)`, and the query ends here",
        ]
    );
}

#[test]
fn malformed_yaml_is_told_with_its_place() {
    for (config, problem) in [
        ("config: { edition: 3 }\nstreams:\n  a: [\n", "4:1 not valid YAML: while parsing a node"),
        ("streams:\n  a:\n    query: SELECT * FROM t\n   b: 1\n", "4:4 not valid YAML: while parsing a block mapping"),
        ("streams:\n  a:\n\tquery: x\n", "3:2 not valid YAML: tabs"),
        ("", "1:1 the sync config is empty (for example"),
        ("just text", "1:1 a sync config is a single value, not a map"),
    ] {
        let told = problems(config);
        assert!(told.len() == 1 && told[0].starts_with(problem), "{config:?}: {told:?}");
    }
}
