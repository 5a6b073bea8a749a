//! A client that is killed while it downloads and while it shows what it has downloaded.

use crate::process::Kill;
use crate::stack::Stack;
use crate::traffic::Traffic;

/// The first four on the way to its first checkpoint, the others on a client that is up to date.
const KILLS: [Kill; 8] = [
    Kill::At("database.stage.committed:1"),
    Kill::At("database.stage.committed:2"),
    Kill::After(1, "connected"),
    Kill::At("database.publish.before_commit:1"),
    Kill::At("database.publish.before_commit:4"),
    Kill::At("database.stage.committed:3"),
    Kill::After(1, "connected"),
    Kill::At("database.publish.before_commit:1"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_while_it_downloads_goes_on() {
    let mut stack = Stack::start(40_000).await;
    stack.serve(None).await;
    stack.server().tells(1, "phase Streaming").await;
    let traffic = Traffic::start(&stack.postgres.url);
    let mut anna = stack.client("anna").await;
    anna.killed().await;
    for kill in KILLS {
        anna.start(Some(kill)).await;
        anna.killed().await;
    }
    anna.start(None).await;
    anna.process().tells(1, "synced").await;
    traffic.flows(5).await;
    traffic.stop().await;
    stack.converges(&[&anna]).await;
}
