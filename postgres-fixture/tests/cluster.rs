//! The fixture itself: it starts, survives a crash of the server, and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use postgres_fixture::{Cluster, ClusterOptions};

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn runs(pid: u32) -> bool {
    Command::new("sh")
        .args(["-c", "kill -0 \"$1\"", "sh", &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[tokio::test]
async fn data_survive_a_restart_and_a_crash_and_go_with_the_cluster() {
    let cluster = Cluster::start().await.unwrap();
    let url = cluster.create_database("My \"db\" ü").await.unwrap();
    let client = cluster.connect(&url).await.unwrap();
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let level: String = client.query_one("SHOW wal_level", &[]).await.unwrap().get(0);
    assert_eq!(level, "logical");

    cluster.restart().await.unwrap();
    cluster.connect(&url).await.unwrap().batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    cluster.crash().unwrap();
    assert_eq!(cluster.pid(), None);
    cluster.start_again().await.unwrap();
    let client = cluster.connect(&url).await.unwrap();
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 2);
    assert!(cluster.log().unwrap().contains("redo"), "a crash is followed by recovery");

    let (root, pid) = (cluster.socket_directory().to_owned(), cluster.pid().unwrap());
    drop(cluster);
    assert!(!root.exists() && !runs(pid));
}

#[tokio::test]
async fn a_password_is_demanded_over_tcp() {
    let cluster = ClusterOptions::new().password("s3cret'/ü").start().await.unwrap();
    cluster.connect(&cluster.url()).await.unwrap();
    let wrong = format!("postgres://postgres:no@127.0.0.1:{}/postgres", cluster.port());
    assert!(cluster.connect(&wrong).await.is_err());
}

#[tokio::test]
async fn each_fresh_database_is_another() {
    let (a, b) = (postgres_fixture::fresh_database().await, postgres_fixture::fresh_database().await);
    assert_ne!(a, b);
    postgres_fixture::shared().await.connect(&a).await.unwrap();
}

/// Started by the next test in a process of its own, which is then killed.
#[tokio::test]
#[ignore = "the other half of a test below"]
async fn a_process_to_be_killed() {
    let cluster = Cluster::start().await.unwrap();
    let file = std::env::var("PG_FIXTURE_REPORT").unwrap();
    let report = format!("{}\n{}", cluster.pid().unwrap(), cluster.socket_directory().display());
    std::fs::write(format!("{file}.new"), report).unwrap();
    std::fs::rename(format!("{file}.new"), file).unwrap();
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_process_takes_its_server_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_process_to_be_killed"])
        .env("PG_FIXTURE_REPORT", &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the other process reports", || file.exists());
    let report = std::fs::read_to_string(&file).unwrap();
    let (pid, root) = report.split_once('\n').unwrap();
    let pid = pid.parse().unwrap();
    assert!(runs(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the server ends", || !runs(pid));
    wait_until("its files go", || !Path::new(root).exists());
}
