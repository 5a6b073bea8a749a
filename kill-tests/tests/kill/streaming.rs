//! A server that is killed while it streams, under traffic.

use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::process::Kill;
use crate::stack::Stack;
use crate::traffic::Traffic;

/// Early in a life and later, when transactions share commits.
const FAILPOINTS: [&str; 6] =
    ["append.staged:1", "commit.before:1", "commit.after:1", "append.staged:30", "commit.before:25", "commit.after:20"];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_streams_goes_on() {
    let mut stack = Stack::start(2_000).await;
    stack.serve(None).await;
    let (anna, ben) = (stack.client("anna").await, stack.client("ben").await);
    ben.agrees(&stack.postgres).await;
    let traffic = Traffic::start(&stack.postgres.url);
    let mut figures = Figures::new("server killed");
    for failpoint in FAILPOINTS {
        // By SIGKILL first, as it stands.
        traffic.flows(10).await;
        stack.server_killed().await;
        stack.serve(Some(Kill::At(failpoint))).await;
        stack.server_killed().await;
        stack.serve(None).await;
        figures.add(stack.recovery(stack.server().started, &ben).await);
        stack.history().await;
    }
    traffic.stop().await;
    stack.converges(&[&anna, &ben]).await;
    figures.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_a_server_that_was_down_for_long() {
    let mut stack = Stack::start(100).await;
    stack.serve(None).await;
    let ben = stack.client("ben").await;
    ben.agrees(&stack.postgres).await;
    for attempts in [1, 3, 4] {
        let down = Instant::now();
        stack.server_killed().await;
        stack.turns_away(attempts).await;
        stack.serve(None).await;
        let down = stack.server().started - down;
        let recovery = stack.recovery(stack.server().started, &ben).await;
        println!("server down for {down:.1?}, then until a new row is in a client: {:.1?}", recovery.shown);
        // Delays double, so that none is longer than twice the time that has passed.
        assert!(recovery.shown < 2 * down + Duration::from_secs(2), "down for {down:?}, then {recovery:?}");
    }
    stack.converges(&[&ben]).await;
}
