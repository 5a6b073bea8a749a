//! The whole way, on real parts: Postgres to SQLite and back, live, offline, refused and in conflict.
//!
//! Starts a throwaway Postgres cluster (or uses `DATABASE_URL`), a server and two clients in this process, over real
//! sockets and files; then compares every table of every client with Postgres. The exit status tells.
//!
//! In a database of yours it makes tables, a publication and a slot of its own, and removes them however it ends. If
//! something there has one of their names already, it touches nothing.

mod client;
mod compare;
mod postgres;
mod report;
mod server;

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use syncline_storage_sqlite::params;

use client::Client;
use postgres::Postgres;
use report::Report;
use server::Server;

/// Todos of each user before the clients connect.
const TODOS: i64 = 10_000;

#[derive(Debug, Deserialize)]
struct Note {
    title: Option<String>,
    body: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut report = Report::new();

    let postgres = report.step("start Postgres", Postgres::start()).await?;
    let outcome = tokio::select! {
        outcome = everything(&mut report, &postgres, folder.path()) => outcome,
        signal = tokio::signal::ctrl_c() => signal.context("cannot wait for Ctrl-C").and(Err(anyhow!("stopped by Ctrl-C"))),
    };
    // However it ended: the database may be the user's own.
    let cleaned = report.step("clean up", postgres.clean_up()).await;
    report.finish();
    outcome.and(cleaned)
}

async fn everything(report: &mut Report, postgres: &Postgres, folder: &std::path::Path) -> Result<()> {
    report.step("create tables with data", postgres.create_tables(TODOS)).await?;
    let server = report.step("start the server", Server::start(postgres, folder)).await?;
    let outcome = tour(report, postgres, &server, folder).await;
    server.stop().await;
    outcome
}

async fn tour(report: &mut Report, postgres: &Postgres, server: &Server, folder: &std::path::Path) -> Result<()> {
    let mut anna = Client::open(folder, "anna", server).await?;
    let mut ben = Client::open(folder, "ben", server).await?;
    anna.connect();
    ben.connect();

    report
        .step("first sync: each client has its own rows", async {
            for client in [&anna, &ben] {
                client.until_count("SELECT count(*) AS n FROM demo_todos", TODOS).await?;
            }
            Ok(())
        })
        .await?;

    report
        .step("a row written in Postgres appears on anna's device", async {
            postgres
                .execute("INSERT INTO demo_todos VALUES ('live-1', 'list-anna', 'anna', 'from Postgres', 0)")
                .await?;
            anna.until_count("SELECT count(*) AS n FROM demo_todos WHERE id = 'live-1'", 1).await
        })
        .await?;

    report
        .step("a row written on anna's device arrives in Postgres", async {
            anna.write("INSERT INTO demo_todos (id, list_id, owner_id, title, done) VALUES ('local-1', 'list-anna', 'anna', 'from SQLite', 0)").await?;
            postgres.until("SELECT count(*) FROM demo_todos WHERE id = 'local-1' AND title = 'from SQLite'", 1).await
        })
        .await?;

    report
        .step("offline, anna reads and writes at once; online again, both sides agree", async {
            anna.disconnect().await;
            anna.write("UPDATE demo_todos SET done = 1 WHERE id = 'local-1'").await?;
            anna.write("INSERT INTO demo_todos (id, list_id, owner_id, title, done) VALUES ('local-2', 'list-anna', 'anna', 'written offline', 0)").await?;
            anna.write("DELETE FROM demo_todos WHERE id = 'live-1'").await?;
            postgres.execute("UPDATE demo_todos SET title = 'renamed meanwhile' WHERE id = 'local-1'").await?;
            ensure!(anna.count("SELECT count(*) AS n FROM demo_todos WHERE id = 'local-2'").await? == 1, "a local write must be readable at once");
            ensure!(postgres.count("SELECT count(*) FROM demo_todos WHERE id = 'local-2'").await? == 0, "nothing may travel while offline");
            anna.connect();
            anna.caught_up().await?;
            postgres.until("SELECT count(*) FROM demo_todos WHERE id = 'local-1' AND done = 1 AND title = 'renamed meanwhile'", 1).await?;
            postgres.until("SELECT count(*) FROM demo_todos WHERE id IN ('local-2', 'live-1')", 1).await
        })
        .await?;

    report
        .step("a row in somebody else's name is refused and rolled back", async {
            anna.write("INSERT INTO demo_todos (id, list_id, owner_id, title, done) VALUES ('forged', 'list-ben', 'ben', 'not mine', 0)").await?;
            anna.caught_up().await?;
            anna.until_count("SELECT count(*) AS n FROM demo_todos WHERE id = 'forged'", 0).await?;
            ensure!(postgres.count("SELECT count(*) FROM demo_todos WHERE id = 'forged'").await? == 0, "a refused write must not reach Postgres");
            ensure!(ben.count("SELECT count(*) AS n FROM demo_todos WHERE id = 'forged'").await? == 0, "nor ben");
            ensure!(anna.rejected().await? > 0, "the refusal must be recorded");
            Ok(())
        })
        .await?;

    report
        .step("two offline edits of one note: the last to arrive wins, column by column", async {
            for client in [&anna, &ben] {
                client.until_count("SELECT count(*) AS n FROM demo_notes WHERE id = 'shared'", 1).await?;
            }
            anna.disconnect().await;
            ben.disconnect().await;
            anna.write("UPDATE demo_notes SET title = 'by anna', body = 'by anna' WHERE id = 'shared'").await?;
            ben.write("UPDATE demo_notes SET title = 'by ben' WHERE id = 'shared'").await?;
            anna.connect();
            anna.caught_up().await?;
            ben.connect();
            ben.caught_up().await?;
            for client in [&anna, &ben] {
                client.until_count("SELECT count(*) AS n FROM demo_notes WHERE id = 'shared' AND title = 'by ben' AND body = 'by anna'", 1).await?;
            }
            let notes: Vec<Note> = anna.db.query("SELECT title, body FROM demo_notes WHERE id = ?1").bind("shared").all().await?;
            ensure!(notes.len() == 1 && notes[0].title.as_deref() == Some("by ben") && notes[0].body.as_deref() == Some("by anna"));
            Ok(())
        })
        .await?;

    report
        .step("many local writes in one transaction travel together", async {
            anna.db
                .write(|tx| {
                    for number in 0..500 {
                        tx.execute(
                            "INSERT INTO demo_todos (id, list_id, owner_id, title, done) VALUES (?1, 'list-anna', 'anna', ?2, 0)",
                            params![format!("bulk-{number}"), format!("number {number}")],
                        )?;
                    }
                    Ok(())
                })
                .await?;
            anna.caught_up().await?;
            postgres.until("SELECT count(*) FROM demo_todos WHERE id LIKE 'bulk-%'", 500).await
        })
        .await?;

    report.step("every table of every client equals Postgres", compare::all(postgres, &[&anna, &ben], DEADLINE)).await
}

/// No step waits longer than this.
const DEADLINE: Duration = Duration::from_secs(60);
