//! A server and a client that are killed at the same time.

use crate::process::Kill;
use crate::stack::Stack;
use crate::traffic::Traffic;
use crate::writes::every_write_arrived;

/// The moments of the server's death and of the client's.
const KILLS: [(Kill, Kill); 5] = [
    (Kill::After(5, "position "), Kill::After(10, "wrote ")),
    (Kill::At("commit.before:8"), Kill::At("database.write.committed:12")),
    (Kill::At("commit.after:3"), Kill::After(25, "wrote ")),
    (Kill::At("append.staged:5"), Kill::At("database.write.committed:30")),
    (Kill::After(1, "position "), Kill::After(1, "wrote ")),
];

#[tokio::test(flavor = "multi_thread")]
async fn server_and_client_killed_together_agree_again() {
    let mut stack = Stack::start(1_000).await;
    stack.serve(None).await;
    let mut anna = stack.client("anna").await;
    anna.process().tells(1, "synced").await;
    let traffic = Traffic::start(&stack.postgres.url);
    for (server, client) in KILLS {
        tokio::join!(stack.server_killed(), anna.killed());
        stack.serve(Some(server)).await;
        anna.start(Some(client)).await;
        anna.write(1_000_000).await;
    }
    tokio::join!(stack.server_killed(), anna.killed());
    stack.serve(None).await;
    anna.start(None).await;
    traffic.stop().await;
    every_write_arrived(&stack, &anna).await;
    stack.converges(&[&anna]).await;
}
