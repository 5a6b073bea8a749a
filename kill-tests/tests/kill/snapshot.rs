//! A server that is killed while it reads the tables for the first time.

use crate::postgres::Outage;
use crate::process::Kill;
use crate::stack::Stack;
use crate::traffic::Traffic;
use crate::writes::every_write_arrived;

const PROGRESS: &str = "snapshot public.items ";

/// The first commit of the first life is that of the config, so its third is that of the second unit.
const KILLS: [Kill; 6] = [
    Kill::At("commit.before:3"),
    Kill::At("append.staged:5"),
    Kill::After(1, PROGRESS),
    Kill::At("commit.after:2"),
    Kill::At("append.staged:1"),
    Kill::After(3, PROGRESS),
];

/// The first steps of a store, one after the other: its config; the name of its slot; a slot of which the store does not
/// know yet that it was made, left behind twice; all tables, which are small; and the stream that makes them a checkpoint.
const FIRST_STEPS: [Kill; 10] = [
    Kill::At("commit.before:1"),
    Kill::At("commit.after:1"),
    Kill::At("commit.before:1"),
    Kill::At("commit.after:1"),
    Kill::At("append.staged:1"),
    Kill::At("commit.before:1"),
    Kill::At("append.staged:1"),
    Kill::At("commit.after:1"),
    Kill::At("commit.before:1"),
    Kill::At("commit.after:1"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_at_each_of_its_first_steps_takes_the_next() {
    let mut stack = Stack::start(1_000).await;
    for kill in FIRST_STEPS {
        stack.serve(Some(kill)).await;
        stack.server_killed().await;
    }
    stack.serve(None).await;
    stack.converges(&[]).await;
}

/// The same over a store that was in use, while a client that knows it goes on writing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_starts_over_goes_on() {
    let mut stack = Stack::start(1_000).await;
    stack.serve(None).await;
    let mut anna = stack.client("anna").await;
    anna.process().tells(1, "synced").await;
    anna.write(10).await;
    anna.process().tells(10, "wrote ").await;
    stack.server_killed().await;
    stack.loses_its_slot().await;
    stack.postgres.execute("DELETE FROM items WHERE right(id, 1) < '3'; UPDATE items SET owner_id = 'ben'").await;
    for kill in FIRST_STEPS {
        anna.write(3).await;
        stack.serve(Some(kill)).await;
        stack.server_killed().await;
    }
    stack.serve(None).await;
    anna.process().tells(10 + 3 * FIRST_STEPS.len(), "wrote ").await;
    every_write_arrived(&stack, &anna).await;
    stack.converges(&[&anna]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_on_where_it_was_killed() {
    let mut stack = Stack::start(200_000).await;
    let traffic = Traffic::start(&stack.postgres.url);
    for kill in KILLS {
        stack.serve(Some(kill)).await;
        stack.server_killed().await;
    }
    stack.serve(None).await;
    stack.server().tells(1, PROGRESS).await;
    stack.postgres.suffer(Outage::Crash).await;
    stack.server().tells(1, "phase Streaming").await;
    traffic.flows(10).await;
    traffic.stop().await;
    let dora = stack.client("dora").await;
    stack.converges(&[&dora]).await;
    stack.server_killed().await;

    // Whatever is told of a unit, the one before it is durable. A snapshot that started over would tell of its first.
    let mut durable = 0;
    for life in &stack.snapshot {
        assert!(life.is_sorted_by(|one, next| one < next), "it started over within a life: {:?}", stack.snapshot);
        assert!(life.first().is_none_or(|first| *first > durable), "it started over: {:?}", stack.snapshot);
        durable = life.iter().rev().nth(1).copied().unwrap_or(durable);
    }
    let lives = stack.snapshot.iter().filter(|life| !life.is_empty()).count();
    assert!(durable > 100_000 && lives > 3, "{:?}", stack.snapshot);
    println!("rows of a snapshot, as each life of the server told: {:?}", stack.snapshot);
}
