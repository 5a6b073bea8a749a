//! The demo in a database of the user's own: over TLS, and nothing is left behind however it ends.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use postgres_fixture::{Cluster, ClusterOptions};
use tokio::process::Command;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

const LIMIT: Duration = Duration::from_secs(120);

/// Everything that the demo makes.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'demo\\_%' AND relkind = 'r')
         + (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)";

async fn server() -> Cluster {
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    ClusterOptions::new()
        .password("secret")
        .tls(certificate.cert.pem(), certificate.signing_key.serialize_pem())
        .hba("hostssl all all all scram-sha-256\n")
        .start()
        .await
        .unwrap()
}

fn demo(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline-demo"));
    command
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn it_leaves_nothing_behind_and_touches_nothing_of_others() {
    let cluster = server().await;
    let url = format!("{}?sslmode=require", cluster.url());
    let client = syncline_source_postgres::connect(&url).await.unwrap();

    let output = timeout(LIMIT, demo(&url).output()).await.unwrap().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(count(&client, LEFT).await, 0);

    // Stopped by Ctrl-C in the middle of replication.
    let child = demo(&url).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while count(&client, "SELECT count(*) FROM pg_replication_slots WHERE active").await == 0 {
        assert!(Instant::now() < deadline, "replication begins");
        tokio::task::yield_now().await;
    }
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    let output = timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped by Ctrl-C"));
    assert_eq!(count(&client, LEFT).await, 0);

    // A table of somebody else's with the same name.
    client.batch_execute("CREATE TABLE demo_notes (mine text); INSERT INTO demo_notes VALUES ('mine')").await.unwrap();
    let output = timeout(LIMIT, demo(&url).output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("table `demo_notes` that this demo did not make"), "{printed}");
    assert_eq!(count(&client, "SELECT count(*) FROM demo_notes").await, 1);
    assert_eq!(count(&client, LEFT).await, 1);

    // What a demo that was killed has left is its own.
    client.batch_execute("DROP TABLE demo_notes").await.unwrap();
    let mut child = demo(&url).spawn().unwrap();
    while count(&client, "SELECT count(*) FROM pg_replication_slots").await == 0 {
        assert!(Instant::now() < deadline + LIMIT, "replication begins");
        tokio::task::yield_now().await;
    }
    child.kill().await.unwrap();
    assert!(count(&client, LEFT).await > 0);
    let output = timeout(LIMIT, demo(&url).output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(count(&client, LEFT).await, 0);
}
