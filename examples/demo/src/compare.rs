//! The proof: every table of every client, row by row, against a direct query of Postgres.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::client::Client;
use crate::postgres::Postgres;

/// A table and its columns, as text in Postgres and in SQLite alike; `{user}` is the client's user.
const TABLES: [(&str, &str); 3] = [
    ("demo_lists", "SELECT id, owner_id, name FROM demo_lists WHERE owner_id = '{user}' ORDER BY id COLLATE \"C\""),
    (
        "demo_todos",
        "SELECT id, list_id, owner_id, title, done FROM demo_todos WHERE owner_id = '{user}' ORDER BY id COLLATE \"C\"",
    ),
    ("demo_notes", "SELECT id, title, body FROM demo_notes ORDER BY id COLLATE \"C\""),
];

/// Compares until everything is equal, for at most `deadline`.
pub(crate) async fn all(postgres: &Postgres, clients: &[&Client], deadline: Duration) -> Result<()> {
    for client in clients {
        for (table, sql) in TABLES {
            let begun = tokio::time::Instant::now();
            loop {
                let wanted = postgres.rows(&sql.replace("{user}", client.user)).await?;
                let found = rows(client, table, sql).await?;
                if wanted == found {
                    break;
                }
                if begun.elapsed() > deadline {
                    let differs = wanted.iter().zip(&found).find(|(wanted, found)| wanted != found);
                    bail!(
                        "{}: {table} has {} rows, Postgres {}; the first that differs: {differs:?}",
                        client.user,
                        found.len(),
                        wanted.len()
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

/// All rows of a client's table, whoever they belong to: a row of somebody else's would show.
async fn rows(client: &Client, table: &'static str, sql: &'static str) -> Result<Vec<Vec<Option<String>>>> {
    let columns = sql.trim_start_matches("SELECT ").split(" FROM ").next().unwrap_or("*").to_owned();
    let rows = client
        .db
        .read(move |connection| {
            let mut statement = connection.prepare(&format!("SELECT {columns} FROM {table} ORDER BY id"))?;
            let width = statement.column_count();
            let rows = statement
                .query_map([], |row| {
                    (0..width)
                        .map(|index| {
                            Ok(match row.get_ref(index)? {
                                syncline_storage_sqlite::rusqlite::types::ValueRef::Null => None,
                                syncline_storage_sqlite::rusqlite::types::ValueRef::Integer(value) => {
                                    Some(value.to_string())
                                }
                                syncline_storage_sqlite::rusqlite::types::ValueRef::Real(value) => {
                                    Some(value.to_string())
                                }
                                syncline_storage_sqlite::rusqlite::types::ValueRef::Text(text)
                                | syncline_storage_sqlite::rusqlite::types::ValueRef::Blob(text) => {
                                    Some(String::from_utf8_lossy(text).into_owned())
                                }
                            })
                        })
                        .collect::<Result<Vec<_>, _>>()
                })?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(rows)
        })
        .await?;
    Ok(rows)
}
