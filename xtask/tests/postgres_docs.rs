//! The statements that the docs tell people to run are run here.
#![allow(clippy::unwrap_used)]

use std::fs;

/// The SQL blocks after a `<!-- run -->` line.
fn statements(markdown: &str) -> Vec<&str> {
    let marked = markdown.split("<!-- run -->\n```sql\n").skip(1);
    marked.filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test]
async fn the_statements_that_prepare_a_database_work() {
    let text = fs::read_to_string(xtask::workspace::root().join("docs/postgres.md")).unwrap();
    let statements = statements(&text);
    assert!(statements.len() >= 4, "only {} blocks found", statements.len());

    let cluster = postgres_fixture::shared().await;
    let url = cluster.fresh_database().await.unwrap();
    let client = cluster.connect(&url).await.unwrap();
    let tables = "CREATE TABLE lists (id text PRIMARY KEY, name text); CREATE TABLE todos (id text PRIMARY KEY);
        CREATE TABLE notes (id text PRIMARY KEY); CREATE TABLE tags (name text NOT NULL UNIQUE)";
    client.batch_execute(tables).await.unwrap();
    for sql in statements {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
    }

    let role = "SELECT rolreplication AND rolbypassrls AND has_table_privilege('syncline', 'lists', 'SELECT')
        FROM pg_roles WHERE rolname = 'syncline'";
    assert!(client.query_one(role, &[]).await.unwrap().get::<_, bool>(0));
    let published =
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = 'syncline'";
    assert_eq!(client.query_one(published, &[]).await.unwrap().get::<_, String>(0), "lists todos");
}
