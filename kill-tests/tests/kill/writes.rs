//! A client that is killed while it writes and while it uploads.

use crate::client::Client;
use crate::patience::until;
use crate::process::Kill;
use crate::stack::Stack;
use crate::traffic::Traffic;

const KILLS: [Kill; 6] = [
    Kill::At("database.write.committed:1"),
    Kill::After(1, "wrote "),
    Kill::At("database.write.committed:15"),
    Kill::After(30, "wrote "),
    Kill::At("database.publish.before_commit:1"),
    Kill::After(5, "wrote "),
];
/// More than a client can write before it is killed.
const MANY: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_client_has_written_arrives() {
    let mut stack = Stack::start(200).await;
    stack.serve(None).await;
    let traffic = Traffic::start(&stack.postgres.url);
    let mut anna = stack.client("anna").await;
    anna.process().tells(1, "synced").await;
    anna.killed().await;
    for kill in KILLS {
        anna.start(Some(kill)).await;
        let writes = if matches!(kill, Kill::At("database.publish.before_commit:1")) { 3 } else { MANY };
        anna.write(writes).await;
        anna.killed().await;
    }
    // While uploads are under way.
    for round in 1..=4 {
        anna.start(None).await;
        anna.write(20).await;
        anna.process().tells(5 * round, "wrote ").await;
        let before = arrived(&stack, anna.user).await;
        until("an upload arrives", async || (arrived(&stack, anna.user).await > before).then_some(())).await;
        anna.killed().await;
    }
    anna.start(None).await;
    traffic.stop().await;
    every_write_arrived(&stack, &anna).await;
    stack.converges(&[&anna]).await;
}

/// The newest local transaction of a user that Postgres has.
pub(crate) async fn arrived(stack: &Stack, user: &str) -> i64 {
    stack.postgres.value(&format!("SELECT n FROM counters WHERE id = '{user}'")).await.parse().unwrap()
}

/// Every transaction that a client acknowledged, and none but its own, is in Postgres: all of it, in order, and each was
/// applied once. A client offers it at least once (C2); the backend remembers what it has applied.
pub(crate) async fn every_write_arrived(stack: &Stack, client: &Client) {
    let user = client.user;
    let acknowledged = client.acknowledged();
    assert!(acknowledged.is_sorted_by(|one, next| one < next), "{acknowledged:?}");
    let made = client.number(&format!("SELECT n FROM counters WHERE id = '{user}'")).unwrap();
    let unacknowledged = made - acknowledged.len() as i64;
    assert!(acknowledged.last() <= Some(&made), "an acknowledged write is not in the file");
    assert!((0..=client.kills as i64).contains(&unacknowledged), "{made} writes, acknowledged: {acknowledged:?}");
    until("every local write arrives", async || (arrived(stack, user).await >= made).then_some(())).await;

    let numbers = |rows: Vec<Vec<Option<String>>>| -> Vec<i64> {
        rows.into_iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect()
    };
    let all: Vec<i64> = (1..=made).collect();
    let entries = stack.postgres.rows(&format!("SELECT n FROM entries WHERE owner_id = '{user}' ORDER BY n")).await;
    assert_eq!(numbers(entries), all);
    let unfinished = format!("SELECT count(*) FROM entries WHERE owner_id = '{user}' AND note = 'new' AND n < {made}");
    assert_eq!(stack.postgres.value(&unfinished).await, "0");

    let log = stack.postgres.rows(&format!("SELECT n FROM applied WHERE counter = '{user}' ORDER BY seq")).await;
    assert_eq!(numbers(log), all, "out of order, or applied again");
}
