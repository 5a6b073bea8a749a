//! Warnings of names that a source does not have.
#![allow(clippy::unwrap_used, missing_docs)]

use syncline_core::{SourceSchema, SyncConfig};

fn schema() -> SourceSchema {
    SourceSchema::new()
        .table("public", "lists", ["id", "name", "owner_id", "tags"])
        .table("public", "members", ["id", "list_id", "user_id"])
        .table("public", "todos", ["id", "list_id", "title"])
        .table("public", "events_1", ["id", "a"])
        .table("public", "events_2", ["id", "b"])
        .table("public", "logs", ["at", "line"])
        .table("archive", "lists", ["id", "year"])
}

/// Kind, offending text and suggestion of each warning.
fn warnings(config: &str) -> Vec<(String, String, String)> {
    let compiled = SyncConfig::parse_with_schema(config, &schema()).unwrap_or_else(|problems| panic!("{problems}"));
    let warning = |warning: &syncline_core::Diagnostic| {
        let suggestion = warning.suggestion.clone().unwrap_or_default();
        (warning.kind.to_owned(), config[warning.span.clone()].to_owned(), suggestion)
    };
    compiled.warnings().iter().map(warning).collect()
}

fn of_queries(queries: &[&str]) -> Vec<(String, String, String)> {
    let list: String = queries.iter().map(|query| format!("      - {query}\n")).collect();
    let with = "with:\n  mine: SELECT list_id AS list FROM members WHERE user_id = auth.user_id()\n";
    warnings(&format!("config: {{ edition: 3 }}\n{with}streams:\n  s:\n    auto_subscribe: true\n    queries:\n{list}"))
}

fn found(kind: &str, text: &str, suggestion: &str) -> (String, String, String) {
    (kind.to_owned(), text.to_owned(), suggestion.to_owned())
}

#[test]
fn what_is_there_is_not_warned_of() {
    let none: [(String, String, String); 0] = [];
    assert_eq!(
        of_queries(&[
            "SELECT * FROM lists WHERE id IN mine AND name != 'x'",
            "SELECT l.*, l.owner_id AS owner FROM lists l WHERE l.id IN (SELECT list FROM mine)",
            "SELECT todos.id, todos.title FROM todos JOIN members m ON m.list_id = todos.list_id WHERE m.user_id = auth.user_id()",
            "SELECT todos.* FROM todos WHERE list_id IN (SELECT list_id FROM members WHERE user_id = auth.user_id())",
            "SELECT lists.id FROM lists JOIN json_each(lists.tags) e WHERE e.value = auth.user_id()",
            "SELECT id, year FROM archive.lists AS old WHERE year = auth.parameter('year')",
            "SELECT id, a, b FROM \"events_%\" AS events",
            "SELECT at AS id, line FROM logs",
        ]),
        none
    );
}

#[test]
fn names_that_are_not_there_are_told_wherever_they_stand() {
    assert_eq!(
        of_queries(&[
            "SELECT * FROM list WHERE id IN mine",
            "SELECT id, nam FROM lists WHERE ownerid = auth.user_id()",
            "SELECT todos.id FROM todos JOIN members m ON m.list_id = todos.lst_id WHERE m.user = auth.user_id()",
            "SELECT id FROM todos WHERE list_id IN (SELECT id FROM lists WHERE own_id = auth.user_id() AND nme = 'x')",
            "SELECT lists.id FROM lists JOIN json_each(lists.tgs) e WHERE e.value = auth.user_id()",
            "SELECT id FROM archiv.lists AS old WHERE id = auth.user_id()",
            "SELECT * FROM logs",
        ]),
        [
            found("table-not-found", "list", "did you mean `lists`?"),
            found("column-not-found", "nam", "did you mean `name`?"),
            found("column-not-found", "ownerid", "did you mean `owner_id`?"),
            found("column-not-found", "lst_id", "did you mean `list_id`?"),
            found("column-not-found", "user", ""),
            found("column-not-found", "own_id", "did you mean `owner_id`?"),
            found("column-not-found", "nme", "did you mean `name`?"),
            found("column-not-found", "tgs", "did you mean `tags`?"),
            found("table-not-found", "lists", ""),
            found("no-id-column", "*", "select what tells its rows apart as id, for example `uuid AS id`"),
        ]
    );
}

#[test]
fn a_named_query_that_hides_a_table_is_told() {
    let config = "config: { edition: 3 }
with:
  Todos: SELECT list_id FROM members WHERE user_id = auth.user_id()
streams:
  s: { auto_subscribe: true, query: SELECT * FROM lists WHERE id IN todos }
";
    let none: [(String, String, String); 0] = [];
    // Tables are found by their exact names.
    assert_eq!(warnings(config), none);
    let config = config.replace("Todos", "todos");
    assert_eq!(warnings(&config), [found("cte-shadows-table", "todos", "give it another name")]);
}

#[test]
fn bucket_definitions_and_events_are_looked_at_too() {
    let config = "bucket_definitions:
  by_list:
    parameters: SELECT list_id AS list FROM membrs WHERE user_id = request.user_id()
    data:
      - SELECT * FROM todos WHERE list_id = bucket.list
      - SELECT id, titel FROM todos WHERE todos.list = bucket.list
event_definitions:
  write_checkpoints:
    payloads:
      - SELECT usr_id AS user_id, 1 AS checkpoint FROM members
";
    assert_eq!(
        warnings(config),
        [
            found("table-not-found", "membrs", "did you mean `members`?"),
            found("column-not-found", "titel", "did you mean `title`?"),
            found("column-not-found", "list", ""),
            found("column-not-found", "usr_id", "did you mean `user_id`?"),
        ]
    );
}
